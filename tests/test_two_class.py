"""The two-class evidence: factors against brute force, the null's geometry, and what the bound on each means."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as sps

from safemed_eval import stats
from safemed_eval.smoothing import Ladder, Sequential, budget_of, read_draws, two_classes
from safemed_eval.smoothing.evidence import HORIZON, Evidence, log_mixture
from safemed_eval.smoothing.sequential import Draws, Flags, spell
from safemed_eval.smoothing.two_class import Apart, Counts, Null, Shifted, Votes, below, factors, least_gold

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
    before, after = null.curve(z - 1e-6), null.curve(z + 1e-6)
    steps = [(after.gold - before.gold) / 2e-6, (after.rival - before.rival) / 2e-6]
    assert steps[0] / steps[1] == pytest.approx(point.d_gold / point.d_rival, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_likelihood_ratio_of_votes_below_a_curve(kind: type[Null]) -> None:
    """On a fine grid of the curve, and nothing where the votes lie above it."""
    rng = np.random.default_rng(0)
    gold, rival = rng.integers(0, 60, 50), rng.integers(0, 60, 50)
    counts = Counts(gold, rival[None], gold + rival + rng.integers(0, 60, 50))
    found = below(kind(np.array(P0[2])), counts)[0]
    t = np.concatenate([np.logspace(-9, -2, 4000), np.linspace(0.01, 1 - P0[2], 40_000)])[:-1]
    curve = np.stack([bound(kind(np.array(P0[2])), t), t, 1 - t - bound(kind(np.array(P0[2])), t)])
    q = np.stack([part[0] for part in counts.predicted()])
    least = (q * np.log(q)).sum(0) - (q.T @ np.log(np.maximum(curve, 1e-300))).max(1)
    under = q[0] < bound(kind(np.array(P0[2])), q[1])
    assert 10 < under.sum() < 48 and (found[~under] == 0).all()
    assert found[under] == pytest.approx((counts.draws * least)[under], rel=0.02, abs=1e-3)


def test_what_all_rivals_together_leave_for_gold() -> None:
    """The largest p_A at which gold can still be behind: by brute force over the rivals' shares."""
    for kind in KINDS:
        for p0 in P0[1:]:
            null = kind(np.array(p0))
            assert least_gold(null, 1) == pytest.approx(p0, abs=1e-9)
            for rivals in (2, 4):
                p = float(least_gold(null, rivals))
                assert p == pytest.approx(float(bound(null, np.array((1 - p) / rivals))), abs=1e-9) and p < p0
                for share in np.random.default_rng(0).dirichlet([1] * rivals, 200):
                    behind = p - 1e-6 <= bound(null, (1 - p + 1e-6) * share)
                    assert behind.any(), "with less than p some rival is not beaten"


# -------------------------------------------------------------------------------------------------------- the ladder


def spec(radii: str = "0s,0.25s,1s", n: int = 300, alpha: float = 0.05, test: Any = "two classes") -> Sequential:
    """Radii in sigmas."""
    asked = {name: float(name[:-1]) for name in radii.split(",")}
    return Sequential(sigma=1.0, noise="float32", radii=asked, n=n, alpha=alpha, test=test)


def drawn(seed: int, n: int, p: Sequence[float]) -> Draws:
    return np.random.default_rng(seed).choice(len(p), n, p=p)


def projected(q: tuple[float, float, float], c: float) -> tuple[float, float, float]:
    """q / p*, with p* by a root of the derivative along the boundary."""
    gold, rival, rest = q
    if gold <= sps.norm.cdf(c + sps.norm.ppf(rival)):
        return 1.0, 1.0, 1.0

    def derivative(z: float) -> float:
        g, t, dg, dt = sps.norm.cdf(z + c), sps.norm.cdf(z), sps.norm.pdf(z + c), sps.norm.pdf(z)
        return float(gold * dg / g + rival * dt / t - rest * (dg + dt) / (1 - g - t))

    z = optimize.brentq(derivative, sps.norm.ppf(rival), -c / 2 - 1e-12, xtol=1e-14)
    g, t = sps.norm.cdf(z + c), sps.norm.cdf(z)
    return gold / g, rival / t, rest / (1 - g - t)


