"""Evidence of votes that one class beats another one by a margin, whatever the other classes get. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from safemed_eval.smoothing.evidence import Floats, Ints

Flags = npt.NDArray[np.bool_]

_BISECTIONS = 7
"""Steps of the search for a tangent. Stopping then costs 0.2 % of the evidence's growth at most, and no truth."""
_PRIOR_GOLD, _PRIOR_REST = 0.5, 0.25
"""Votes added to those of gold, and to those of the rival and of all other classes, when the next one is predicted."""

_FINE_BISECTIONS = 60
_TINY = 1e-12
_MOST = 1 - _TINY
"""Less, and more, than any predicted probability."""


@dataclass(frozen=True)
class Null(ABC):
    """The distributions of votes that refute a radius: p_A <= g(p_b), for gold A and a rival b, with g concave.

    g(t) is the least probability of A that keeps A ahead of b everywhere within the radius if b has probability t. It
    is given as a curve (p_A, p_b) = (g(t), t) with a parameter z, on which both grow. It holds one curve for each
    radius, as arrays that broadcast with those of votes.

    Votes for A and b alone, p_A + p_b = 1, meet it at p_A = p0, the probability that the one-class test needs: the
    curve and the line cross there, and only there. As g grows, p_A <= g(p_b) implies p_A <= g(1 - p_A), that is,
    p_A <= p0: this null implies the one-class null, not the reverse.

    Args:
        p0: in [1/2, 1).
    """

    p0: Floats

    @abstractmethod
    def curve(self, z: Floats) -> Curve:
        """The curve at z."""

    @abstractmethod
    def gold_at(self, p: Floats) -> Floats:
        """The z at which p_A is p."""

    @abstractmethod
    def rival_at(self, p: Floats) -> Floats:
        """The z at which p_b is p."""


class Curve(NamedTuple):
    """Points of a curve: the probabilities of gold and of the rival, and their derivatives up to a common factor."""

    gold: Floats
    rival: Floats
    d_gold: Floats
    d_rival: Floats


@dataclass(frozen=True)
class Shifted(Null):
    """Normal noise, on pixels or on a parameter: g(t) = Phi(c + ppf(t)) with c = 2 radius / sigma = 2 ppf(p0).

    At a distance d from the image A has at least Phi(ppf(p_A) - d / sigma), b at most Phi(ppf(p_b) + d / sigma). So A
    is ahead within sigma / 2 (ppf(p_A) - ppf(p_b)). g is concave: with t = Phi(z) its slope is exp(-c z - c^2 / 2),
    which falls as z grows.

    Source:
        Cohen et al. 2019 (arXiv:1902.02918), Theorem 1.
    """

    @cached_property
    def _c(self) -> Floats:
        return 2 * ndtri(self.p0)

    def curve(self, z: Floats) -> Curve:
        higher = z + self._c
        return Curve(ndtr(higher), ndtr(z), _density(higher), _density(z))

    def gold_at(self, p: Floats) -> Floats:
        return ndtri(p) - self._c

    def rival_at(self, p: Floats) -> Floats:
        return ndtri(p)


@dataclass(frozen=True)
class Apart(Null):
    """Noise that changes no probability by more than tau within the radius: g(t) = t + 2 tau, with tau = p0 - 1/2.

    Uniform noise on [-lambda, lambda] is such a one, in the L1 norm: tau = radius / (2 lambda).

    Source:
        Yang et al. 2020 (arXiv:2002.08118), Theorem 1, for the uniform noise.
    """

    def curve(self, z: Floats) -> Curve:
        one = np.ones_like(z + self.p0)
        return Curve(z + 2 * self.p0 - 1, z * one, one, one)

    def gold_at(self, p: Floats) -> Floats:
        return p - (2 * self.p0 - 1)

    def rival_at(self, p: Floats) -> Floats:
        return p + 0 * self.p0


def _density(z: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * z * z))


class Votes(NamedTuple):
    """Numbers of votes, or probabilities, of gold, of a rival, and of all other classes together."""

    gold: Floats
    rival: Floats
    rest: Floats


