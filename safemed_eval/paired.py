"""Did it get worse? Tests and bounds for two runs over the same items. No files: numbers in, numbers out.

A difference is baseline minus candidate, item by item: positive is a drop. Items of one cluster (a patient, an image)
are not independent, so that clusters are what is flipped, drawn again, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize
from scipy import stats as sps

from safemed_eval.seeds import seed_of
from safemed_eval.stats import Codes, Floats, cluster_codes, effective_clusters, effective_size

DRAWS = 9999
"""Random sign flips, and bootstrap samples, where there is no exact sum."""
_TIE = 1e-12
_AT_ONCE = 2**22
_MOST_PICKS = 2**25


def cluster_sums(differences: Floats, clusters: Codes) -> Floats:
    """The sum of the differences in each cluster."""
    return np.bincount(cluster_codes(clusters), weights=differences).astype(float)


def sign_flip_test(sums: Floats) -> tuple[float, float]:
    """Exact sign-flip permutation test of whole-numbered cluster sums.

    The hypothesis is that baseline and candidate are exchangeable in each cluster: they could have been swapped, so
    that every sum could as well have the other sign. All 2^c patterns are counted, not sampled: the sum of c
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
    """The same test for sums that are not whole numbers, by `DRAWS` random patterns; valid for any number of them.

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
        found = (2.0 * rng.integers(0, 2, (draws, len(sums)), dtype=np.int8) - 1) @ sums
        drop += int((found >= total - slack).sum())
        either += int((np.abs(found) >= abs(total) - slack).sum())
    return (1 + drop) / (1 + DRAWS), (1 + either) / (1 + DRAWS)


def drop_interval(differences: Floats, clusters: Codes, *, level: float) -> tuple[float, float]:
    """Lower and upper bound, each one-sided at `level`, of the drop of a share.

    Args:
        differences: -1, 0 or 1 per item.
        clusters: a number per item.
    Source:
        Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
        design" (score interval), on the cluster-effective number of items; see `cautious_size`.
    """
    n = cautious_size(differences, clusters, level=level)
    lost, won = (n * float((differences == sign).mean()) for sign in (1, -1))
    return -_score_upper(won, lost, n, level), _score_upper(lost, won, n, level)


def cautious_size(differences: Floats, clusters: Codes, *, level: float) -> float:
    """The effective number of items, as if one more cluster had been lost as a whole.

    Where hardly anything changed, the few clusters that did say next to nothing about how clusters change: one single
    item among them would make all items look independent. The further cluster is of the size that an item's cluster
    has on average. Single items stay as they are.
    """
    codes = cluster_codes(clusters)
    n, sizes = len(codes), np.bincount(codes)
    if sizes.max() == 1:
        return float(n)
    more = int(np.ceil((sizes**2).sum() / n))
    values = np.concatenate([differences, np.ones(more)])
    joined = np.concatenate([codes, np.full(more, len(sizes))])
    return effective_size(values, joined, alpha=2 * level) * n / (n + more)


def _score_upper(lost: float, won: float, n: float, level: float) -> float:
    """The largest drop that the score test does not reject."""
    z = float(sps.norm.isf(level))

    def excess(drop: float) -> float:
        b = (2 * n - lost + won) * drop - lost - won
        p_won = (np.sqrt(max(b * b + 8 * n * won * drop * (1 - drop), 0.0)) - b) / (4 * n)
        spread = n * (2 * p_won + drop * (1 - drop))
        return float(lost - won - n * drop + z * np.sqrt(max(spread, 0.0)))

    start = (lost - won) / n + _TIE
    if start >= 1 or excess(1.0) >= 0:
        return 1.0
    return float(optimize.brentq(excess, start, 1.0))


def bootstrap_interval(differences: Floats, clusters: Codes, *, level: float, seed: int) -> tuple[float, float]:
    """Lower and upper bound, each one-sided at `level`, of the mean of differences in [-1, 1].

    A studentised cluster bootstrap: clusters are drawn again, with all their items; each draw's mean is measured in its
    own standard errors, which keeps coverage near its nominal level where differences are few and skewed. It knows
    nothing of losses that it has not seen: the upper bound, on which a candidate passes, is never below that of c
    clusters (effectively, after Kish) none of which was lost as a whole.

    Source:
        Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 5.2.
    """
    codes = cluster_codes(clusters)
    sizes = np.bincount(codes).astype(float)
    sums = cluster_sums(differences, codes)
    mean, error = (float(one[0]) for one in _means(sums[None], sizes[None]))
    unseen = 1 - level ** (1 / effective_clusters(codes))
    if len(sums) < 2 or error == 0:
        return mean, max(mean, unseen)
    rng = np.random.default_rng(seed_of(seed, "compare", "bootstrap"))
    scores = []
    for draws in _batches(len(sums), max(1999, min(DRAWS, _MOST_PICKS // len(sums)))):
        picked = rng.integers(0, len(sums), (draws, len(sums)))
        means, errors = _means(sums[picked], sizes[picked])
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (means - mean) / errors
        scores.append(
            np.where(errors > 0, found, np.where(means == mean, 0.0, np.where(means > mean, np.inf, -np.inf)))
        )
    low, high = np.quantile(np.concatenate(scores), [level, 1 - level], method="inverted_cdf")
    return max(-1.0, mean - float(high) * error), min(1.0, max(mean - float(low) * error, unseen))


def _means(sums: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """(R, c) cluster sums and sizes -> the R means per item, and their cluster-robust standard errors."""
    items, c = sizes.sum(1), sums.shape[1]
    means = sums.sum(1) / items
    spread = ((sums - means[:, None] * sizes) ** 2).sum(1) * c / max(c - 1, 1)
    return means, np.sqrt(spread) / items


def _batches(width: int, draws: int) -> list[int]:
    each = max(1, _AT_ONCE // width)
    return [min(each, draws - start) for start in range(0, draws, each)]


def power(n: float, drop: float, *, churn: float, level: float, min_drop: float = 0.0) -> float:
    """Probability that a true drop is found: p <= level by McNemar's exact test, and at least `min_drop` seen.

    Args:
        n: effective number of items.
        drop: how much smaller the candidate's share is.
        churn: share of items that change besides, as many to the better as to the worse.
        level: of one test; under Holm's correction the strictest one, level / tests, is on the safe side.
    """
    items = int(n)
    discordant = min(1.0, churn + drop)
    if items < 1 or discordant < _TIE:
        return 0.0
    m = np.arange(items + 1)
    weight = sps.binom.pmf(m, items, discordant)
    m, weight = m[weight > _TIE], weight[weight > _TIE]
    enough = sps.binom.isf(level, m, 0.5) + 1  # the smallest count of losses with P(count or more) <= level
    seen = np.ceil((m + min_drop * items) / 2 - _TIE * items)
    lost = (discordant + drop) / (2 * discordant)
    return float((weight * sps.binom.sf(np.maximum(enough, seen) - 1, m, lost)).sum())


def smallest_drop(n: float, *, churn: float, level: float, min_drop: float, wanted: float = 0.8) -> float | None:
    """The smallest true drop, in steps of a tenth of a point, that is found with probability `wanted`; None: none."""
    steps = np.arange(1, 1000) / 1000
    steps = steps[steps <= 1 - churn]
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        if power(n, float(steps[middle]), churn=churn, level=level, min_drop=min_drop) >= wanted:
            high = middle
        else:
            low = middle + 1
    return float(steps[low]) if low < len(steps) else None


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in their order.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