def plain_evidence(draws: Draws, asked: Sequential, gold: int, classes: int) -> dict[str, float]:
    """The largest ln e of each radius, vote by vote, from its definition: the least over the rivals."""
    found = {}
    for name, radius in asked.ladder.items():
        one = Evidence(float(sps.norm.cdf(radius)), asked.n, asked.alpha)
        best = []
        for rival in set(range(classes)) - {gold}:
            log_two, most, a, b = 0.0, 0.0, 0, 0
            for t, vote in enumerate(draws.tolist()):
                q = (a + 0.5) / (t + 1), (b + 0.25) / (t + 1), (t - a - b + 0.25) / (t + 1)
                factor = projected(q, 2 * radius)
                log_two += math.log(factor[0] if vote == gold else factor[1] if vote == rival else factor[2])
                a, b = a + (vote == gold), b + (vote == rival)
                counts = np.array([a]), np.array([t + 1])
                whole = math.exp(float(one.log_e(*counts)[0]))
                mixture = math.exp(float(log_mixture(*counts, one.p0)[0]))
                horizon = whole - (1 - HORIZON) * mixture
                most = max(most, math.log(horizon + (1 - HORIZON) * (mixture + math.exp(log_two)) / 2))
            best.append(most)
        found[name] = min(best)
    return found


@pytest.mark.parametrize(
    "p", [(0.1, 0.6, 0.2, 0.1), (0.02, 0.93, 0.03, 0.02), (0.0, 1.0, 0.0, 0.0), (0.4, 0.3, 0.3, 0)]
)
def test_the_evidence_is_the_plain_loop_whatever_the_batch(p: tuple[float, ...]) -> None:
    asked = spec(n=120)
    ladder = Ladder(asked)
    draws = drawn(3, asked.n, p)
    found = [ladder.follow(np.split(draws, range(size, asked.n, size)), 1, 4) for size in (1, 7, 64, asked.n)]
    assert found[0] == found[1] == found[2] == found[3]
    made = found[0]
    told = plain_evidence(draws[: made.stopped_at], asked, 1, 4)
    assert made.max_log_e == pytest.approx(told, rel=2e-3, abs=2e-3)
    level = next((i for i, e in enumerate(told.values()) if e < -math.log(asked.alpha)), 3)
    assert list(made.certified.values()) == [i < level for i in range(3)]
    assert made.draws == "".join("ABC-"[vote] for vote in draws[: made.stopped_at])
    assert made.successes == (draws[: made.stopped_at] == 1).sum()


@pytest.mark.parametrize("p", [0.3, 0.6, 0.85, 0.97, 1.0])
def test_with_one_rival_in_all_it_is_the_one_class_test(p: float) -> None:
    for seed in range(3):
        draws = drawn(seed, 400, (1 - p, p))
        two, one = (Ladder(spec(n=400, test=test)).follow([draws], 1, 2) for test in ("two classes", None))
        assert two == one


OLD = [  # p, stopped_at, stopped, radius, max_log_e: of the version before there were two classes
    (0.3, 53, "futile", None, (0.4125244554163631, 0.2147795639887964, 0.10187016782234298, 0.015817355898152752)),
    (0.62, 459, "futile", 0.0, (7.041708586975192, 0.2147795639887964, 0.10187016782234298, 0.015817355898152752)),
    (0.75, 768, "futile", 0.0, (87.32308641748601, 2.444165405303393, 0.42326972032996096, 0.06347229606588867)),
    (0.9, 481, "futile", 0.25, (181.05401247359086, 61.71478894316418, 6.919663693530802, 0.2897358439019027)),
    (0.97, 158, "futile", 0.25, (84.31297645710461, 38.07731351881075, 12.456776775443679, 0.047553715677050024)),
    (1.0, 361, "certified", 0.5, (247.1144471078797, 130.3658748262844, 59.903244410303984, 6.9098116016542495)),
]


