"""Bounds and tests. No torch, no files: numbers in, numbers out.

The direction of a bound is in its name. Bounds are full floats; `rounding` formats them for display.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy import stats as sps

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
"""Cluster labels as numbers."""

FEW_CLUSTERS = 10


def _check(k: float, n: float, alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    if not 0 <= k <= n or n <= 0:
        raise ValueError(f"need 0 <= k <= n and n > 0, got k={k}, n={n}")


def clopper_pearson_lower(k: float, n: float, alpha: float) -> float:
    """Exact one-sided lower bound of a binomial proportion: P(bound > p) <= alpha for every p.

    Args:
        k: successes in [0, n].
        n: trials. Fractions are allowed in both (effective sample sizes).
    Source:
        Clopper and Pearson 1934; equals scipy's `binomtest(k, n, alternative="greater")` interval.
    """
    _check(k, n, alpha)
    return 0.0 if k == 0 else float(sps.beta.ppf(alpha, k, n - k + 1))


def clopper_pearson_upper(k: float, n: float, alpha: float) -> float:
    """Exact one-sided upper bound of a binomial proportion: P(bound < p) <= alpha for every p."""
    _check(k, n, alpha)
    return 1.0 if k == n else float(sps.beta.isf(alpha, k + 1, n - k))


def binomial_test(k: int, n: int) -> float:
    """Two-sided p value of k successes in n trials of a fair coin; 1 where there was no trial."""
    return float(sps.binomtest(k, n, 0.5).pvalue) if n else 1.0


def certified_radius(p_lower: float, sigma: float) -> float | None:
    """The L2 radius sigma * ppf(p_lower), or None at p_lower <= 1/2, where nothing is certified.

    Source:
        Cohen et al. 2019 (arXiv:1902.02918), Theorem 1 with p_B = 1 - p_A. The unit is that of sigma.
    """
    return sigma * float(sps.norm.ppf(p_lower)) if p_lower > 0.5 else None


def certified_lower(p_lower: float, radius: float, sigma: float, distance: float) -> float:
    """Lower bound of the certified class's probability under noise at an L2 distance from the image.

    It is at least one half within the radius, and falls with the distance from p_lower.

    Source:
        Cohen et al. 2019 (arXiv:1902.02918), the bound behind Theorem 1: Phi(ppf(p_lower) - distance / sigma).
    """
    left = float(sps.norm.cdf(sps.norm.ppf(p_lower) - distance / sigma))
    return max(left, 0.5) if distance < radius else left


def radius_ceiling(sigma: float, n: int, alpha: float) -> float | None:
    """The largest radius that n unanimous votes can certify: sigma * ppf(alpha ** (1 / n))."""
    return certified_radius(clopper_pearson_lower(n, n, alpha), sigma)


def false_certificates_at_most(attempted: int, alpha: float, delta: float = 0.05) -> int:
    """Number of false certificates that is not exceeded with probability at least 1 - delta.

    Each one is false with probability at most alpha, and the noise of items is independent.
    """
    return int(sps.binom.ppf(1 - delta, attempted, alpha))


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """A share of items with a two-sided interval. Unknown is None, never 0."""

    count: int
    n: int
    clusters: int
    estimate: float | None
    lower: float | None
    upper: float | None
    few: bool
    """True if the effective number of clusters is below FEW_CLUSTERS: do not trust the interval."""


def clustered_proportion(
    successes: Sequence[bool] | npt.NDArray[np.bool_], clusters: Sequence[Hashable] | Codes, *, alpha: float = 0.05
) -> Proportion:
    """Estimate a share of successes, with a Clopper-Pearson interval on the cluster-effective sample size.

    Args:
        successes: one bool per item.
        clusters: one label per item; items of a cluster may be dependent.
    Returns:
        estimate and bounds None when there is no item.
    Source:
        Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts
        estimated from survey data"; https://www.cdc.gov/nchs/data/series/sr_02/sr02_175.pdf. Differs: see
        `effective_size`; the lower bound counts one further cluster of failures, the upper one of successes.
    """
    values = np.asarray(successes, dtype=float)
    if not len(values):
        return Proportion(count=0, n=0, clusters=0, estimate=None, lower=None, upper=None, few=False)
    n, k, codes = len(values), int(values.sum()), cluster_codes(clusters)
    p = k / n
    n_lower, n_upper = (effective_size(values, codes, further=outcome, alpha=alpha) for outcome in (0.0, 1.0))
    return Proportion(
        count=k,
        n=n,
        clusters=int(codes.max()) + 1,
        estimate=p,
        lower=clopper_pearson_lower(p * n_lower, n_lower, alpha / 2),
        upper=clopper_pearson_upper(p * n_upper, n_upper, alpha / 2),
        few=too_few(codes),
    )


def effective_size(
    values: Floats, clusters: Sequence[Hashable] | Codes, *, further: float, alpha: float = 0.05
) -> float:
    """Number of independent items that carry as much information about the mean as these clustered ones.

    n_eff = n / deff, deff = the ratio of the cluster-robust (linearised, with-replacement) variance of the mean to that
    of independent items, and n_eff is shrunk by (t_{n-1} / t_{d})^2 for d degrees of freedom, never above n. Differs
    from Korn and Graubard in two ways. d is not the number of clusters less one, but their effective number less one,
    because few large clusters among many small ones hold less information. And all of it is taken with one further
    cluster, as large as the largest, all of whose items have the value `further`: large clusters that agree would show
    no variance, though another might have differed. Where all values are equal, n_eff is what `unseen_share` proves.

    For independent items it is their number.
    """
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} outcomes but {len(clusters)} cluster labels")
    codes = cluster_codes(clusters)
    sizes = np.bincount(codes).astype(float)
    if sizes.max() == 1:
        return float(len(values))
    if (values == values[0]).all():
        return float(np.log(alpha / 2) / np.log1p(-unseen_share(sizes, alpha / 2)))
    largest = sizes.max()
    sums = np.append(np.bincount(codes, weights=values), further * largest)
    sizes = np.append(sizes, largest)
    squares = float((values**2).sum() + further**2 * largest)
    n, c = float(sizes.sum()), len(sizes)
    mean = float(sums.sum()) / n
    between = c / (c - 1) * float(((sums - mean * sizes) ** 2).sum()) / n**2
    independent = (squares / n - mean**2) / (n - 1)
    freedom = max(1.0, effective_clusters(sizes) - 1)
    shrink = float(special.stdtrit(n - 1, alpha / 2) / special.stdtrit(freedom, alpha / 2))
    return min(float(len(values)), n * independent / between * shrink**2)


def unseen_share(sizes: Floats, level: float) -> float:
    """Upper bound of the expected share of items that change, if whole clusters change and none of these did.

    That is the maximum of sum(p_i s_i) / sum(s_i) over all chances p_i of change with prod(1 - p_i) >= level: were the
    share larger, no change would have been seen with probability below `level` only. It is at p_i = max(0, 1 - w / s_i)
    for some w. For c clusters of one size it is Clopper and Pearson's bound, 1 - level ** (1 / c).
    """
    falling = np.sort(sizes)[::-1]
    waters = np.exp((np.log(level) + np.cumsum(np.log(falling))) / np.arange(1, len(falling) + 1))
    highest = int(np.argmax(waters >= np.append(falling[1:], 0.0)))
    return float((falling[: highest + 1] - waters[highest]).sum() / falling.sum())


def too_few(codes: Codes) -> bool:
    """Return True if the effective number of clusters is below FEW_CLUSTERS."""
    return bool(len(codes)) and effective_clusters(np.bincount(codes).astype(float)) < FEW_CLUSTERS


def cluster_codes(clusters: Sequence[Hashable] | Codes) -> Codes:
    """Number the labels 0 .. c - 1, without gaps."""
    if isinstance(clusters, np.ndarray):
        return clusters if _without_gaps(clusters) else np.unique(clusters, return_inverse=True)[1]
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(label, len(known)) for label in clusters], dtype=np.int64)


def _without_gaps(codes: Codes) -> bool:
    """True for 0 .. c - 1, each at least once: found without the sorting that takes most of the time of an interval."""
    return bool(len(codes) and codes.min() == 0 and codes.max() < len(codes) and np.bincount(codes).all())


def effective_clusters(sizes: Floats) -> float:
    """The effective number of clusters (Kish): n^2 / sum of squared sizes."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())
