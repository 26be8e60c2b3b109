"""Certified accuracy against radius, with its interval at every radius."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safemed_eval.report.load import LoadedRun
from safemed_eval.report.rows import Certificates

MOST_POINTS = 120


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Certified accuracy at rising radii from 0 to the ceiling of the sample budget.

    It is a step function: `share[i]` holds for all radii above `radii[i - 1]` up to `radii[i]` (matplotlib's
    where="pre", plotly's "vh"), rounded down where radii were thinned out. `lower` and `upper` are pointwise 95 %
    bounds. Shares are in [0, 1].

    Attributes:
        few: whether the clusters are too few to trust the interval.
    """

    radii: list[float]
    share: list[float]
    lower: list[float]
    upper: list[float]
    n: int
    few: bool


def curve_of(run: LoadedRun, part: Certificates | None = None, *, grounded: bool = False) -> Curve | None:
    """The curve of a `certify` run, or of some of its rows; None where there is no row, or every one failed.

    Args:
        grounded: count only certificates that depend on the image; None, too, where the run did not ask.
    """
    if grounded and not run.donor_vote:
        return None
    rows = run.certificates if part is None else part
    if not len(rows) or rows.nothing_measured:
        return None
    right = rows.grounded_radii(run.donor_vote) if grounded and run.donor_vote else rows.right_radii
    steps = np.unique(right[~np.isnan(right)])
    if len(steps) > MOST_POINTS:
        steps = steps[np.linspace(0, len(steps) - 1, MOST_POINTS).round().astype(int)]
    radii = np.unique([0.0, *steps, run.ceiling])
    shares = [rows.share(right >= radius) for radius in radii]
    return Curve(
        radii=[float(radius) for radius in radii],
        share=[share.estimate or 0.0 for share in shares],
        lower=[share.lower or 0.0 for share in shares],
        upper=[1.0 if share.upper is None else share.upper for share in shares],
        n=len(rows),
        few=shares[0].few,
    )