@pytest.mark.parametrize(("p", "stopped_at", "stopped", "radius", "max_log_e"), OLD)
def test_old_runs_are_read_as_they_were_made(
    p: float, stopped_at: int, stopped: str, radius: float | None, max_log_e: tuple[float, ...]
) -> None:
    old = {"sigma": 0.25, "radii": {"0": 0.0, "0.5s": 0.125, "1s": 0.25, "2s": 0.5}, "n": 800, "alpha": 0.001}
    budget = budget_of({"sampling": "sequential", "smoothing": old})
    assert isinstance(budget, Sequential) and budget.test is None and not two_classes(budget)
    hits = np.random.default_rng(int(p * 100)).random(800) < p
    found = Ladder(budget).follow([np.where(hits, 0, 4)], 0, 5)
    assert (found.stopped_at, found.stopped, found.radius) == (stopped_at, stopped, radius)
    assert tuple(found.max_log_e.values()) == pytest.approx(max_log_e, rel=1e-12)


def test_letters_of_draws_come_back() -> None:
    draws = np.array([0, 2, 3, 1, 0])
    assert spell(draws, 4) == "AC-BA" and (read_draws("AC-BA", 5, 4) == draws).all()
    for text, length in (("AC-BA", 4), ("AD-BA", 5), ("ac-ba", 5), ("", 1), ("A?", 2)):
        with pytest.raises(ValueError, match="not"):
            read_draws(text, length, 4)
    assert spell(np.array([25, 26]), 27) == "Z-"


@pytest.mark.parametrize("p", [(0.55, 0.2, 0.15, 0.1), (0.9, 0.05, 0.03, 0.02)])
def test_a_smaller_alpha_certifies_as_much_or_less(p: tuple[float, ...]) -> None:
    radii = "0s,0.25s,0.5s,1s"
    made = Ladder(spec(radii, 1000, 0.001)).follow([drawn(0, 1000, p)], 0, 5)
    assert Ladder(spec(radii, 1000, 0.001)).read_again(made, 0, 5) == made
    again = [Ladder(spec(radii, 1000, alpha)).read_again(made, 0, 5) for alpha in (0.3, 0.001, 1e-5, 1e-12, 1e-200)]
    height = [sum(one.certified.values()) for one in again]
    assert height == sorted(height, reverse=True) and height[0] > height[-1] == 0
    below = Ladder(spec("0s,1s", 1000)).read_again(replace(made, max_log_e={"0s": 1.0, "1s": 99.0}), 0, 5)
    assert below.radius is None, "each radius with all smaller ones"


def test_p_lower_is_what_the_radius_implies() -> None:
    """Gold has less than the one-class p0 = 0.599 here, and is rightly certified at 0.25 sigma."""
    made = Ladder(spec("0.25s", 2048, 0.001)).follow([drawn(0, 2048, (0.55, 0.2, 0.15, 0.1))], 0, 5)
    assert made.radius == 0.25 and made.p_lower is not None and 0.25 < made.p_lower < 0.4
    assert made.p_lower == pytest.approx(float(sps.norm.cdf(0.5 + sps.norm.ppf((1 - made.p_lower) / 4))), abs=1e-6)


# -------------------------------------------------------------------------------------------------------- error rates


