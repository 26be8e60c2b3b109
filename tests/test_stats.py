"""Bounds against exact sums, independent libraries and published numbers."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as sps
from statsmodels.stats.proportion import proportion_confint

from safemed_eval import rounding, stats


@pytest.mark.parametrize("n", [1, 7, 100, 1000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_clopper_pearson_agrees_with_scipy_and_statsmodels(n: int, alpha: float) -> None:
    for k in {0, 1, n // 2, n - 1, n}:
        scipy_low = sps.binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low
        scipy_high = sps.binomtest(k, n, alternative="less").proportion_ci(1 - alpha, "exact").high
        low, high = proportion_confint(k, n, 2 * alpha, "beta")
        assert stats.clopper_pearson_lower(k, n, alpha) == pytest.approx(scipy_low, abs=1e-9)
        assert stats.clopper_pearson_upper(k, n, alpha) == pytest.approx(scipy_high, abs=1e-9)
        assert stats.clopper_pearson_lower(k, n, alpha) == pytest.approx(low, abs=1e-12)
        assert stats.clopper_pearson_upper(k, n, alpha) == pytest.approx(high, abs=1e-12)


@pytest.mark.parametrize("n", [10, 100])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_lower_bound_is_wrong_at_most_alpha_of_the_time(n: int, alpha: float) -> None:
    """Exact coverage: the binomial mass of all k whose bound lies above the truth, for many truths."""
    bounds = np.array([stats.clopper_pearson_lower(k, n, alpha) for k in range(n + 1)])
    for p in np.linspace(0.001, 0.999, 333):
        wrong = sps.binom.pmf(np.arange(n + 1), n, p)[bounds > p].sum()
        assert wrong <= alpha * (1 + 1e-9)


@given(n=st.integers(1, 3000), data=st.data(), alpha=st.floats(1e-6, 0.5))
def test_bounds_are_monotone(n: int, data: st.DataObject, alpha: float) -> None:
    """More successes, a laxer alpha, or more trials with one failure less: never a lower bound."""
    k = data.draw(st.integers(0, n))
    low, high = stats.clopper_pearson_lower(k, n, alpha), stats.clopper_pearson_upper(k, n, alpha)
    assert 0 <= low <= k / n <= high <= 1
    assert stats.clopper_pearson_lower(k, n, alpha / 2) <= low
    assert stats.clopper_pearson_upper(k, n, alpha / 2) >= high
    assert stats.clopper_pearson_lower(k + 1, n + 1, alpha) >= low >= stats.clopper_pearson_lower(k, n + 1, alpha)
    radius = stats.certified_radius(low, 0.25)
    ceiling = stats.radius_ceiling(0.25, n, alpha)
    assert radius is None or (ceiling is not None and 0 < radius <= ceiling)


@given(x=st.floats(-1e6, 1e6), digits=st.integers(0, 6))
def test_rounding_goes_one_way_and_not_far(x: float, digits: int) -> None:
    low, high = rounding.floor_to(x, digits), rounding.ceil_to(x, digits)
    assert low <= x <= high and high - low <= 10**-digits + 1e-9
    assert rounding.floor_to(low, digits) == low and rounding.ceil_to(high, digits) == high


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=60), st.randoms())
def test_clustered_intervals_hold_the_estimate_in_any_order(rows: list[tuple[bool, int]], shuffler: Random) -> None:
    found = stats.clustered_proportion(*zip(*rows, strict=True))
    assert found.lower <= found.estimate <= found.upper
    independent = stats.clustered_proportion([good for good, _ in rows], range(len(rows)))
    assert found.lower <= independent.lower + 1e-12 and found.upper >= independent.upper - 1e-12, "never narrower"
    shuffler.shuffle(rows)
    again = stats.clustered_proportion(*zip(*rows, strict=True))
    assert (again.lower, again.upper) == pytest.approx((found.lower, found.upper))


def test_bounds_refuse_nonsense() -> None:
    for k, n, alpha in [(0, 0, 0.05), (3, 2, 0.05), (-1, 2, 0.05), (1, 2, 0.0), (1, 2, 1.0), (math.nan, 2, 0.05)]:
        with pytest.raises(ValueError):
            stats.clopper_pearson_lower(k, n, alpha)


def test_radius_and_ceiling_match_cohen() -> None:
    """n unanimous votes: p_lower = alpha ** (1 / n). 0.6157 at sigma 0.25 is the ceiling of n = 1,000."""
    assert stats.radius_ceiling(0.25, 1000, 0.001) == pytest.approx(0.25 * sps.norm.ppf(0.001 ** (1 / 1000)))
    assert stats.radius_ceiling(0.25, 1000, 0.001) == pytest.approx(0.6158, abs=1e-3)
    # Cohen et al. 2019, appendix: 99,999 of 100,000 would be certified at almost 4 sigma.
    assert stats.radius_ceiling(1.0, 100_000, 0.001) == pytest.approx(3.8115, abs=1e-3)
    assert stats.certified_radius(0.5, 0.25) is None
    assert stats.certified_radius(0.3, 0.25) is None
    assert stats.certified_radius(sps.norm.cdf(2.0), 0.25) == pytest.approx(0.5)


def test_false_certificates_at_most_is_a_binomial_quantile() -> None:
    assert stats.false_certificates_at_most(1000, 0.001) == 3
    assert sps.binom.cdf(3, 1000, 0.001) >= 0.95 > sps.binom.cdf(2, 1000, 0.001)


def test_independent_items_get_the_plain_interval() -> None:
    share = stats.clustered_proportion([True] * 30 + [False] * 10, range(40))
    assert (share.count, share.n, share.clusters, share.estimate) == (30, 40, 40, 0.75)
    assert (share.lower, share.upper) == pytest.approx(proportion_confint(30, 40, 0.05, "beta"))


def test_identical_items_of_a_cluster_count_once() -> None:
    """Four copies of each of 25 outcomes say as much as the 25, but for the degrees of freedom."""
    outcomes = [i % 5 != 0 for i in range(25)]
    once = stats.clustered_proportion(outcomes, range(25))
    four = stats.clustered_proportion([o for o in outcomes for _ in range(4)], [i for i in range(25) for _ in range(4)])
    assert four.estimate == once.estimate == 0.8
    assert four.lower <= once.lower < once.upper <= four.upper
    assert (four.lower, four.upper) == pytest.approx((once.lower, once.upper), abs=0.03)


def test_unknown_stays_unknown_and_extremes_stay_cautious() -> None:
    none = stats.clustered_proportion([], [])
    assert (none.estimate, none.lower, none.upper) == (None, None, None)
    assert (none.count, none.n, none.clusters, none.few) == (0, 0, 0, False)
    all_right = stats.clustered_proportion([True] * 40, [i // 4 for i in range(40)])
    assert all_right.lower == pytest.approx(proportion_confint(10, 10, 0.05, "beta")[0])
    one_patient = stats.clustered_proportion([True, False] * 20, ["p"] * 40)
    assert one_patient.upper - one_patient.lower > 0.9


def test_interval_covers_under_clustering() -> None:
    """100 images with four questions each and strongly dependent answers: 95 % intervals must hold about that often."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(100), 4)
    covered = naive = 0
    for _ in range(400):
        image = rng.beta(1.4, 0.6, 100)
        outcomes = rng.random(400) < np.repeat(image, 4)
        share = stats.clustered_proportion(outcomes.tolist(), clusters.tolist())
        covered += share.lower <= 0.7 <= share.upper
        low, high = proportion_confint(outcomes.sum(), 400, 0.05, "beta")
        naive += low <= 0.7 <= high
    assert covered >= 0.93 * 400
    assert naive < 0.9 * 400, "the clusters of this test are too weak to tell the two apart"