def factors(null: Null, q: Votes, slack: float = 0.0) -> Votes:
    """Compute the factors by which a vote for gold, the rival, or another class multiplies the evidence against a null.

    Each null is convex, as g is concave. Let p* be its distribution with the smallest KL(q || p*), the reverse
    information projection of the prediction q. Then E_p[q / p*] <= 1 for all p in the null, and q / p* grows faster
    under q than any other such factor (Gruenwald et al. 2024, Theorem 1; Larsson et al. 2024). Where q lies in the null
    the factor is 1.

    p* lies on the curve. With its slope m = g'(t) there, and the tangent's intercept h = g(t) - m t, the first-order
    conditions of the projection say

        (q / p*)(A, b, other) = 1 + lambda (1 - h),  1 - lambda (m + h),  1 - lambda h      with lambda >= 0

    The mean of these under p is 1 + lambda (p_A - m p_b - h). A concave g lies below all of its tangents, so that this
    is at most 1 for *every* p in the null, every tangent, and every lambda that leaves the factors positive. So a
    tangent that is only nearly the best one costs growth, and cannot make a certificate false. The search bisects for
    the tangent, and takes the lambda that is best for it, in closed form.

    Args:
        q: predicted from earlier votes only; all positive.
        slack: a bound on how far each probability may differ from that under the noise that the null is about, because
            the sampler is not exact: the null is then p_A - slack <= g(p_b + slack).
    Returns:
        Factors of the shape that the null and q broadcast to.
    """
    z = nearest(null, q, slack)
    point = null.curve(z)
    m = point.d_gold / point.d_rival
    h = np.maximum(point.gold - m * point.rival, 0.0) + slack * (1 + m)
    return _best_bet(q, 1 - h, m + h, h)


def nearest(null: Null, q: Votes, slack: float = 0.0) -> Floats:
    """Bisect for the z of the distribution on the curve that is nearest to q, in KL(q || p).

    On the curve KL(q || p) is stationary where F = q_A g' / g + q_b / t - q_o (g' + 1) / (1 - g - t) is zero; F is
    positive at t = q_b and negative at g = q_A if q lies above the curve, and the reverse below it. Above, a zero
    between the two has lambda > 0, so that it solves the convex problem; it is unique.
    """
    ends = null.rival_at(np.minimum(q.rival + slack, _MOST)), null.gold_at(np.maximum(q.gold - slack, _TINY))
    least = null.rival_at(np.array(slack + _TINY))  # below it the rival's probability would not be positive
    low, high = np.maximum(np.minimum(*ends), least), np.maximum(*ends)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(_BISECTIONS):
            z = 0.5 * (low + high)
            point = null.curve(z)
            gold, rival = point.gold + slack, point.rival - slack
            rest = 1 - gold - rival
            slope = q.gold * point.d_gold / gold + q.rival * point.d_rival / rival
            rising = (rest > 0) & (slope > q.rest * (point.d_gold + point.d_rival) / rest)
            low, high = np.where(rising, z, low), np.where(rising, high, z)
    return np.asarray(low)  # rather than the middle: here all three probabilities are positive


