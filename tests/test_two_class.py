"""The two-class evidence: factors against brute force, the null's geometry, and what the bound on each means."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as sps

from safemed_eval.smoothing.two_class import Apart, Null, Shifted, Votes, divergence, factors, nearest, predicted

P0 = [0.5, *sps.norm.cdf([0.25, 0.5, 1.0, 2.0])]
KINDS = [Shifted, Apart]


def column(p0: float) -> np.ndarray:
    return np.array([[p0]])


def bound(null: Null, rival: np.ndarray) -> np.ndarray:
    """g(p_b), from its definition in words and not from the curve."""
    p0 = null.p0.item()  # type: ignore[attr-defined]
    if isinstance(null, Shifted):
        return sps.norm.cdf(2 * sps.norm.ppf(p0) + sps.norm.ppf(rival))
    return rival + 2 * (p0 - 0.5)


def frontier(null: Null, slack: float = 0.0, size: int = 4001) -> np.ndarray:
    """Distributions with p_A = g(p_b + slack) + slack, and those with less p_A where the rest allows: (n, 3)."""
    rival = np.unique(np.concatenate([np.linspace(0, 1, size), np.logspace(-12, -1, 400)]))
    most = np.minimum(bound(null, np.minimum(rival + slack, 1.0)) + slack, 1 - rival)
    most = np.where(np.isnan(most), 0, most)
    rows = [np.stack([share * most, rival, 1 - share * most - rival], 1) for share in (1.0, 0.9, 0.5, 0.0)]
    return np.concatenate(rows)


def guesses(seed: int, size: int = 300) -> Votes:
    """Predictions of every kind: spread, lopsided, and at the corners. Each (1, n)."""
    rng = np.random.default_rng(seed)
    whole = np.concatenate([rng.dirichlet([a, b, c], size) for a, b, c in ((1, 1, 1), (5, 0.3, 0.3), (0.2, 0.2, 0.2))])
    corner = np.array([[1 - 2e-7, 1e-7, 1e-7], [0.5, 0.5 - 1e-9, 1e-9], [1e-9, 1 - 2e-9, 1e-9], [1e-9, 1e-9, 1 - 2e-9]])
    whole = np.clip(np.concatenate([whole, corner]), 1e-9, None)
    return Votes(*(whole / whole.sum(1, keepdims=True)).T[:, None])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p0", P0)
@pytest.mark.parametrize("slack", [0.0, 0.01])
def test_no_distribution_of_the_null_lets_the_evidence_grow(kind: type[Null], p0: float, slack: float) -> None:
    """The mean factor is at most 1 for all p_A <= g(p_b), also under predictions that are badly wrong."""
    null = kind(column(p0))  # type: ignore[call-arg]
    own = factors(null, guesses(1), slack)
    e = np.concatenate(own)  # (3, n)
    assert (e > 0).all() and np.isfinite(e).all()
    assert (frontier(null, slack) @ e).max() <= 1 + 1e-12
    assert (e[0] >= 1).all() and (e[1] <= 1).all(), "a vote for gold never lowers it, one for the rival never raises it"
    assert (e[2] <= 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_null_that_is_too_small_is_caught(kind: type[Null]) -> None:
    """The same factors against p_A <= g(p_b) of a radius one tenth larger have a mean above 1 somewhere."""
    small, large = kind(column(0.75)), kind(column(0.78))  # type: ignore[call-arg]
    assert (frontier(large) @ np.concatenate(factors(small, guesses(1)))).max() > 1.01
    assert (frontier(small, 0.01) @ np.concatenate(factors(small, guesses(1)))).max() > 1.001, "slack is counted"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p0", P0)
def test_a_prediction_in_the_null_bets_nothing(kind: type[Null], p0: float) -> None:
    null, q = kind(column(p0)), guesses(2)  # type: ignore[call-arg]
    within = q.gold <= bound(null, q.rival) - 1e-9
    e = factors(null, q)
    assert within.any() and all((part[within] == 1).all() for part in e)
    outside = q.gold > bound(null, q.rival) + 1e-6
    assert outside.any() and (e.gold[outside] > 1).all(), "and any other one does"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p0", P0)
def test_the_factors_are_those_of_the_reverse_information_projection(kind: type[Null], p0: float) -> None:
    """The growth under q is the smallest KL(q || p) over the null, found on a fine grid of its boundary."""
    null, q = kind(column(p0)), guesses(3, 60)  # type: ignore[call-arg]
    growth = sum(part * np.log(factor) for part, factor in zip(q, factors(null, q), strict=True))[0]
    within = q.gold[0] <= bound(null, q.rival[0])
    near = np.logspace(-12, 0, 20_000)
    rival = (1 - p0) * np.concatenate([near, 1 - near[:-1], np.linspace(0.001, 0.999, 20_000)])
    gold = bound(null, rival)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log([gold, rival, 1 - gold - rival])
    whole = np.concatenate(q)
    least = (whole * np.log(whole)).sum(0) - (whole.T @ np.where(np.isfinite(logs), logs, -1e9)).max(1)
    assert (growth[within] == 0).all() and within.any() and not within.all()
    assert growth[~within] == pytest.approx(least[~within], rel=2e-3, abs=1e-5)
    assert (growth[~within] <= least[~within] + 1e-9).all(), "nothing grows faster"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p0", P0)
def test_the_bound_is_concave_and_implies_the_one_class_null(kind: type[Null], p0: float) -> None:
    null = kind(column(p0))  # type: ignore[call-arg]
    rival = np.linspace(0, 1, 2001)
    g = bound(null, rival)
    assert (np.diff(g, 2) <= 1e-12).all() and (np.diff(g) >= -1e-15).all()
    possible = np.minimum(g, 1 - rival)
    assert possible.max() == pytest.approx(p0, abs=1e-3) and possible.max() <= p0 + 1e-12
    z = null.rival_at(np.array([[0.01, 0.1, 0.3]]))
    point = null.curve(z)
    assert point.rival == pytest.approx(np.array([[0.01, 0.1, 0.3]]))
    assert point.gold == pytest.approx(bound(null, point.rival))
    assert null.gold_at(point.gold) == pytest.approx(z)
    steps = [(after - before) / 2e-6 for before, after in zip(null.curve(z - 1e-6)[:2], null.curve(z + 1e-6)[:2])]
    assert np.array(steps) == pytest.approx(np.array(point[2:]), rel=1e-5)


def test_the_nearest_point_has_the_divergence_that_the_factors_grow_by() -> None:
    null, q = Shifted(column(P0[3])), guesses(4)
    growth = sum(part * np.log(factor) for part, factor in zip(q, factors(null, q), strict=True))
    outside = growth > 1e-4
    gap = (divergence(q, null.curve(nearest(null, q))) - growth)[outside]
    assert outside.any() and gap.min() > -1e-9 and (gap / growth[outside]).max() < 0.02


def test_a_prediction_uses_earlier_votes_only_and_sums_to_one() -> None:
    gold, rival = np.array([0, 3, 7]), np.array([0, 1, 0])
    q = predicted(gold, rival, np.array([0, 5, 7]))
    assert sum(q) == pytest.approx(np.ones(3)) and q.gold == pytest.approx(np.array([0.5, 3.5 / 6, 7.5 / 8]))
    assert q.rival == pytest.approx(np.array([0.25, 1.25 / 6, 0.25 / 8]))