def test_rounding_goes_toward_the_weaker_claim() -> None:
    assert rounding.floor_to(0.99951, 3) == 0.999
    assert rounding.floor_to(0.3, 1) == 0.3
    assert rounding.floor_to(58.3, 1) == 58.3
    assert rounding.ceil_to(0.99911, 3) == 1.0
    assert rounding.ceil_to(0.5, 1) == 0.5
    with pytest.raises(ValueError):
        rounding.floor_to(math.nan, 2)


# ------------------------------------------------ what a referee's mutants asked for


def test_effective_sample_size_by_hand() -> None:
    """Three clusters: 3 of 4, 1 of 3, 2 of 3; p = 0.6, n = 10. A fourth of 4 items is all wrong below, all right above.

    Below: 6 of 14 are right. Linearised variance: 4 / 3 * sum((right - 6 / 14 * items)^2) / 14^2; under independence
    (6 / 14)(8 / 14) / 13. Effective clusters: 14^2 / (16 + 9 + 9 + 16) = 3.92, one less is 2.92. Above likewise.
    """
    outcomes = [True] * 3 + [False] + [True] + [False] * 2 + [True] * 2 + [False]
    found = stats.clustered_proportion(outcomes, list("aaaabbbccc"))
    sizes = {}
    for further in (0, 4):
        right, items = np.array([3, 1, 2, further]), np.array([4, 3, 3, 4])
        p = right.sum() / 14
        deff = 4 / 3 * ((right - p * items) ** 2).sum() / 14**2 / (p * (1 - p) / 13)
        sizes[further] = 14 / deff * (sps.t.ppf(0.975, 13) / sps.t.ppf(0.975, 2.92)) ** 2
    assert max(sizes.values()) < 10, "the cap plays no part"
    assert found.lower == pytest.approx(stats.clopper_pearson_lower(0.6 * sizes[0], sizes[0], 0.025))
    assert found.upper == pytest.approx(stats.clopper_pearson_upper(0.6 * sizes[4], sizes[4], 0.025))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 2.0), (-3.0, 0.5), (0.1, -1.0)])
