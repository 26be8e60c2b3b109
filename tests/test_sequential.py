"""Sequential certificates: the mixture against integrals, the ladder against a plain loop, and their error rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import special
from scipy import stats as sps

from safemed_eval import stats
from safemed_eval.core import Question
from safemed_eval.models.toy import Linear
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Ladder, Sequential, SequentialCertificate, Smoothing, read_draws, unpack
from safemed_eval.smoothing.certify import certify, certify_gold
from safemed_eval.smoothing.evidence import HORIZON, Boundary, Evidence, log_mixture
from safemed_eval.smoothing.sequential import GIVE_UP, pack

AB = Question(text="Which?", options=("A", "B"))
SHAPE = (3, 4, 4)
P0 = [0.5, *sps.norm.cdf([0.5, 1.0, 2.0])]
Hits = npt.NDArray[np.bool_]


def spec(radii: str = "0.5s,1s", n: int = 400, alpha: float = 0.001) -> Sequential:
    """Radii in sigmas, by the one-class test."""
    asked = {name: float(name[:-1]) for name in radii.split(",")}
    return Sequential(sigma=1.0, radii=asked, n=n, alpha=alpha, test=None)


def votes(hits: Hits, gold: int = 0) -> npt.NDArray[np.int64]:
    """The class of each vote where there are `gold` and one other class, of 3 or 2 in all."""
    return np.where(hits, gold, 1 if gold == 0 else 0)


# ------------------------------------------------------------------------------------------------------- the mixture


class Integral:
    """The same mixture by Gauss-Legendre quadrature: 1 - q = (1 - p0) u^2 takes the singularity of the prior away."""

    def __init__(self, p0: float) -> None:
        x, weight = np.polynomial.legendre.leggauss(600)
        u = (x + 1) / 2
        q = 1 - (1 - p0) * u**2
        self.log_w = np.log(weight / np.sqrt(q)) - special.logsumexp(np.log(weight / np.sqrt(q)))
        self.win, self.lose = np.log(q / p0), 2 * np.log(u)

    def log_e(self, successes: int, draws: int) -> float:
        return float(special.logsumexp(self.log_w + successes * self.win + (draws - successes) * self.lose))


@pytest.mark.parametrize("p0", P0)
def test_the_mixture_is_the_integral(p0: float) -> None:
    integral = Integral(p0)
    for draws in (0, 1, 3, 50, 700):
        for successes in {round(share * draws) for share in (0, 0.2, 0.5, 0.8, 0.9, 0.97, 1)}:
            assert log_mixture(successes, draws, p0) == pytest.approx(integral.log_e(successes, draws), abs=1e-8)


def exact(successes: int, draws: int, p0: float) -> float:
    """The same by a hypergeometric series of positive terms, in 50 digits."""
    with mpmath.workdps(50):
        p, half = mpmath.mpf(p0), mpmath.mpf(1) / 2

        def log_tail(a: object, b: object) -> object:
            series = mpmath.hyp2f1(a + b, 1, b + 1, 1 - p, maxterms=10**7)
            return a * mpmath.log(p) + b * mpmath.log(1 - p) - mpmath.log(b) + mpmath.log(series)

        ratio = log_tail(successes + half, draws - successes + half) - log_tail(half, half)
        return float(ratio - successes * mpmath.log(p) - (draws - successes) * mpmath.log(1 - p))


@pytest.mark.parametrize("p0", P0)
def test_the_mixture_holds_far_below_p0_and_for_a_million_draws(p0: float) -> None:
    for draws, shares in ((5000, (0, 0.1, 0.4, 0.99, 1)), (10**6, (0.05, 0.3, 0.45))):
        for successes in (round(share * draws) for share in shares):
            assert log_mixture(successes, draws, p0) == pytest.approx(exact(successes, draws, p0), abs=1e-6)


def test_both_ways_to_compute_it_meet() -> None:
    """Where one underflows the other takes over: neighbours differ by a step, which changes slowly."""
    draws = 10**6
    successes = np.arange(827_500, 829_500)  # ln of the posterior mass above 0.8413 passes -600 in here
    found = log_mixture(successes, draws, P0[2])
    mass = special.betaincc(successes + 0.5, draws - successes + 0.5, P0[2])
    assert (np.log(mass[mass > 0]) < -600).any() and (np.log(mass[mass > 0]) > -600).any()
    assert np.abs(np.diff(found, 2)).max() < 1e-6


@pytest.mark.parametrize("p0", P0)
@pytest.mark.parametrize("kind", ["mixture", "evidence", "few draws"])
def test_evidence_is_a_supermartingale_for_every_p_up_to_p0(kind: str, p0: float) -> None:
    """E[e_{t + 1}] <= e_t for all counts, with equality at p0 itself; and not above p0."""
    draws = np.concatenate([np.arange(40), [100, 399] if kind == "evidence" else [100, 1000, 10**5]])[:, None]
    draws = np.arange(12)[:, None] if kind == "few draws" else draws
    successes = np.round(draws * np.linspace(0, 1, 41)).astype(int)
    draws = draws + np.zeros_like(successes)
    n = {"evidence": 400, "few draws": 12}.get(kind)
    log_e = Evidence(p0, n, 0.001).log_e if n else partial(log_mixture, p0=p0)
    now = log_e(successes, draws)
    win, lose = (np.exp(log_e(successes + one, draws + 1) - now) for one in (1, 0))
    assert (win > 1).all() and (lose < 1).all()
    for p in (0.0, 0.01, 0.3 * p0, 0.9 * p0, p0 - 1e-4):
        assert (p * win + (1 - p) * lose < 1).all()
    assert p0 * win + (1 - p0) * lose == pytest.approx(1, abs=1e-7)
    assert (1.01 * p0 * win + (1 - 1.01 * p0) * lose > 1).all()
    nothing = np.zeros(1, dtype=int)
    assert log_e(nothing, nothing) == pytest.approx(0, abs=1e-12), "it starts at 1"


def test_close_cases_are_judged_nearly_as_by_a_fixed_test() -> None:
    """1,774 of 2,048 draws suffice for Clopper and Pearson at one sigma, and 1,794 for the mixture alone."""
    n, bar = 2048, -math.log(0.001)
    fixed = int(sps.binom.isf(0.001, n, P0[2])) + 1
    assert stats.clopper_pearson_lower(fixed, n, 0.001) >= P0[2] > stats.clopper_pearson_lower(fixed - 1, n, 0.001)
    ours = Boundary(Evidence(P0[2], n, 0.001).log_e, bar).at(n)
    assert (fixed, ours, Boundary(partial(log_mixture, p0=P0[2]), bar).at(n)) == (1774, 1780, 1794)


def test_boundaries_are_the_fewest_successes() -> None:
    draws = np.arange(1500)
    mixtures = [partial(log_mixture, p0=p0) for p0 in (*P0, 0.02, 0.5 / 3000)]
    for log_e in (*mixtures, Evidence(P0[2], 1400, 0.001).log_e, Evidence(P0[3], 300, 0.05).log_e):
        boundary = Boundary(log_e, math.log(1000))
        found = boundary(draws)
        assert (log_e(np.minimum(found, draws), draws) >= math.log(1000))[found <= draws].all()
        assert (log_e(np.maximum(found - 1, 0), draws) < math.log(1000))[found > 0].all()
        assert [boundary.at(count) for count in (0, 1, 77, 1499)] == found[[0, 1, 77, 1499]].tolist()


def test_unanimous_votes_decide_as_soon_as_the_design_says() -> None:
    for radius, draws in (("1s", 49), ("2s", 364)):
        found = Ladder(spec(radius, n=2048)).follow([np.zeros(2048, dtype=np.int64)], 0, 3)
        assert (found.stopped_at, found.successes, found.stopped) == (draws, draws, "certified")
    # No test of level 0.001 rejects p <= 0.8413 on fewer than 40 unanimous votes; the mixture alone takes 47, and 351.
    assert 0.8413447**39 > 0.001
    for p0, draws in ((P0[2], 47), (P0[3], 351)):
        found = Boundary(partial(log_mixture, p0=p0), math.log(1000))
        assert (found.at(draws), found.at(draws - 1)) == (draws, draws)


# -------------------------------------------------------------------------------------------------------- the ladder


class Told:
    """Evidence as it is told: an integral, and a binomial tail over what it was at the start."""

    def __init__(self, p0: float, n: int, bar: float) -> None:
        self.mixture, self.p0, self.n = Integral(p0), p0, n
        level = HORIZON * math.exp(-bar)
        self.asks = next(c for c in range(n + 2) if sps.binom.sf(c - 1, n, p0) <= level)

    def log_e(self, successes: int, draws: int) -> float:
        mixture = math.exp(self.mixture.log_e(successes, draws))
        if self.asks > self.n:
            return math.log(mixture)
        lacking, left = self.asks - successes, self.n - draws
        chance = 1.0 if lacking <= 0 else special.bdtrc(lacking - 1, left, self.p0) if lacking <= left else 0.0
        return math.log((1 - HORIZON) * mixture + HORIZON * chance / special.bdtrc(self.asks - 1, self.n, self.p0))


@lru_cache
def rung(p0: float, n: int, bar: float) -> tuple[Told, int, Integral]:
    """A radius: its evidence, how many of n draws it takes, and the evidence against there ever being so many."""
    against = Told(p0, n, bar)
    needed = next(k for k in range(n + 2) if k > n or against.log_e(k, n) >= bar)
    return against, needed, Integral(max(n - needed, 0.5) / n)


def plain_loop(hits: Hits, asked: Sequential) -> tuple[int, str, dict[str, bool], dict[str, float]]:
    """The rule as it is told, a vote at a time, with integrals."""
    names, bar = list(asked.ladder), -math.log(asked.alpha)
    rungs = [rung(float(sps.norm.cdf(radius / asked.sigma)), asked.n, bar) for radius in asked.ladder.values()]
    against, needed, doubt = zip(*rungs, strict=True)
    best, k = [0.0] * len(names), 0
    for t, hit in enumerate(hits, start=1):
        k += bool(hit)
        best = [max(old, e.log_e(k, t)) for old, e in zip(best, against, strict=True)]
        level = next((i for i, e in enumerate(best) if e < bar), len(best))
        if level == len(best) or all(c > asked.n for c in needed[level:]):
            why = "certified"
        elif t == asked.n:
            why = "cap"
        elif k + asked.n - t < needed[level] or doubt[level].log_e(t - k, t) >= -math.log(GIVE_UP):
            why = "futile"
        else:
            continue
        certified = {name: i < level for i, name in enumerate(names)}
        return t, why, certified, dict(zip(names, best, strict=True))
    raise AssertionError("no end")


@pytest.mark.parametrize("p", [0.0, 0.3, 0.6, 0.72, 0.85, 0.9, 0.97, 1.0])
def test_the_ladder_is_the_plain_loop(p: float) -> None:
    for seed, asked in enumerate((spec("0s,0.5s,1s", n=160), spec("1s", n=60), spec("0.5s,2s", n=150, alpha=0.05))):
        hits = np.random.default_rng(seed).random(asked.n) < p
        end, why, certified, best = plain_loop(hits, asked)
        for size in (1, 7, 64, asked.n):
            batches = (hits[start : start + size] for start in range(0, asked.n, size))
            found = Ladder(asked).follow(map(partial(votes, gold=2), batches), gold=2, classes=4)
            assert (found.stopped_at, found.stopped, found.certified) == (end, why, certified)
            assert found.max_log_e == pytest.approx(best, abs=1e-8)
            assert (read_draws(found.draws, end, 4) == votes(hits[:end], 2)).all()
            assert found.successes == hits[:end].sum()
        radii = [asked.radii[name] for name, proved in certified.items() if proved]
        assert found.radius == (max(radii) if radii else None)
        assert found.prediction == (2 if radii else None)
        assert found.abstained == (None if radii else "no radius certified")
        assert found.p_lower == (pytest.approx(sps.norm.cdf(max(radii))) if radii else None)


def test_votes_after_the_end_are_not_asked_for() -> None:
    asked = []

    def batches() -> Iterator[npt.NDArray[np.int64]]:
        for start in range(0, 400, 10):
            asked.append(start)
            yield np.zeros(10, dtype=np.int64)

    assert Ladder(spec("1s")).follow(batches(), 0, 3).stopped_at == 49
    assert asked == [0, 10, 20, 30, 40]
    with pytest.raises(ValueError, match="46 votes decide nothing"):
        Ladder(spec("1s")).follow([np.zeros(46, dtype=np.int64)], 0, 3)


def test_a_radius_counts_only_with_all_smaller_ones() -> None:
    """At another alpha the certified radii are those below the first whose evidence falls short."""
    made = Ladder(spec("0s,1s,2s", n=2000)).follow([votes(np.random.default_rng(0).random(2000) < 0.93)], 0, 3)
    assert made.certified == {"0s": True, "1s": True, "2s": False}
    uneven = partial(Ladder(spec("0s,1s,2s")).read_again, gold=0, classes=3)
    found = uneven(_with(made, {"0s": 9.0, "1s": 6.9, "2s": 9.0}))
    assert found.certified == {"0s": True, "1s": False, "2s": False} and found.radius == 0.0
    assert uneven(_with(made, {"0s": 6.9, "1s": 9.0, "2s": 9.0})).radius is None
    assert uneven(_with(made, {"0s": 9.0, "1s": 6.91, "2s": 9.0})).radius == 2.0


def _with(found: SequentialCertificate, best: dict[str, float]) -> SequentialCertificate:
    return replace(found, max_log_e=best)


def test_another_alpha_is_read_from_the_largest_evidence() -> None:
    hits = np.random.default_rng(3).random(3000) < 0.9
    made = Ladder(spec("0.5s,1s,1.5s", n=3000)).follow([votes(hits)], 0, 3)
    assert made.radius == 1.0 and made.stopped == "futile"
    other = {alpha: Ladder(spec("0.5s,1s,1.5s", n=3000, alpha=alpha)) for alpha in (0.5, 1e-9)}
    at = {alpha: ladder.read_again(made, 0, 3).radius for alpha, ladder in other.items()}
    assert at[0.5] >= 1.0, "at a larger alpha as much or more"
    short = Ladder(spec("1s", n=3000)).follow([np.zeros(3000, dtype=np.int64)], 0, 3)
    assert Ladder(spec("1s", n=3000, alpha=0.0005)).read_again(short, 0, 3).radius is None, "its draws ended too soon"


def test_packed_draws_come_back() -> None:
    for size in (1, 8, 13):
        hits = np.random.default_rng(size).random(size) < 0.5
        assert (unpack(pack(hits), size) == hits).all()
    for text, draws in (("ff", 9), ("ff", 7), ("fF", 8), ("f", 4), ("zz", 8), ("ffff", 8), ("ff", -1), ("ff", 10**15)):
        with pytest.raises(ValueError):
            unpack(text, draws)


def test_what_is_asked_is_checked() -> None:
    for bad in ({"sigma": 0.0}, {"alpha": 1.0}, {"n": 0}, {"radii": {}}, {"radii": {"0": 0.0}}, {"n": 40}):
        with pytest.raises(ValueError):
            Sequential(**{"sigma": 0.25, "radii": {"0": 0.0, "1s": 0.25}, **bad})
    for radius in (-0.1, 2.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 8 sigma"):
            Sequential(sigma=0.25, radii={"1s": 0.25, "x": radius})
    asked = Sequential(sigma=0.1, radii={"3s": 3 * 0.1, "1s": 0.1, "0": 0.0}, n=300)
    assert asked.asked(0.3) == 3 * 0.1 != 0.3 and asked.asked(0.2) is None
    assert list(asked.ladder) == ["0", "1s", "3s"] and asked.ceiling == 0.1


# -------------------------------------------------------------------------------------------------------- error rates


def crossing(up: npt.NDArray[np.int64], p: float, down: npt.NDArray[np.int64] | None = None) -> tuple[float, float]:
    """The exact probabilities that the successes reach `up` first, or the failures `down`, at some draw."""
    n = len(up) - 1
    mass, over, under = np.zeros(n + 2), 0.0, 0.0
    mass[0] = 1.0
    for t in range(1, n + 1):
        mass[1 : t + 1] = p * mass[:t] + (1 - p) * mass[1 : t + 1]
        mass[0] *= 1 - p
        over += mass[up[t] : t + 1].sum()
        mass[up[t] :] = 0.0
        if down is not None:
            least = t - down[t] + 1
            under += mass[: max(least, 0)].sum()
            mass[: max(least, 0)] = 0.0
    return over, under


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("p0", P0)
def test_false_rejections_are_at_most_alpha(p0: float, alpha: float) -> None:
    """Exactly, over 1,000 draws without any futility stop, at p0, just below it and far below it."""
    up = Boundary(Evidence(p0, 1000, alpha).log_e, -math.log(alpha))(np.arange(1001))
    rates = {p: crossing(up, p)[0] for p in (p0, p0 - 1e-6, p0 - 0.005, p0 - 0.05, 0.5, 0.1) if p <= p0}
    assert max(rates.values()) <= alpha
    assert rates[p0] > alpha / 4, "a test that never rejects would be safe, too"
    assert all(rates[p] < rates[p0] for p in rates if p < p0 - 1e-5)


def test_the_undirected_mixture_is_caught() -> None:
    """Over all of (0, 1) it also grows where p is far below p0: p = 0.5 is then certified as above 0.84."""
    p0, alpha = P0[2], 0.001
    draws = np.arange(1, 301)[:, None]
    successes = np.arange(302)
    failures = np.maximum(draws - successes, 0)
    log_e = special.betaln(successes + 0.5, failures + 0.5) - special.betaln(0.5, 0.5)
    log_e -= successes * np.log(p0) + failures * np.log1p(-p0)
    over = (log_e >= -math.log(alpha)) & (successes <= draws)
    rng = np.random.default_rng(0)
    counts = np.cumsum(rng.random((2000, 300)) < 0.5, axis=1)
    undirected = (
        np.take_along_axis(over.T, counts, axis=0).any(axis=1) if False else over[draws[:, 0] - 1, counts].any(1)
    )
    assert undirected.mean() > 0.99
    directed = counts >= Boundary(Evidence(p0, 300, alpha).log_e, -math.log(alpha))(draws[:, 0])
    assert directed.any(axis=1).sum() <= stats.false_certificates_at_most(2000, alpha, 0.001)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_false_certificates_are_at_most_alpha_at_all_radii_together(alpha: float) -> None:
    """20,000 items of each p, all draws: false is a radius at or above the true one, with all smaller ones rejected."""
    ladder, rng, draws = Ladder(spec("0s,0.5s,1s,2s", n=250, alpha=alpha)), np.random.default_rng(0), np.arange(1, 251)
    boundaries = [Boundary(rung.log_e, -math.log(alpha)) for rung in ladder.spec.evidence()]
    for p in (*P0, P0[2] - 0.002, 0.3):
        counts = np.cumsum(rng.random((20_000, 250), dtype=np.float32) < p, axis=1, dtype=np.int16)
        passed = np.array([(counts >= up(draws).astype(np.int16)).any(axis=1) for up in boundaries])
        level = np.logical_and.accumulate(passed).sum(axis=0)
        allowed = sum(one < p - 1e-9 for one in P0)
        assert (level > allowed).sum() <= stats.false_certificates_at_most(20_000, alpha, 0.001)


def test_false_certificates_of_whole_items_are_at_most_alpha() -> None:
    ladder, rng = Ladder(spec("0s,0.5s,1s", n=120, alpha=0.05)), np.random.default_rng(0)
    for p in (P0[0], P0[2], 0.3):
        found = [ladder.follow([votes(hits)], 0, 3).radius for hits in rng.random((400, 120)) < p]
        false = sum(radius is not None and radius >= sps.norm.ppf(p) - 1e-9 for radius in found)
        assert false <= stats.false_certificates_at_most(400, 0.05, 0.001)


def test_giving_up_costs_little_power() -> None:
    """Where p is what n draws would just show to suffice, or more, it is given up with probability GIVE_UP at most."""
    asked = spec("1s", n=1000)
    ladder = Ladder(asked)
    draws = np.arange(1001)
    needed = int(ladder._needed[0])
    up, down = Boundary(ladder.spec.evidence()[0].log_e, -math.log(asked.alpha))(draws), ladder._down[0](draws)
    never = crossing(up, needed / 1000)[0]
    for p in (needed / 1000, needed / 1000 + 0.02):
        assert crossing(np.full(1001, 10**6), p, down)[1] <= GIVE_UP
        assert crossing(up, p)[0] - crossing(up, p, down)[0] <= GIVE_UP
    assert never > 0.5, "such an item is certified as often as not"
    # What it buys: an item at p = 0.5 has ended after 40 draws, not after the 250 that make it impossible.
    assert crossing(up[:41], 0.5, down[:41])[1] > 0.98


# ------------------------------------------------------------------------------------------------------- on a model


def toy(p: float, sigma: float) -> tuple[Waist, torch.Tensor]:
    """A linear model and a canvas whose noisy copies are class 0 with probability p."""
    model, canvas = Linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))), torch.full(SHAPE, 0.5)
    length = float(model.margin(canvas[None]) / model.radius(canvas[None]))
    model.bias += sigma * float(sps.norm.ppf(p)) * length - float(model.margin(canvas[None]))
    return Waist(model, torch.device("cpu")), canvas


def rng_of(seed: int) -> Callable[[str, int], torch.Generator]:
    return partial(generator, "cpu", seed)


@pytest.mark.parametrize("p", [0.2, 0.8, 0.95, 0.9999])
def test_draws_do_not_depend_on_the_batch_and_are_those_of_fixed_certificates(p: float) -> None:
    model, canvas = toy(p, 0.3)
    ladder = Ladder(Sequential(sigma=0.3, radii={"0": 0.0, "1s": 0.3}, n=200))
    found = [
        certify_gold(model.vote(AB), canvas, ladder, gold=0, rng=rng_of(1), batch=batch) for batch in (1, 7, 64, 200)
    ]
    assert found[0] == found[1] == found[2] == found[3]
    end = found[0].stopped_at
    fixed = certify(model.vote(AB), canvas, Smoothing(sigma=0.3, n0=1, n=end, alpha=0.5), rng=rng_of(1), batch=50)
    assert fixed.votes is not None and fixed.votes[0] == found[0].successes
    other = certify_gold(model.vote(AB), canvas, ladder, gold=1, rng=rng_of(1), batch=64)
    assert other.prediction in (1, None) and other.draws.startswith(found[0].draws[: other.stopped_at])


def test_certificates_are_sound_on_a_model_with_known_radius() -> None:
    """The true radius lies just below 1 sigma: it may be certified in one item of a hundred."""
    model, canvas = toy(float(sps.norm.cdf(1.0)) - 1e-6, 0.3)
    ladder = Ladder(Sequential(sigma=0.3, radii={"0.5s": 0.15, "1s": 0.3}, n=150, alpha=0.05))
    vote = model.vote(AB)
    radii = [certify_gold(vote, canvas, ladder, gold=0, rng=rng_of(s), batch=150).radius for s in range(150)]
    assert sum(radius == 0.3 for radius in radii) <= stats.false_certificates_at_most(150, 0.05, 0.001)
    assert sum(radius == 0.15 for radius in radii) > 75


def test_a_wrong_selection_ends_a_fixed_certificate() -> None:
    model, canvas = toy(0.9, 0.3)
    smoothing, vote, calls = Smoothing(sigma=0.3, n0=20, n=100), model.vote(AB), []

    class Counted:
        classes = vote.classes

        def __call__(self, copies: torch.Tensor) -> torch.Tensor:
            raise AssertionError("votes are counted")

        def count(self, batches: Iterable[torch.Tensor], orders: None) -> tuple[int, ...]:
            return vote.count(self.noted(copies) for copies in batches)

        def noted(self, copies: torch.Tensor) -> torch.Tensor:
            calls.append(len(copies))
            return copies

    ended = certify(Counted(), canvas, smoothing, rng=rng_of(0), batch=20, gold=1)
    assert (ended.votes, ended.radius, ended.prediction, ended.abstained) == (None, None, None, "wrong answer selected")
    assert sum(calls) == 20 == sum(ended.votes0 or ())
    whole = certify(Counted(), canvas, smoothing, rng=rng_of(0), batch=20, gold=0)
    assert whole == certify(vote, canvas, smoothing, rng=rng_of(0), batch=20) and sum(calls) == 140
