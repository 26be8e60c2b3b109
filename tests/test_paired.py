"""Paired tests and bounds against enumeration, exact sums, independent libraries and simulation."""

from __future__ import annotations

from itertools import product
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from safemed_eval import paired
from safemed_eval.stats import Floats


@given(sums=st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_sign_flips_are_all_counted(sums: list[int]) -> None:
    values = np.array(sums, dtype=float)
    patterns = np.array(list(product((-1, 1), repeat=len(sums)))) @ np.abs(values)
    drop, change = paired.sign_flip_test(values)
    assert drop == pytest.approx((patterns >= values.sum()).mean())
    assert change == pytest.approx((np.abs(patterns) >= abs(values.sum())).mean())
    sampled = paired.sign_flip_test_sampled(values / 3, seed=0)
    assert sampled == pytest.approx((drop, change), abs=0.03)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (12, 3), (3, 12), (40, 40), (700, 400)])
def test_of_single_items_it_is_mcnemars_exact_test(lost: int, won: int) -> None:
    sums = np.array([1.0] * lost + [-1.0] * won + [0.0] * 50)
    drop, change = paired.sign_flip_test(sums)
    assert change == pytest.approx(mcnemar([[50, lost], [won, 0]], exact=True).pvalue)
    assert drop == pytest.approx(sps.binom.sf(lost - 1, lost + won, 0.5))


def test_sampled_p_values_are_never_zero_and_nothing_is_no_evidence() -> None:
    assert paired.sign_flip_test_sampled(np.full(60, 0.1), seed=0) == (1 / (1 + paired.DRAWS), 1 / (1 + paired.DRAWS))
    assert paired.sign_flip_test_sampled(np.zeros(5), seed=0) == (1.0, 1.0)
    with pytest.raises(ValueError, match="whole"):
        paired.sign_flip_test(np.array([0.5]))


@given(p=st.lists(st.floats(0, 1), max_size=12))
def test_holm_agrees_with_statsmodels(p: list[float]) -> None:
    with patch("gc.collect"):  # which statsmodels does at every call
        assert paired.holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]) if p else [])


# ------------------------------------------------------------------------------------------------ bounds of the drop


def differences(lost: int, won: int, n: int) -> Floats:
    return np.array([1.0] * lost + [-1.0] * won + [0.0] * (n - lost - won))


@pytest.mark.parametrize(("lost", "won", "n"), [(0, 1, 44), (9, 4, 80), (25, 0, 90), (3, 30, 400), (9, 0, 10)])
def test_each_bound_counts_one_further_item_that_went_the_other_way(lost: int, won: int, n: int) -> None:
    """The t interval of the mean of n + 1 values, and its first correction for skewness, by SciPy."""
    low, high = paired.drop_interval(differences(lost, won, n), np.arange(n), level=0.025)
    for bound, side in ((high, 1.0), (-low, -1.0)):
        values = np.append(side * differences(lost, won, n), 1.0)
        t = sps.t.ppf(0.975, n)
        moments = sps.moment(values, [2, 3])
        usual = values.mean() + t * sps.sem(values) + (t**2 - 1) / 6 * moments[1] / moments[0] / (n + 1)
        least = side * (lost - won) / n + 1 - 0.025 ** (1 / n)
        assert bound == pytest.approx(min(1.0, max(usual, least)))


def test_the_bounds_mirror_each_other() -> None:
    low, high = paired.drop_interval(differences(9, 4, 80), np.arange(80), level=0.05)
    mirrored = paired.drop_interval(differences(4, 9, 80), np.arange(80), level=0.05)
    assert mirrored == pytest.approx((-high, -low)) and low < 5 / 80 < high


@pytest.mark.parametrize("level", [0.05, 0.01])
def test_without_any_change_the_bound_is_that_of_clopper_and_pearson(level: float) -> None:
    assert paired.drop_interval(np.zeros(200), np.arange(200), level=level)[1] == pytest.approx(1 - level ** (1 / 200))
    four = paired.drop_interval(np.zeros(800), np.repeat(np.arange(200), 4), level=level)
    assert four == pytest.approx((level ** (1 / 200) - 1, 1 - level ** (1 / 200)))