def test_an_effective_size_does_not_depend_on_the_unit(scale: float, shift: float) -> None:
    """It is a ratio of variances: differences of -1, 0 and 1, say, are as good as outcomes of 0 and 1."""
    values, codes = np.array([1.0, 1, 0, 1, 0, 0, 1, 1, 0, 1]), np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    for further in (0.0, 1.0):
        size = stats.effective_size(values, codes, further=further)
        assert size < 10, "the cap plays no part"
        moved = stats.effective_size(shift + scale * values, codes, further=shift + scale * further)
        assert moved == pytest.approx(size)


@pytest.mark.parametrize("sizes", [[4, 3, 3], [7], [5] * 20, [20] * 8 + [1] * 392, [30, 9, 2, 1, 1]])
@pytest.mark.parametrize("level", [0.025, 0.05, 0.4])
def test_what_no_cluster_showed_is_bounded_by_the_worst_chances(sizes: list[int], level: float) -> None:
    """The largest share that is lost, cluster by cluster with some chances, of which none is seen at this level."""
    s = np.array(sizes, float)
    share = stats.unseen_share(s, level)
    best = optimize.minimize(
        lambda q: -(s * (1 - np.exp(-q))).sum() / s.sum(),
        np.full(len(s), -math.log(level) / len(s)),
        bounds=[(0, None)] * len(s),
        constraints={"type": "ineq", "fun": lambda q: -math.log(level) - q.sum()},
    )
    if len(s) < 100:
        assert share == pytest.approx(-best.fun, abs=1e-4)
    rng = np.random.default_rng(0)
    for _ in range(50):
        q = rng.dirichlet(np.ones(len(s)) * rng.choice([0.05, 1, 20])) * -math.log(level)
        assert (s * (1 - np.exp(-q))).sum() / s.sum() <= share + 1e-12
    right = stats.clustered_proportion([True] * int(s.sum()), np.repeat(np.arange(len(s)), sizes))
    if max(sizes) > 1 and level == 0.025:
        assert (right.lower, right.upper) == (pytest.approx(1 - share), 1.0)


@pytest.mark.parametrize(
    ("sizes", "p"),
    [([40] * 15 + [1] * 300, 0.97), ([20] * 10 + [1] * 200, 0.97), ([40] * 5 + [1] * 100, 0.85), ([20] * 40, 0.97)],
)
@pytest.mark.parametrize("rho", [0.3, 0.95])
def test_large_clusters_that_agree_are_no_certainty(sizes: list[int], p: float, rho: float) -> None:
    """Beta-binomial; coverage was 41 to 90 % where another large cluster might have been wrong. 400 draws."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    covered = 0
    for _ in range(400):
        chance = np.repeat(rng.beta(p * (1 - rho) / rho, (1 - p) * (1 - rho) / rho, len(sizes)), sizes)
        share = stats.clustered_proportion(rng.random(len(labels)) < chance, labels)
        covered += share.lower <= p <= share.upper
    assert covered >= 0.93 * 400


@pytest.mark.parametrize("sizes", [[40] + [1] * 20, [20, 20] + [1] * 10, [50, 25, 12, 6, 3, 2, 1, 1], [4] * 20])
@pytest.mark.parametrize("rho", [0.1, 0.5])
def test_intervals_cover_with_unequal_clusters(sizes: list[int], rho: float) -> None:
    """Beta-binomial clusters, p = 0.5 and 0.8: a nominal 95 % interval covers in at least 91 % of 300 draws."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(0)
    for p in (0.5, 0.8):
        spread = (1 - rho) / rho
        hits = 0
        for _ in range(300):
            chance = np.repeat(rng.beta(p * spread, (1 - p) * spread, len(sizes)), sizes)
            found = stats.clustered_proportion((rng.random(len(labels)) < chance).tolist(), labels.tolist())
            hits += found.lower <= p <= found.upper
        assert hits >= 0.91 * 300