@pytest.mark.parametrize("alpha", [0.3, 0.05])
@pytest.mark.parametrize(("p0", "slack"), [(0.5, 0.0), (0.6, 0.0), (0.6, 0.03), (0.65, 0.0)])
def test_false_rejections_of_one_rival_are_at_most_alpha(p0: float, slack: float, alpha: float) -> None:
    """Exactly: all 3^9 sequences of votes, at distributions on the boundary and below it."""
    n = 9
    draws = np.array(list(itertools.product(range(3), repeat=n)))
    gold, rival = draws == 0, draws == 1
    counts = Counts(gold.cumsum(1) - gold, (rival.cumsum(1) - rival)[None], np.broadcast_to(np.arange(n), draws.shape))
    factor = np.array(factors(Shifted(np.array(p0)), counts.predicted(), slack))[:, 0]
    two = np.log(np.take_along_axis(factor, draws[None], axis=0)[0]).cumsum(1)
    log_e = Evidence(p0 + slack, n, alpha).log_e(gold.cumsum(1), np.broadcast_to(np.arange(1, n + 1), draws.shape), two)
    rejected = (log_e >= -math.log(alpha)).any(1)
    assert rejected.any() and not rejected.all()
    number = np.stack([(draws == vote).sum(1) for vote in range(3)], 1)
    rates = []
    for t in np.concatenate([[0, 1e-6, 1e-3], np.linspace(0.01, 1, 60)]):
        for share in (1.0, 0.95, 0.5):
            a = share * min(float(bound(Shifted(np.array(p0)), np.array(min(t + slack, 1.0)))) + slack, 1 - t)
            with np.errstate(divide="ignore", invalid="ignore"):
                mass = np.prod(np.array([a, t, max(0.0, 1 - a - t)]) ** number, axis=1)
            assert mass.sum() == pytest.approx(1)
            rates.append(float(mass[rejected].sum()))
    assert max(rates) <= alpha
    assert max(rates) > alpha / 10, "a test that never rejects would be safe, too"


def certified(seed: int, p: Sequence[float], p0: float, n: int, alpha: float, runs: int) -> Flags:
    """Whether gold, class 0, is certified by n draws of each run without any futility: many runs at once."""
    draws = np.random.default_rng(seed).choice(len(p), (runs, n), p=p).astype(np.int8)
    gold, ts = draws == 0, np.broadcast_to(np.arange(1, n + 1), (runs, n))
    one, whole = Evidence(p0, n, alpha), np.ones(runs, dtype=bool)
    for other in range(1, len(p)):
        rival = draws == other
        counts = Counts(gold.cumsum(1) - gold, (rival.cumsum(1) - rival)[None], ts - 1)
        win, lose, rest = (part[0] for part in factors(Shifted(np.array(p0)), counts.predicted()))
        two = np.log(np.where(gold, win, np.where(rival, lose, rest))).cumsum(1)
        whole &= (one.log_e(gold.cumsum(1), ts, two) >= -math.log(alpha)).any(1)
    return whole


def on_the_boundary(p0: float, strongest: float) -> float:
    """The p_A at which gold is just not ahead of a rival with this share of all other votes."""
    null = Shifted(np.array(p0))
    return float(optimize.brentq(lambda a: a - bound(null, np.array(strongest * (1 - a))), 0, 1))


@pytest.mark.parametrize("options", [2, 3, 4, 5])
def test_false_certificates_are_at_most_alpha(options: int) -> None:
    """500 runs at each of several distributions whose true radius is the one asked for; no answer gets votes, too."""
    alpha, n, runs = 0.05, 80, 500
    for seed, p0 in enumerate((0.5, float(sps.norm.cdf(0.5)))):
        for strongest in (1.0, 0.6):  # of 1 - p_A
            most = on_the_boundary(p0, strongest)
            others = (1 - strongest) * (1 - most) / (options - 1)
            p = [most, strongest * (1 - most), *[others] * (options - 1)]
            false = certified(100 * options + seed, p, p0, n, alpha, runs).sum()
            assert false <= stats.false_certificates_at_most(runs, alpha, 0.001), (p0, p)


def test_the_quick_way_to_count_certificates_is_the_ladder() -> None:
    p, p0 = (0.6, 0.25, 0.15), float(sps.norm.cdf(0.25))
    quick = certified(5, p, p0, 200, 0.05, 60)
    draws = np.random.default_rng(5).choice(3, (60, 200), p=p)
    ladder = Ladder(spec("0.25s", 200))
    slow = np.array([ladder.follow([row], 0, 3).radius is not None for row in draws])
    assert 5 < quick.sum() < 55 and (slow <= quick).all() and (slow != quick).sum() <= 3, "futility costs few"


