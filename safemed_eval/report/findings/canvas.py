"""The canvas: its cost in accuracy, and the size of a change of length 1 in grey levels."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from safemed_eval.core import CLEAN, OFFICIAL
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


def grey_levels(canvas: str) -> float | None:
    """Root-mean-square change in 8-bit grey levels of a change of L2 length 1; None where canvases differ in size."""
    match = re.match(r"(\d+)x(\d+)", canvas)
    return 255 / math.sqrt(3 * int(match[1]) * int(match[2])) if match else None