@given(attempted=st.integers(1, 100_000), alpha=st.sampled_from([0.0001, 0.001, 0.01]))
def test_false_certificates_are_the_smallest_count_that_holds(attempted: int, alpha: float) -> None:
    k = stats.false_certificates_at_most(attempted, alpha)
    assert sps.binom.cdf(k, attempted, alpha) >= 0.95 and (k == 0 or sps.binom.cdf(k - 1, attempted, alpha) < 0.95)


def test_shares_are_shown_as_they_are_and_never_better() -> None:
    """23 of 40 is 57.5 %, though 100 times 0.575 lies below it in binary; 2 of 7 is not 28.6 % when rounded down."""
    assert [rounding.percent_down(share) for share in (23 / 40, 2 / 7, 1.0, 0.0, None)] == [
        *("57.5", "28.5", "100.0", "0.0", "n/a")
    ]
    for of in range(1, 400):
        for k in range(of + 1):
            assert (
                float(rounding.percent_down(k / of))
                <= 100 * k / of + 1e-9
                < float(rounding.percent_down(k / of)) + 0.1 + 2e-9
            )
    assert rounding.interval(0.4439, 0.9741) == "44.3-97.5" and rounding.interval(None, None) == ""
    assert (rounding.radius(0.18452), rounding.radius(None)) == ("0.184", "n/a")


def test_what_is_shown_of_radii_and_shares() -> None:
    assert (rounding.radius_at_least(0.18452), rounding.radius_at_least(None)) == (">=0.184", "n/a")
    assert (rounding.percent(0.57449), rounding.percent(None)) == ("57.4", "n/a")


def test_effectively_fewer_than_ten_clusters_are_few() -> None:
    """Independent ones, too: three items say little, whatever their interval."""
    assert stats.too_few(np.array([0, 0, 1])) and stats.too_few(np.arange(1)) and stats.too_few(np.arange(9))
    assert not stats.too_few(np.arange(10)) and not stats.too_few(np.array([], dtype=np.int64))
    assert stats.clustered_proportion([True] * 3, range(3)).few
    edge = np.repeat(np.arange(10), 2)
    assert not stats.too_few(edge) and stats.too_few(edge[:-1]) and not stats.too_few(np.repeat(np.arange(11), 2))


def test_one_large_cluster_leaves_no_degree_of_freedom() -> None:
    """39 items of one patient, one of another, and 39 wrong ones: 79^2 / 3,043 clusters less one is 1.05."""
    values, codes = np.array([1.0] * 20 + [0.0] * 20), np.array([0] * 39 + [1])
    p = 20 / 79
    between = 3 / 2 * ((20 - 39 * p) ** 2 + p**2 + (39 * p) ** 2) / 79**2
    shrink = sps.t.ppf(0.975, 78) / sps.t.ppf(0.975, 79**2 / (39**2 + 1 + 39**2) - 1)
    expected = 79 * p * (1 - p) / 78 / between * shrink**2
    assert stats.effective_size(values, codes, further=0.0) == pytest.approx(expected) and expected < 0.2
    pair = stats.effective_size(np.array([1.0, 0.0]), np.zeros(2, dtype=int), further=0.0)
    p = 1 / 4
    assert pair == pytest.approx(
        4 * p * (1 - p) / 3 / (2 * 2 * (1 - 2 * p) ** 2 / 16) * (sps.t.ppf(0.975, 3) / sps.t.ppf(0.975, 1)) ** 2
    )


def test_what_is_left_of_a_certificate_at_a_distance() -> None:
    """Phi(ppf(p) - d / sigma): at the radius one half, and never less than that within it."""
    p, sigma = 0.9, 0.5
    radius = stats.certified_radius(p, sigma)
    assert radius is not None
    assert stats.certified_lower(p, radius, sigma, 0.0) == pytest.approx(p)
    assert stats.certified_lower(p, radius, sigma, 0.25) == pytest.approx(sps.norm.cdf(sps.norm.ppf(0.9) - 0.5))
    assert stats.certified_lower(p, radius, sigma, radius * (1 - 1e-15)) >= 0.5
    assert stats.certified_lower(p, radius, sigma, 2 * radius) == pytest.approx(1 - p)


def test_intervals_are_at_95_percent_unless_asked() -> None:
    good = [True] * 30 + [False] * 10
    usual, wide = (stats.clustered_proportion(good, range(40), **how) for how in ({}, {"alpha": 0.01}))
    assert (usual.lower, usual.upper) == pytest.approx(proportion_confint(30, 40, 0.05, "beta"))
    assert (wide.lower, wide.upper) == pytest.approx(proportion_confint(30, 40, 0.01, "beta"))
