"""How strongly votes speak against "the probability is at most p0". No torch here: reports read stored votes again."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy import stats as sps

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
LogE = Callable[[Ints, Ints], Floats]
"""From numbers of successes and of draws, of one shape, to ln e; it rises with successes and falls with failures."""

HORIZON = 0.25
"""The share of alpha that is kept for the last draw; see `Evidence`."""

_UNDERFLOW = -600.0
_DEPTH = 60
"""Of a continued fraction that converges in fewer steps wherever it is needed."""
_BLOCK = 1024


class Evidence:
    """e against p <= p0 in at most n draws: a test martingale, tuned to end early and to lose little by it.

        e = (1 - HORIZON) mixture + HORIZON horizon

    The mixture decides clear cases soon; see `log_mixture`. The horizon is for close ones, which take all n draws: the
    chance, at p0, of as many successes in n draws as a test of level HORIZON * alpha on exactly n asks for, seen from
    where the draws stand, over what it was at the start. Both are 1 at the start, never negative, and supermartingales
    for every p <= p0, the horizon because that chance grows with each success. So e reaches 1 / alpha with probability
    alpha at most, whenever and for whatever reason draws end (Ville's inequality).

    Args:
        p0: in (0, 1).
        n: most draws.
        alpha: which 1 / e is to reach; needed for the horizon only, at other levels e is as valid.
    """

    def __init__(self, p0: float, n: int, alpha: float) -> None:
        self.p0, self.n = p0, n
        self._asks = int(sps.binom.isf(HORIZON * alpha, n, p0)) + 1
        self._start = float(self._chance(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))[0])

    def log_e(self, successes: Ints, draws: Ints) -> Floats:
        """ln e at these counts, of one shape."""
        mixture = log_mixture(successes, draws, self.p0)
        if not self._start:  # n draws are too few for such a test
            return mixture
        with np.errstate(divide="ignore"):
            horizon = np.log(self._chance(successes, draws) / self._start)
        return np.logaddexp(math.log1p(-HORIZON) + mixture, math.log(HORIZON) + horizon)

    def _chance(self, successes: Ints, draws: Ints) -> Floats:
        """P(as many successes in n draws as it asks for) at p0, given these."""
        left, lacking = self.n - draws, self._asks - successes
        chance = special.betainc(np.clip(lacking, 1, None), np.clip(left - lacking, 0, None) + 1, self.p0)
        return np.where(lacking <= 0, 1.0, np.where(lacking > left, 0.0, chance))


@lru_cache(maxsize=256)
def evidence_of(p0: float, n: int, alpha: float) -> Evidence:
    return Evidence(p0, n, alpha)


def log_mixture(successes: Ints, draws: Ints, p0: float) -> Floats:
    """ln of the likelihood ratio of a mixture of all q above p0 against p0 itself, at these counts.

        integral over q in (p0, 1] of (q / p0)^successes ((1 - q) / (1 - p0))^(draws - successes) w(q) dq

    where w is Jeffreys' prior, Beta(1/2, 1/2), restricted to (p0, 1] and normalised there. For each q above p0 the
    ratio is a supermartingale whenever the true probability is p0 or less, and so is their mixture. One over both sides
    of p0 would be a martingale at p0 only, and would also grow where the probability is *below* p0.

    Args:
        p0: in (0, 1).
    Source:
        Robbins 1970, "Statistical methods related to the law of the iterated logarithm".
    """
    a = np.asarray(successes, dtype=np.float64) + 0.5
    b = np.asarray(draws, dtype=np.float64) + 1 - a
    log_p, log_q = math.log(p0), math.log1p(-p0)
    with np.errstate(divide="ignore"):
        upper = np.log(special.betaincc(a, b, p0))
    ratio = np.asarray(special.betaln(a, b) + upper - (a - 0.5) * log_p - (b - 0.5) * log_q)
    far = upper < _UNDERFLOW  # the share of successes lies far below p0, and the posterior mass above p0 is lost
    if far.any():
        tail = np.log(_continued_fraction(a[far], b[far], p0)) - np.log(b[far])
        ratio[far] = tail + 0.5 * (log_p + log_q)
    return ratio - float(special.betaln(0.5, 0.5) + np.log(special.betaincc(0.5, 0.5, p0)))


def _continued_fraction(a: Floats, b: Floats, p0: float) -> Floats:
    """integral from p0 to 1 of q^(a - 1) (1 - q)^(b - 1) dq, divided by p0^a (1 - p0)^b / b.

    Source:
        DLMF 8.17.22, for the lower tail at 1 - p0; it converges fast where that lies below the mean.
    """
    a, b, x = b, a, 1 - p0
    value = np.ones_like(a)
    for m in range(_DEPTH, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        value = 1 + odd / (1 + even / value)
    return 1 / value


class Boundary:
    """The fewest successes with which ln e has reached a bar, for every number of draws; draws + 1 if all are too few.

    One draw more takes no success more or one, because evidence falls with each failure and rises with each success.
    That leaves hardly anything to search for between two numbers of draws for which the answer is known.
    """

    def __init__(self, log_e: LogE, bar: float) -> None:
        self._log_e, self._bar = log_e, bar
        self._known = np.ones(1, dtype=np.int64)

    def __call__(self, draws: Ints) -> Ints:
        """For rising numbers of draws."""
        while len(self._known) <= draws[-1]:
            self._grow()
        return self._known[draws]

    def at(self, draws: int) -> int:
        """For one number of draws, without those before it."""
        one = np.array([draws])
        return int(self._search(one, np.zeros_like(one), one + 1)[0])

    def _grow(self) -> None:
        first = len(self._known) - 1
        step = max(_BLOCK, first)
        draws = np.arange(first, first + step + 1)
        found = np.empty_like(draws)
        start = self._known[-1:]
        found[:1], found[-1:] = start, self._search(draws[-1:], start, start + step)
        while step > 1:
            half = step // 2
            left, right = found[:-1:step], found[step::step]
            low, high = np.maximum(left, right - half), np.minimum(left + half, right)
            found[half::step] = self._search(draws[half::step], low, high)
            step = half
        self._known = np.concatenate([self._known, found[1:]])

    def _search(self, draws: Ints, low: Ints, high: Ints) -> Ints:
        """By bisection, where the answers lie from low to high."""
        low, high = low.copy(), high.copy()
        while (searching := low < high).any():
            middle = (low[searching] + high[searching]) // 2
            enough = self._log_e(middle, draws[searching]) >= self._bar
            high[searching] = np.where(enough, middle, high[searching])
            low[searching] = np.where(enough, low[searching], middle + 1)
        return low
