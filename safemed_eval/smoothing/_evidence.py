"""How strongly votes speak against "the probability is at most p0". No torch here: reports read stored votes again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_UNDERFLOW = -600.0
_DEPTH = 60
"""Of a continued fraction that converges in fewer steps wherever it is needed."""
_BLOCK = 1024


def log_evidence(successes: Ints | int, draws: Ints | int, p0: Floats | float) -> Floats:
    """ln e: the likelihood ratio of a mixture of all q above p0 against p0 itself, at these counts; broadcasts.

        e = integral over q in (p0, 1] of (q / p0)^successes ((1 - q) / (1 - p0))^(draws - successes) w(q) dq

    where w is Jeffreys' prior, Beta(1/2, 1/2), restricted to (p0, 1] and normalised there. For each q above p0 the
    ratio is a supermartingale whenever the true probability is p0 or less, and so is their mixture: over a whole
    sequence of independent draws e reaches 1 / alpha with probability alpha at most, whenever and for whatever reason
    it is stopped (Ville's inequality). It rises with each success and falls with each failure.

    A mixture over both sides of p0 is a martingale at p0 only: it also grows where the probability is *below* p0.

    Args:
        p0: in (0, 1).
    Source:
        Robbins 1970, "Statistical methods related to the law of the iterated logarithm", for mixtures; Ville 1939.
    """
    a, b = np.asarray(successes) + 0.5, np.asarray(draws) - successes + 0.5
    a, b, p0 = np.broadcast_arrays(a, b, p0)
    log_p, log_q = np.log(p0), np.log1p(-p0)
    with np.errstate(divide="ignore"):
        upper = np.log(special.betaincc(a, b, p0))
    ratio = np.asarray(special.betaln(a, b) + upper - (a - 0.5) * log_p - (b - 0.5) * log_q)
    far = upper < _UNDERFLOW  # the share of successes lies far below p0, and the posterior mass above p0 is lost
    if far.any():
        tail = np.log(_continued_fraction(a[far], b[far], p0[far])) - np.log(b[far])
        ratio[far] = tail + 0.5 * (log_p + log_q)[far]
    prior = special.betaln(0.5, 0.5) + np.log(special.betaincc(0.5, 0.5, p0))
    return np.asarray(ratio - prior)


def _continued_fraction(a: Floats, b: Floats, p0: Floats) -> Floats:
    """integral from p0 to 1 of q^(a - 1) (1 - q)^(b - 1) dq, divided by p0^a (1 - p0)^b / b.

    Source:
        DLMF 8.17.22, for the lower tail at 1 - p0; it converges fast where that lies below the mean.
    """
    a, b, x = b, a, 1 - p0
    value = np.ones_like(x)
    for m in range(_DEPTH, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        value = 1 + odd / (1 + even / value)
    return 1 / value


def fewest_successes(draws: Ints | int, p0: Floats | float, log_bar: float) -> Ints:
    """How many successes among these draws it takes for ln e to reach `log_bar`; draws + 1 where all do not suffice."""
    draws, p0 = np.broadcast_arrays(np.asarray(draws, dtype=np.int64), p0)
    return _search(draws, p0, log_bar, np.zeros_like(draws), np.asarray(draws + 1))


class Boundary:
    """The same for every number of draws from 0 on: (R, ...) for R probabilities p0, grown as far as it is asked for.

    One draw more takes no success more or one, because evidence falls with each failure and rises with each success.
    That leaves hardly anything to search for between two numbers of draws for which the answer is known.
    """

    def __init__(self, p0: Floats, log_bar: float) -> None:
        self._p0, self._log_bar = p0, log_bar
        self._known = np.ones((len(p0), 1), dtype=np.int64)

    def __call__(self, draws: Ints) -> Ints:
        """(R, N) for N rising numbers of draws."""
        while self._known.shape[1] <= draws[-1]:
            self._grow()
        return self._known[:, draws]

    def _grow(self) -> None:
        first = self._known.shape[1] - 1
        step = max(_BLOCK, first)
        draws = np.arange(first, first + step + 1)
        found = np.empty((len(self._p0), len(draws)), dtype=np.int64)
        found[:, :1] = start = self._known[:, -1:]
        found[:, -1:] = self._between(draws[-1:], start, start + step)
        while step > 1:
            half = step // 2
            left, right = found[:, :-1:step], found[:, step::step]
            found[:, half::step] = self._between(
                draws[half::step], np.maximum(left, right - half), np.minimum(left + half, right)
            )
            step = half
        self._known = np.concatenate([self._known, found[:, 1:]], axis=1)

    def _between(self, draws: Ints, low: Ints, high: Ints) -> Ints:
        draws, p0 = np.broadcast_arrays(draws, self._p0)
        return _search(draws, p0, self._log_bar, low, high)


def _search(draws: Ints, p0: Floats, log_bar: float, low: Ints, high: Ints) -> Ints:
    """By bisection, where the answers lie from low to high; arrays of one shape."""
    low, high = low.copy(), high.copy()
    while (searching := low < high).any():
        middle = (low[searching] + high[searching]) // 2
        enough = log_evidence(middle, draws[searching], p0[searching]) >= log_bar
        high[searching] = np.where(enough, middle, high[searching])
        low[searching] = np.where(enough, low[searching], middle + 1)
    return low
