"""The canvas: its cost in accuracy, the size of a change of length 1 in grey levels, and regions of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from safemed_eval.core import CLEAN, OFFICIAL
from safemed_eval.report.findings.finding import Finding, counted, note
from safemed_eval.report.load import LoadedRun

NOTABLE_COST = 0.02
"""The canvas's cost in accuracy against the official path that is worth a warning."""


@dataclass(frozen=True, kw_only=True)
class CanvasCost:
    """The gain in accuracy on the official path, over the items that failed on neither; None where there are none."""

    cost: float | None

    @property
    def notable(self) -> bool:
        return self.cost is not None and self.cost > NOTABLE_COST


def canvas_cost(run: LoadedRun) -> CanvasCost | None:
    """Compare the canvas with the official path; None where that was not asked, or a denoiser has its price, too."""
    if OFFICIAL not in run.conditions or run.meta.names.denoiser:
        return None
    official, clean = (
        {record.item: record.correct for record in run.answers.under(name) if not record.failed}
        for name in (OFFICIAL, CLEAN)
    )
    both = official.keys() & clean.keys()
    gained = sum(official[item] - clean[item] for item in both)
    return CanvasCost(cost=gained / len(both) if both else None)


def grey_levels(run: LoadedRun) -> float | None:
    """Root-mean-square change in 8-bit grey levels of a change of L2 length 1.

    None where canvases differ in size, or the run's radii are not L2.
    """
    size = run.spec.canvas_size
    if size is None or (run.kind == "certify" and run.budget.kind.measure != "l2"):
        return None
    return 255 / math.sqrt(3 * size[0] * size[1])


def region_findings(run: LoadedRun) -> Iterator[Finding]:
    """Say how much of the canvas each attack on a region may change, and for how many items that is nothing."""
    for condition in run.conditions:
        shares = [record.region for record in run.answers.under(condition) if record.region is not None]
        if not shares:
            continue
        size = f"the region covers {100 * median(shares):.1f} % of the canvas (median of {counted(len(shares), 'item')}"
        none = shares.count(0)
        empty = f"; {none:,} of {counted(len(shares), 'item')} have no such pixel and stay clean" if none else ""
        yield note("region", f"{condition}: {size}, from {100 * min(shares):.1f} to {100 * max(shares):.1f} %){empty}.")
