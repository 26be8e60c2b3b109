"""Items that failed: they stay in every denominator and count as wrong, and where all did, nothing was measured."""

from __future__ import annotations

import numpy as np

from safemed_eval.report.load import LoadedRun


def failures(run: LoadedRun) -> list[str]:
    """Describe the failed items of a run, in sentences that follow a colon."""
    if not run.failed:
        return []
    lost, rows = run.all_failed, run.rows
    if run.conditions:
        rows = run.answers.where(np.array([record.attack not in lost for record in run.answers], dtype=bool))
    elif lost:
        rows = rows[:0]
    some = rows.failed_items
    sentences = [f"{some} of {run.meta.items} items failed and count as wrong."] if some else []
    return sentences + [f"{words_of_failure(run, name)}, and nothing was measured." for name in lost]


def words_of_failure(run: LoadedRun, condition: str) -> str:
    """Say that every item failed under a condition in `LoadedRun.all_failed`."""
    if not run.conditions:
        return "every item failed"
    which = "" if run.answers.under(condition).failed.all() else " that was right when clean"
    return f"every item{which} failed under {condition}"