def test_a_margin_of_one_class_alone_is_caught() -> None:
    """Testing gold against the strongest rival only by its share of both forgets the margin: it certifies falsely."""
    p0 = float(sps.norm.cdf(1.0))
    t = 0.02
    a = float(bound(Shifted(np.array(p0)), np.array(t)))
    draws = np.random.default_rng(0).choice(3, (500, 300), p=(a, t, 1 - a - t))
    gold, both = (draws == 0).cumsum(1), (draws < 2).cumsum(1)
    wrong = (log_mixture(gold, both, p0) >= -math.log(0.05)).any(1).mean()
    assert wrong > 0.5, "0.48 / 0.50 is more than p0 = 0.84"
    assert certified(0, (a, t, 1 - a - t), p0, 300, 0.05, 500).sum() <= stats.false_certificates_at_most(
        500, 0.05, 0.001
    )


# ------------------------------------------------------------------------------------------------ what it is good for


@pytest.mark.parametrize(
    ("p", "radius", "most", "ever"),
    [
        ((0.55, 0.20, 0.15, 0.10), "0.25s", 600, 0),
        ((0.75, 0.15, 0.06, 0.04), "0.5s", 330, 0.9),
        ((0.90, 0.05, 0.03, 0.02), "1s", 280, 1),
    ],
)
def test_spread_votes_need_fewer_draws(p: tuple[float, ...], radius: str, most: float, ever: float) -> None:
    """At alpha 0.001 and at most 2,048 draws, without the fifth class, "no answer": always, and in far fewer draws."""
    two, one = (Ladder(spec(radius, 2048, 0.001, test)) for test in ("two classes", None))
    made = [[ladder.follow([drawn(seed, 2048, p)], 0, 5) for seed in range(25)] for ladder in (two, one)]
    draws = [np.mean([one.stopped_at for one in ones]) for ones in made]
    shares = [np.mean([one.radius is not None for one in ones]) for ones in made]
    assert shares[0] == 1 and draws[0] < most
    assert (shares[1] == 0) if not ever else (shares[1] >= ever - 0.15 and draws[1] > 2 * draws[0])


def test_unanimous_votes_need_no_more() -> None:
    for radius, two, one in (("1s", 49, 49), ("2s", 367, 364)):
        draws = np.zeros(2048, dtype=np.int64)
        for test, number in (("two classes", two), (None, one)):
            assert Ladder(spec(radius, 2048, 0.001, test)).follow([draws], 0, 5).stopped_at <= number


def test_spread_votes_below_the_margin_are_given_up_soon() -> None:
    """Gold leads every rival and cannot be certified: the cap is not drawn."""
    for p, radius in (
        ((0.65, *[0.35 / 3] * 3), "1s"),
        ((0.3, 0.3, 0.2, 0.2), "0.25s"),
        ((0.35, *[0.65 / 3] * 3), "1s"),
    ):
        ladder = Ladder(spec(radius, 2048, 0.001))
        made = [ladder.follow([drawn(seed, 2048, p)], 0, 5) for seed in range(15)]
        assert all(one.radius is None for one in made)
        assert np.mean([one.stopped_at for one in made]) < 250


def test_giving_up_costs_little_power() -> None:
    """Votes that are certified in half of the runs without giving up are so in nearly as many with it."""
    p, p0, n = (0.45, 0.17, 0.13, 0.13, 0.12), float(sps.norm.cdf(0.25)), 600
    draws = np.random.default_rng(9).choice(5, (120, n), p=p)
    ladder = Ladder(spec("0.25s", n))
    kept = sum(ladder.follow([row], 0, 5).radius is not None for row in draws)
    whole = certified(9, p, p0, n, 0.05, 120).sum()
    assert 30 < whole < 110 and whole - 6 <= kept <= whole
