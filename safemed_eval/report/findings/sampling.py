"""The noisy copies of a certify run: how many were drawn, and what the run therefore does not know."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from safemed_eval.report.load import LoadedRun
from safemed_eval.smoothing import CAP, CERTIFIED, FUTILE, WRONG, Exhaustive, Sequential


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The number of noisy copies that sequential certificates took, and why draws ended; of items that did not fail.

    Attributes:
        mean: None where every item failed.
        certified, futile, cap: how many items ended with all radii certified, with none left in reach, and at the most
            that were allowed.
    """

    total: int
    mean: float | None
    certified: int
    futile: int
    cap: int

    def __str__(self) -> str:
        mean = "n/a" if self.mean is None else f"{self.mean:,.1f}"
        return (
            f"{mean} noisy copies an item on average, {self.total:,} in all: {self.certified:,} items ended with all "
            f"radii certified, {self.futile:,} with none left in reach, {self.cap:,} at the most that were allowed."
        )


def draws_words(run: LoadedRun) -> str:
    """Describe the noisy copies that an item of a certify run gets."""
    budget = run.budget
    if isinstance(budget, Sequential):
        return f"at most {budget.n:,} noisy copies, to decide about the radii {', '.join(budget.radii)}"
    if isinstance(budget, Exhaustive):
        patch = budget.kind
        return f"a vote of every band of {patch.band} columns, one each {patch.stride} columns"
    return f"{budget.n0:,} noisy copies to select an answer and {budget.n:,} to bound it"


def draws_of(run: LoadedRun) -> Draws | None:
    """Count the noisy copies that sequential certificates took; None for fixed ones."""
    if not run.sequential or not run.records:
        return None
    made = [record for record in run.certificates if not record.failed]
    total, ends = sum(record.stopped_at or 0 for record in made), Counter(record.stopped for record in made)
    return Draws(
        total=total,
        mean=total / len(made) if made else None,
        certified=ends[CERTIFIED],
        futile=ends[FUTILE],
        cap=ends[CAP],
    )


def ended_wrong(run: LoadedRun) -> int | None:
    """Count the items of --stop-when-wrong that have no certificate because their selected answer is wrong."""
    if not run.stop_when_wrong or not run.records:
        return None
    return sum(record.abstained == WRONG for record in run.certificates)
