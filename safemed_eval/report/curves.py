"""Certified accuracy against radius, with its interval at every radius."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from safemed_eval import stats
from safemed_eval.report.load import LoadedRun, nothing_measured

MOST_POINTS = 120


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Certified accuracy at rising radii from 0 to the ceiling of the sample budget.

    It is a step function: `share[i]` holds for all radii above `radii[i - 1]` up to `radii[i]` (matplotlib's
    where="pre", plotly's "vh"), rounded down where radii were thinned out. `lower` and `upper` are pointwise 95 %
    bounds. Shares are in [0, 1].
    """

    radii: list[float]
    share: list[float]
    lower: list[float]
    upper: list[float]
    n: int
    few: bool
    """Whether the clusters are too few to trust the interval."""


def curve_of(run: LoadedRun, part: pd.DataFrame | None = None) -> Curve | None:
    """The curve of a `certify` run, or of some of its rows; None where there is no row, or every one failed."""
    frame = run.frame if part is None else part
    ceiling = run.smoothing.ceiling
    if frame.empty or ceiling is None or nothing_measured(frame):
        return None
    right = frame["radius"].where(frame["correct"]).astype(float).to_numpy()
    codes = stats.cluster_codes(frame["cluster"].tolist())
    steps = np.unique(right[~np.isnan(right)])
    if len(steps) > MOST_POINTS:
        steps = steps[np.linspace(0, len(steps) - 1, MOST_POINTS).round().astype(int)]
    radii = np.unique([0.0, *steps, ceiling])
    found = [stats.clustered_proportion(right >= radius, codes) for radius in radii]
    return Curve(
        radii=[float(radius) for radius in radii],
        share=[one.estimate or 0.0 for one in found],
        lower=[one.lower or 0.0 for one in found],
        upper=[1.0 if one.upper is None else one.upper for one in found],
        n=len(frame),
        few=found[0].few,
    )