def _best_bet(q: Votes, win: Floats, lose: Floats, rest: Floats) -> Votes:
    """The factors 1 + lambda win, 1 - lambda lose, 1 - lambda rest for the lambda >= 0 with the largest mean ln under
    q.

    The derivative of the mean, times the three factors, is a quadratic polynomial: positive at 0 if the bet gains under
    q, negative where the rival's factor is 0. Its zero between the two is the smaller one.

    Args:
        win, lose, rest: lose > rest >= 0.
    """
    gain = q.gold * win - q.rival * lose - q.rest * rest
    curb = q.gold * win * (lose + rest) + q.rival * lose * (win - rest) + q.rest * rest * (win - lose)
    gains = (gain > 0) & (win > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = 2 * gain / (curb + np.sqrt(np.maximum(curb * curb - 4 * win * lose * rest * gain, 0.0)))
    bet = np.where(gains, root, 0.0)
    return Votes(1 + bet * win, 1 - bet * lose, 1 - bet * rest)


def below(null: Null, counts: Counts, slack: float = 0.0) -> Floats:
    """Compute the log-likelihood ratio of the votes so far against the nearest point of a curve, if they lie below it.

    It is n KL(q || p) for the predicted q and the point p of the curve; 0 where q lies above. Below the curve p need
    not be the very nearest one, as what lies above is not convex. Nothing that has to be true depends on it.
    """
    q = counts.predicted()
    point = null.curve(nearest(null, q, slack))
    gold, rival = point.gold + slack, point.rival - slack
    ratio = sum(part * np.log(part / p) for part, p in zip(q, (gold, rival, 1 - gold - rival), strict=True))
    return np.where(lies_below(null, q, slack), counts.draws * ratio, 0.0)


def lies_below(null: Null, q: Votes, slack: float = 0.0) -> Flags:
    """Whether q lies below a curve: in the null."""
    return np.asarray(
        null.gold_at(np.maximum(q.gold - slack, _TINY)) < null.rival_at(np.minimum(q.rival + slack, _MOST))
    )


class Counts(NamedTuple):
    """Numbers of votes after each draw: (draws,) for gold, (rivals, draws) for its rivals, and (draws,) in all."""

    gold: Ints
    rivals: Ints
    draws: Ints

    def at(self, places: Ints) -> Counts:
        """Those at some places."""
        return Counts(self.gold[places], self.rivals[:, places], self.draws[places])

    def predicted(self) -> Votes:
        """Predict the next vote's probabilities, for each rival."""
        whole = self.draws + _PRIOR_GOLD + 2 * _PRIOR_REST
        rest = self.draws - self.gold - self.rivals
        gold = (self.gold + _PRIOR_GOLD) / whole + np.zeros(self.rivals.shape)
        return Votes(gold, (self.rivals + _PRIOR_REST) / whole, (rest + _PRIOR_REST) / whole)


class Tally:
    """Counts votes for gold and each of its rivals, and multiplies up the two-class evidence that they give.

    Args:
        null: of the radii, (radii, 1, 1); None: all other classes are one rival, and there is no such evidence.
        slack: see `factors`.
    """

    def __init__(self, gold: int, classes: int, null: Null | None, slack: float) -> None:
        self._gold, self._null, self._slack = gold, null, slack
        self._others = np.array([c for c in range(classes) if c != gold])
        self.rivals = 1 if null is None else classes - 1
        self.draws = 0
        self._votes = np.zeros((1 + self.rivals, 1), dtype=np.int64)
        self._log_e: Floats | None = None

    def take(self, draws: Ints) -> tuple[Counts, Floats | None]:
        """Count these draws; return the counts, and ln of the evidence, (radii, rivals, draws), after each of them."""
        hit = draws == self._gold
        rivals = ~hit[None] if self._null is None else draws == self._others[:, None]
        votes = self._votes + np.cumsum(np.concatenate([hit[None], rivals]), axis=1)
        number = self.draws + np.arange(1, len(draws) + 1)
        counts = Counts(votes[0], votes[1:], number)
        log_e = None if self._null is None else self._grown(self._null, counts, hit, rivals)
        self._votes, self.draws = votes[:, -1:], int(number[-1])
        return counts, log_e

    def _grown(self, null: Null, counts: Counts, hit: Flags, rivals: Flags) -> Floats:
        before = Counts(counts.gold - hit, counts.rivals - rivals, counts.draws - 1)
        gold, rival, rest = factors(null, before.predicted(), self._slack)
        grown = np.log(np.where(hit, gold, np.where(rivals, rival, rest)))
        if self._log_e is not None:
            grown[..., 0] += self._log_e
        grown = np.cumsum(grown, axis=2)
        self._log_e = grown[..., -1]
        return grown


def least_gold(null: Null, rivals: int) -> Floats:
    """Compute a lower bound of p_A that follows if A beats every one of so many rivals: p_A > g(p_b).

    The strongest rival has at least (1 - p_A) / rivals. So p_A exceeds the p that solves p = g((1 - p) / rivals).
    """
    low, high = null.rival_at(_TINY + 0 * null.p0), null.rival_at(1 - _TINY + 0 * null.p0)
    for _ in range(_FINE_BISECTIONS):
        z = 0.5 * (low + high)
        point = null.curve(z)
        below = point.gold + rivals * point.rival < 1
        low, high = np.where(below, z, low), np.where(below, high, z)
    return np.asarray(null.curve(low).gold)
