"""Evidence of votes against "the probability is at most p0": a test martingale. No torch here, for reports use it."""

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
"""Maps arrays of successes and draws to ln e, which rises with each success and falls with each failure."""

HORIZON = 0.25
"""Share of alpha that is kept for the last draw; see `Evidence`."""

OTHER = 1 / 2
"""Share of the rest of alpha that goes to other evidence against the same, where there is any."""

_UNDERFLOW = -600.0
_DEPTH = 60
"""Steps of the continued fraction, which converges in fewer wherever it is needed."""
_BLOCK = 1024


class Evidence:
    """Evidence e against p <= p0 in at most n draws: a test martingale that ends early and loses little power by it.

        e = (1 - HORIZON) mixture + HORIZON horizon

    The mixture decides clear cases soon; see `log_mixture`. The horizon is for close ones, which take all n draws. It
    is the probability, at p0 and given the draws so far, of as many successes in n draws as a test of level
    HORIZON * alpha on exactly n draws needs, divided by that before the first draw. Both are 1 at the start,
    never negative, and supermartingales for every p <= p0, the horizon because that chance grows with each success. So
    e reaches 1 / alpha with probability alpha at most, whenever and for whatever reason draws end (Ville's inequality).

    Args:
        p0: in (0, 1).
        n: largest number of draws.
        alpha: the level for which the horizon is tuned; e is valid at any other level, too.
    """

    def __init__(self, p0: float, n: int, alpha: float) -> None:
        self.p0, self.n = p0, n
        self._asks = int(sps.binom.isf(HORIZON * alpha, n, p0)) + 1
        self._start = float(self._chance(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))[0])

    def log_e(self, successes: Ints, draws: Ints, other: Floats | None = None) -> Floats:
        """Compute ln e for arrays of counts.

        Args:
            other: ln of other evidence for the same draws, which broadcasts with the counts; it takes the share OTHER
            of
                what the horizon leaves. The result is evidence against whatever both are evidence against.
        """
        mixture = log_mixture(successes, draws, self.p0)
        if other is not None:
            mixture = np.logaddexp(math.log1p(-OTHER) + mixture, math.log(OTHER) + other)
        if not self._start:  # n draws are too few for such a test
            return mixture
        with np.errstate(divide="ignore"):
            horizon = np.log(self._chance(successes, draws) / self._start)
        return np.logaddexp(math.log1p(-HORIZON) + mixture, math.log(HORIZON) + horizon)

    def _chance(self, successes: Ints, draws: Ints) -> Floats:
        """Probability at p0 of as many successes in n draws as are needed, given these counts."""
        left, lacking = self.n - draws, self._asks - successes
        chance = special.betainc(np.clip(lacking, 1, None), np.clip(left - lacking, 0, None) + 1, self.p0)
        return np.where(lacking <= 0, 1.0, np.where(lacking > left, 0.0, chance))


@lru_cache(maxsize=256)
def evidence_of(p0: float, n: int, alpha: float) -> Evidence:
    return Evidence(p0, n, alpha)


def log_mixture(successes: Ints, draws: Ints, p0: float) -> Floats:
    """Compute ln of the likelihood ratio of a mixture of all q above p0 against p0 itself.

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
    """Integrate q^(a - 1) (1 - q)^(b - 1) from p0 to 1, and divide by p0^a (1 - p0)^b / b.

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
    """The smallest number of successes at which ln e reaches a bar, for every number of draws; draws + 1 if none does.

    From one draw to the next it grows by 0 or 1, because evidence falls with each failure and rises with each success.
    So the values at two numbers of draws leave little to search between them.
    """

    def __init__(self, log_e: LogE, bar: float) -> None:
        self._log_e, self._bar = log_e, bar
        self._known = np.ones(1, dtype=np.int64)

    def __call__(self, draws: Ints) -> Ints:
        """The boundary at these numbers of draws, in ascending order."""
        while len(self._known) <= draws[-1]:
            self._grow()
        return self._known[draws]

    def at(self, draws: int) -> int:
        """The boundary at one number of draws, computed without those before it."""
        number = np.array([draws])
        return int(self._search(number, np.zeros_like(number), number + 1)[0])

    def _grow(self) -> None:
        first = len(self._known) - 1
        step = max(_BLOCK, first)
        draws = np.arange(first, first + step + 1)
        grown = np.empty_like(draws)
        start = self._known[-1:]
        grown[:1], grown[-1:] = start, self._search(draws[-1:], start, start + step)
        while step > 1:
            half = step // 2
            left, right = grown[:-1:step], grown[step::step]
            low, high = np.maximum(left, right - half), np.minimum(left + half, right)
            grown[half::step] = self._search(draws[half::step], low, high)
            step = half
        self._known = np.concatenate([self._known, grown[1:]])

    def _search(self, draws: Ints, low: Ints, high: Ints) -> Ints:
        """Bisect for the boundary, which lies between low and high."""
        low, high = low.copy(), high.copy()
        while (searching := low < high).any():
            middle = (low[searching] + high[searching]) // 2
            enough = self._log_e(middle, draws[searching]) >= self._bar
            high[searching] = np.where(enough, middle, high[searching])
            low[searching] = np.where(enough, low[searching], middle + 1)
        return low