@pytest.mark.parametrize("n", [20, 53, 60, 87, 200])
@pytest.mark.parametrize("drop", [0.02, 0.05, 0.1])
def test_a_true_drop_is_rarely_called_smaller(n: int, drop: float) -> None:
    """Exact sum over all outcomes: at a nominal 5 % the upper bound misses the true drop in at most 5.5 %."""
    most = min(n, 45)
    lost, won = (grid.ravel() for grid in np.meshgrid(np.arange(most + 1), np.arange(most + 1)))
    kept = lost + won <= most
    upper = {
        (a, b): paired.drop_interval(differences(a, b, n), np.arange(n), level=0.05)[1]
        for a, b in zip(lost[kept].tolist(), won[kept].tolist(), strict=True)
        if (a - b) / n < drop
    }
    counts = np.array([(a, b, n - a - b) for a, b in upper])
    missed = np.array(list(upper.values())) < drop
    for churn in (0.0, 0.01, 0.04):
        chance = sps.multinomial.pmf(counts, n, [drop + churn / 2, churn / 2, 1 - drop - churn])
        assert chance[missed].sum() <= 0.055


def test_bounds_know_of_clusters() -> None:
    """Four equal items of a patient say what one says, and of radii as of shares."""
    once = paired.drop_interval(differences(12, 4, 100), np.arange(100), level=0.05)
    four = paired.drop_interval(np.repeat(differences(12, 4, 100), 4), np.repeat(np.arange(100), 4), level=0.05)
    assert four == pytest.approx(once)


def test_bounds_exist_where_everything_is_lost_or_won() -> None:
    rng = np.random.default_rng(0)
    for n in range(1, 120):
        for codes in (np.arange(n), rng.integers(0, 30, n)):
            for sign in (1.0, 0.3, 0.0, -1.0):
                low, high = paired.drop_interval(np.full(n, sign), codes, level=0.05)
                assert -1 <= low <= sign <= high <= 1


def test_a_single_change_does_not_make_clusters_independent() -> None:
    """Twelve patients of twenty questions: with one answer lost the bound must not fall below that of none."""
    codes, one = np.repeat(np.arange(12), 20), np.zeros(240)
    none = paired.drop_interval(one, codes, level=0.05)[1]
    one[0] = 1.0
    assert paired.drop_interval(one, codes, level=0.05)[1] > 0.9 * none > 0.1


@pytest.mark.parametrize(("clusters", "size"), [(12, 20), (25, 4), (100, 4)])
def test_whole_patients_that_drop_are_rarely_overlooked(clusters: int, size: int) -> None:
    """5 % of patients lose all answers, 2 % of answers change besides; 'below 5 points' in 8 % of runs at most."""
    rng, overlooked = np.random.default_rng(0), 0
    for _ in range(400):
        lost = np.repeat(rng.random(clusters) < 0.05, size)
        churn = rng.choice([-1.0, 0.0, 1.0], p=[0.01, 0.98, 0.01], size=clusters * size)
        upper = paired.drop_interval(np.where(lost, 1.0, churn), np.repeat(np.arange(clusters), size), level=0.05)[1]
        overlooked += upper < 0.05
    assert overlooked / 400 <= 0.08


def test_how_many_items_would_do_without_a_loss() -> None:
    """59 independent ones at 5 points: 0.95 ** 59 < 0.05 < 0.95 ** 58. Of patients of five, as many patients."""

    def needed(clusters: paired.Codes, level: float = 0.05, margin: float = 0.05) -> int | None:
        return paired.items_needed(np.zeros(len(clusters)), clusters, level=level, margin=margin)

    assert [needed(np.arange(n)) for n in (1, 20, 58, 59, 300)] == [59, 59, 59, None, None]
    assert needed(np.repeat(np.arange(20), 5)) == 59 * 5
    assert needed(np.arange(20), margin=0.02) == 149
    assert needed(np.arange(20), margin=0.0) is None
    mixed = needed(np.concatenate([np.repeat(np.arange(8), 20), np.arange(8, 400)]))
    assert mixed is not None and 600 < mixed < 2000


def test_how_many_items_would_decide_at_the_rate_that_was_seen() -> None:
    """Of 100 items 4 are lost and 2 won. So many like these have the bound below 5 points, and one fewer has not."""
    seen = np.array([1.0] * 4 + [-1.0] * 2 + [0.0] * 94)
    rules = {"level": 0.05, "margin": 0.05}
    assert paired.drop_interval(seen, np.arange(100), level=0.05)[1] > 0.05
    count = paired.items_needed(seen, np.arange(100), **rules)
    assert count is not None and 180 < count < 400, "1.64 * sqrt(0.06 / n) = 0.03 at n = 180, without any caution"
    assert paired.items_needed(np.repeat(seen, 5), np.repeat(np.arange(100), 5), **rules) == 5 * count
    assert paired.items_needed(np.array([1.0] * 5 + [0.0] * 95), np.arange(100), **rules) is None, (
        "it drops by 5 points"
    )


