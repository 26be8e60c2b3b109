"""How the noisy copies of a certify run were drawn: what it cost, and what the run therefore does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safemed_eval.report.load import Json, LoadedRun
from safemed_eval.smoothing import CAP, CERTIFIED, FUTILE, WRONG, Sequential

SEQUENTIAL_BOUNDS = (
    "sequential certificates, of the gold answer and at the radii that were asked for only; the average and median "
    "radius count the largest of them that is certified for each item, and are lower bounds"
)
ENDED_WRONG = "the selected answer is wrong and no more was drawn; whether it could be certified is not known"


def draws_words(run: LoadedRun) -> str:
    """How many noisy copies an item has."""
    budget = run.smoothing
    if isinstance(budget, Sequential):
        return f"at most {budget.n:,} noisy copies, to decide about the radii {', '.join(budget.radii)}"
    return f"{budget.n0:,} noisy copies to select an answer and {budget.n:,} to bound it"


def draws_of(run: LoadedRun) -> Json | None:
    """How many noisy copies sequential certificates took, and why they ended; None for fixed ones.

    Returns:
        "total" and "mean" over the items that did not fail, and "certified", "futile" and "cap": how many ended so.
    """
    if not run.sequential or run.frame.empty:
        return None
    rows = run.frame[run.frame["error"].isna()]
    total, ends = int(rows["stopped_at"].sum()), rows["stopped"].value_counts()
    counts = {why: int(ends.get(why, 0)) for why in (CERTIFIED, FUTILE, CAP)}
    return {"total": total, "mean": total / len(rows) if len(rows) else None, **counts}


def draws_sentence(draws: Mapping[str, Any]) -> str:
    """What `draws_of` has counted, in words."""
    mean = "n/a" if draws["mean"] is None else f"{draws['mean']:,.1f}"
    return (
        f"{mean} noisy copies an item on average, {draws['total']:,} in all: {draws[CERTIFIED]:,} items ended with all "
        f"radii certified, {draws[FUTILE]:,} with none left in reach, {draws[CAP]:,} at the most that were allowed."
    )


def ended_wrong(run: LoadedRun) -> int | None:
    """How many items of --stop-when-wrong have no certificate because their selected answer is wrong."""
    if not run.spec.get("stop_when_wrong") or run.frame.empty:
        return None
    return int((run.frame["abstained"] == WRONG).sum())
