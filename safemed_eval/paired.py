"""Paired tests and bounds for two runs over the same items. No files: numbers in, numbers out.

A difference is baseline minus candidate, item by item: positive is a drop. Items of one cluster (a patient, an image)
are not independent, so signs are flipped, and counts made, by cluster.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special
from scipy import stats as sps

from safemed_eval.seeds import seed_of
from safemed_eval.stats import Codes, Floats, cluster_codes, effective_size, unseen_share

DRAWS = 9999
"""Number of random sign-flip patterns where the sums are not whole numbers."""
_TIE = 1e-12
_AT_ONCE = 2**22
_MOST_CLUSTERS = 2**20


def cluster_sums(differences: Floats, clusters: Codes) -> Floats:
    """Sum the differences within each cluster."""
    return np.bincount(cluster_codes(clusters), weights=differences).astype(float)


def sign_flip_test(sums: Floats) -> tuple[float, float]:
    """Exact sign-flip permutation test of whole-numbered cluster sums.

    The hypothesis is that baseline and candidate are exchangeable in each cluster, so that every sum is as likely to
    have the other sign. All 2^c patterns are counted, not sampled: the sum of c
    independent signs has a distribution that convolution gives. Where every cluster is one item this is McNemar's exact
    test.

    Returns:
        (p for a drop, p for a change in either direction); 1.0 where nothing differs.
    """
    whole = np.rint(sums).astype(int)
    if not np.array_equal(whole, sums):
        raise ValueError("sums are not whole numbers; see sign_flip_test_sampled")
    mass = np.ones(1)
    for size, count in zip(*np.unique(np.abs(whole[whole != 0]), return_counts=True), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = sps.binom.pmf(np.arange(count + 1), count, 0.5)
        mass = np.convolve(mass, steps)
    reach, total = len(mass) // 2, int(whole.sum())
    values = np.arange(-reach, reach + 1)
    drop = float(mass[values >= total].sum())
    either = float(mass[np.abs(values) >= abs(total)].sum())
    return min(1.0, drop), min(1.0, either)


def sign_flip_test_sampled(sums: Floats, *, seed: int) -> tuple[float, float]:
    """Sign-flip test for sums that are not whole numbers, by `DRAWS` random patterns; valid for any number of patterns.

    Source:
        Phipson and Smyth 2010, "Permutation p-values should never be zero": (1 + as extreme) / (1 + drawn).
    """
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0, 1.0
    rng = np.random.default_rng(seed_of(seed, "compare", "sign flips"))
    total, slack = float(sums.sum()), _TIE * float(np.abs(sums).sum())
    drop = either = 0
    for draws in _batches(len(sums), DRAWS):
        flipped = (2.0 * rng.integers(0, 2, (draws, len(sums)), dtype=np.int8) - 1) @ sums
        drop += int((flipped >= total - slack).sum())
        either += int((np.abs(flipped) >= abs(total) - slack).sum())
    return (1 + drop) / (1 + DRAWS), (1 + either) / (1 + DRAWS)


def _batches(width: int, draws: int) -> list[int]:
    each = max(1, _AT_ONCE // width)
    return [min(each, draws - start) for start in range(0, draws, each)]


def drop_interval(differences: Floats, clusters: Codes, *, level: float) -> tuple[float, float]:
    """Lower and upper bound, each one-sided at `level`, of the mean of differences in [-1, 1].

    The upper bound is that of `cautious_upper`, or the observed mean plus `unseen_share` if that is larger; where
    nothing changed, the latter is exact. The lower bound is minus the upper bound of the negated differences.
    `reports/gate` has their error rates by simulation.
    """
    codes = cluster_codes(clusters)
    return bounds_of_sums(cluster_sums(differences, codes), np.bincount(codes).astype(float), level=level)


def bounds_of_sums(sums: Floats, sizes: Floats, *, level: float) -> tuple[float, float]:
    """The bounds of `drop_interval` from the sum of differences, and the number of items, of each cluster."""
    mean, unseen = float(sums.sum() / sizes.sum()), unseen_share(sizes, level)
    lower = min(-float(cautious_upper(-sums, sizes, level=level)), mean - unseen)
    upper = max(float(cautious_upper(sums, sizes, level=level)), mean + unseen)
    return max(-1.0, lower), min(1.0, upper)


def cautious_upper(sums: Floats, sizes: Floats, *, level: float, counts: Floats | float = 1.0) -> Floats:
    """Upper bound of a drop, one-sided at `level`, as if one more cluster had been lost as a whole.

    A few observed changes say little about changes that happened not to be sampled. The added cluster is as large as
    the largest: the bound is the mean with it, plus t standard errors, corrected for skewness. The degrees of freedom
    are the effective number of clusters less one.

    Args:
        sums: (..., c) the sum of differences of each cluster.
        sizes: (c,) the items of each cluster.
        counts: (..., c) number of clusters with this sum and size.
    Returns:
        (...) bounds.
    Source:
        The term of skewness is the first of Cornish and Fisher's expansion, (t^2 - 1) / 6 times the skewness.
    """
    counts = np.broadcast_to(counts, sums.shape)
    largest = sizes.max()
    n, c = (counts * sizes).sum(-1) + largest, counts.sum(-1) + 1
    mean = ((counts * sums).sum(-1) + largest) / n
    residuals, further = sums - mean[..., None] * sizes, largest * (1 - mean)
    second, third = ((counts * residuals**power).sum(-1) + further**power for power in (2, 3))
    freedom = n**2 / ((counts * sizes**2).sum(-1) + largest**2) - 1
    t = -special.stdtrit(np.maximum(1.0, freedom), level)
    skewed = np.divide(third, second, out=np.zeros_like(second), where=second > 0)
    upper: Floats = mean + (t * np.sqrt(c / (c - 1) * second) + (t**2 - 1) / 6 * skewed) / n
    return upper


def cautious_size(differences: Floats, clusters: Codes, *, level: float) -> float:
    """Effective number of items, as if one more cluster of the largest size had been lost as a whole."""
    return effective_size(differences, clusters, further=1.0, alpha=2 * level)


def items_needed(differences: Floats, clusters: Codes, *, level: float, margin: float) -> int | None:
    """Number of items that proves a drop below `margin` if their clusters and differences are like these.

    For differences of 0 it is 59 for 5 % and 5 points with independent items: 0.95 ** 59 < 0.05.

    Returns:
        None where the given items suffice, or where even `_MOST_CLUSTERS` clusters do not.
    """
    codes = cluster_codes(clusters)
    sums, sizes = cluster_sums(differences, codes), np.bincount(codes).astype(float)
    order = np.lexsort((sums, sizes))
    sums, sizes = sums[order], sizes[order]

    def alike(count: int) -> Codes:
        """Return the places of `count` clusters, distributed as the given ones."""
        return ((np.arange(count) + 0.5) * len(sizes) / count).astype(int)

    def too_few(count: int) -> bool:
        chosen = alike(count)
        return bounds_of_sums(sums[chosen], sizes[chosen], level=level)[1] >= margin

    if not too_few(len(sizes)):
        return None
    enough = len(sizes)
    while too_few(enough):
        enough *= 2
        if enough > _MOST_CLUSTERS:
            return None
    low = enough // 2
    while enough - low > 1:
        middle = (low + enough) // 2
        low, enough = (middle, enough) if too_few(middle) else (low, middle)
    return int(sizes[alike(enough)].sum())


def power(
    n: float, drop: float, *, churn: float, level: float, min_drop: float = 0.0, bound_level: float | None = None
) -> float:
    """Probability of detecting a true drop: p <= level by McNemar's exact test, and at least `min_drop` observed.

    Args:
        n: effective number of items.
        drop: true difference of the shares, baseline minus candidate.
        churn: discordant items beyond the drop, as a share of all; assumed symmetric.
        level: level of one test; under Holm's correction the strictest one, level / tests, is conservative.
        bound_level: if given, the lower bound of the drop at this level must be above 0, too.
    """
    items = int(n)
    discordant = min(1.0, churn + drop)
    if items < 1 or discordant < _TIE:
        return 0.0
    m = np.arange(items + 1)
    weight = sps.binom.pmf(m, items, discordant)
    m, weight = m[weight > _TIE], weight[weight > _TIE]
    enough = sps.binom.isf(level, m, 0.5) + 1  # the smallest count of losses with P(count or more) <= level
    enough = np.maximum(enough, np.ceil((m + min_drop * items) / 2 - _TIE * items))
    if bound_level is not None:
        enough = np.maximum(enough, _losses_above_zero(m, items, bound_level))
    lost = (discordant + drop) / (2 * discordant)
    return float((weight * sps.binom.sf(enough - 1, m, lost)).sum())


def _losses_above_zero(changed: Codes, items: int, level: float) -> Codes:
    """Fewest losses, among `changed` discordant independent items, for which the lower bound is above 0."""
    low, high = np.zeros_like(changed), changed + 1
    while (high > low).any():
        lost = (low + high) // 2
        won = changed - lost
        counts = np.stack([lost, won, items - changed], axis=-1).astype(float)
        opposite = np.broadcast_to([-1.0, 1.0, 0.0], counts.shape)
        above = cautious_upper(opposite, np.ones(3), level=level, counts=counts) < 0
        low, high = np.where(above | (low == high), low, lost + 1), np.where(above, lost, high)
    return low


def smallest_drop(
    n: float,
    *,
    churn: float,
    level: float,
    min_drop: float,
    bound_level: float | None = None,
    wanted: float = 0.8,
) -> float | None:
    """Smallest true drop, in steps of 0.1 points, that is detected with probability `wanted`; None: there is none."""
    steps = np.arange(1, 1000) / 1000
    steps = steps[steps <= 1 - churn]
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        caught = power(n, float(steps[middle]), churn=churn, level=level, min_drop=min_drop, bound_level=bound_level)
        if caught >= wanted:
            high = middle
        else:
            low = middle + 1
    return float(steps[low]) if low < len(steps) else None


def holm(p: Sequence[float]) -> list[float]:
    """Adjust a family of p-values by Holm's step-down method, keeping their order.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