@pytest.mark.parametrize("clusters", [20, 50, 53, 100])
def test_losses_that_nobody_happened_to_see_are_not_excluded(clusters: int) -> None:
    """One patient in twenty loses its whole radius, the others jitter: a true drop of 5 points."""
    rng, overlooked = np.random.default_rng(0), 0
    for _ in range(400):
        values = np.where(rng.random(clusters) < 0.05, 1.0, rng.uniform(-0.01, 0.01, clusters))
        overlooked += paired.drop_interval(values, np.arange(clusters), level=0.05)[1] < 0.05
    assert overlooked / 400 <= 0.07


@pytest.mark.parametrize("clusters", [40, 200])
def test_bounds_cover_skewed_differences(clusters: int) -> None:
    """Radii: most items agree, some lose all, a few gain a bit; patients share their fate. Nominal 5 % on each side."""
    truth, missed, runs = 0.10 * 0.5 - 0.05 * 0.2, np.zeros(2), 400
    rng = np.random.default_rng(0)
    for _ in range(runs):
        fate = rng.random(clusters)
        values = np.where(fate < 0.10, rng.uniform(0, 1, clusters), np.where(fate > 0.95, -0.2, 0.0))
        low, high = paired.drop_interval(np.repeat(values, 3), np.repeat(np.arange(clusters), 3), level=0.05)
        missed += (low > truth, high < truth)
    assert (missed / runs <= 0.07).all(), missed / runs


# --------------------------------------------------------------------------------------------------------------- power


@settings(max_examples=25)
@given(
    n=st.integers(20, 300),
    drop=st.floats(0, 0.3),
    churn=st.floats(0, 0.3),
    level=st.sampled_from([0.05, 0.0125]),
    min_drop=st.sampled_from([0.0, 0.02]),
)
def test_power_is_the_share_of_simulated_runs_that_are_caught(
    n: int, drop: float, churn: float, level: float, min_drop: float
) -> None:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n, [churn / 2 + drop, churn / 2, 1 - churn - drop], size=4000)
    lost, won = counts[:, 0], counts[:, 1]
    p = sps.binom.sf(lost - 1, lost + won, 0.5)
    caught = ((p <= level) & (lost - won >= min_drop * n - 1e-9)).mean()
    assert paired.power(n, drop, churn=churn, level=level, min_drop=min_drop) == pytest.approx(caught, abs=0.035)


def test_the_smallest_drop_is_the_first_that_is_found_often_enough() -> None:
    settings = {"churn": 0.04, "level": 0.0125, "min_drop": 0.02}
    drop = paired.smallest_drop(400, **settings)
    assert drop is not None
    assert paired.power(400, drop, **settings) >= 0.8 > paired.power(400, drop - 0.001, **settings)
    assert paired.smallest_drop(3, **settings) is None
    assert paired.power(0.5, 0.5, churn=0.0, level=0.05) == 0.0
    assert paired.power(20, 0.0, churn=1e-308, level=0.05) == 0.0


@pytest.mark.parametrize("bound_level", [0.05, 0.01])
def test_a_drop_that_is_found_is_surely_above_zero(bound_level: float) -> None:
    """For 24 items, all numbers lost and won, with True if the lower bound of the drop is above 0."""
    n, churn, drop = 24, 0.1, 0.2
    caught = 0.0
    for lost in range(n + 1):
        for won in range(n + 1 - lost):
            p = sps.binomtest(lost, lost + won, alternative="greater").pvalue if lost + won else 1.0
            low, _ = paired.drop_interval(differences(lost, won, n), np.arange(n), level=bound_level)
            if p <= 0.2 and low > 0:
                caught += sps.multinomial.pmf([lost, won, n - lost - won], n, [churn / 2 + drop, churn / 2, 0.7])
    settings = {"churn": churn, "level": 0.2}
    assert paired.power(n, drop, **settings, bound_level=bound_level) == pytest.approx(caught, abs=1e-9)
    assert paired.power(n, drop, **settings) > caught + 0.01


@pytest.mark.parametrize(("churn", "drop", "level", "min_drop"), [(0.1, 0.2, 0.05, 0.0), (0.1, 0.2, 0.05, 0.3)])
def test_power_is_the_sum_over_all_outcomes(churn: float, drop: float, level: float, min_drop: float) -> None:
    """For 24 items, all numbers lost and won, with McNemar's p and True if the drop is large enough."""
    n, chance_lost, chance_won = 24, churn / 2 + drop, churn / 2
    found = 0.0
    for lost in range(n + 1):
        for won in range(n + 1 - lost):
            p = sps.binomtest(lost, lost + won, alternative="greater").pvalue if lost + won else 1.0
            if p <= level and lost - won >= min_drop * n - 1e-9:
                found += sps.multinomial.pmf(
                    [lost, won, n - lost - won], n, [chance_lost, chance_won, 1 - chance_lost - chance_won]
                )
    assert paired.power(n, drop, churn=churn, level=level, min_drop=min_drop) == pytest.approx(found, abs=1e-9)
