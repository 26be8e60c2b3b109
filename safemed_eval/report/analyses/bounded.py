"""A mean of bounded values, with an interval that counts clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safemed_eval.paired import bounds_of_sums
from safemed_eval.stats import Codes, Floats, cluster_codes


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """A number with its two-sided interval, 95 % unless its place says otherwise."""

    value: float
    lower: float
    upper: float


def bounded_mean(
    values: Floats, clusters: Codes, *, low: float, high: float, weights: Floats | None = None, alpha: float = 0.05
) -> Bounded | None:
    """Estimate the mean of values in [low, high], with the bounds of `paired.bounds_of_sums`.

    Each bound is one-sided at alpha / 2, and counts one further cluster at the end of the range that it is cautious of.

    Args:
        weights: of items, in [0, 1]; by default 1.
    Returns:
        None where no item has a weight.
    """
    weights = np.ones(len(values)) if weights is None else weights
    codes = cluster_codes(clusters)
    sizes: Floats = np.bincount(codes, weights=weights).astype(float)
    middle, half = (low + high) / 2, (high - low) / 2
    sums: Floats = np.bincount(codes, weights=weights * (values - middle) / half).astype(float)
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    if not len(sizes):
        return None
    lower, upper = bounds_of_sums(sums, sizes, level=alpha / 2)
    mean = float(sums.sum() / sizes.sum())
    return Bounded(value=middle + half * mean, lower=middle + half * lower, upper=middle + half * upper)
