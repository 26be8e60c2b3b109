"""What is asked of a certificate. No torch here: the command line checks it first."""

from __future__ import annotations

from dataclasses import dataclass

from safemed_eval import stats

MAX_SIGMA = 1000
MAX_DRAWS = 10**8
MAX_COPIES = 10**4


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """The options of Cohen et al. 2019, under their names.

    Args:
        sigma: standard deviation of the Gaussian noise, in [0, 1] pixel units on the canvas.
        n0: draws that select the class.
        n: further draws that bound its probability.
        alpha: probability that a certificate is false.
    """

    sigma: float
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= MAX_SIGMA:
            raise ValueError(f"sigma must be above 0 and at most {MAX_SIGMA}, got {self.sigma:g}")
        if not (1 <= self.n0 <= MAX_DRAWS and 1 <= self.n <= MAX_DRAWS):
            raise ValueError(f"n0 and n must lie between 1 and {MAX_DRAWS:,}, got n0={self.n0}, n={self.n}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha:g}")
        if self.ceiling is None:
            raise ValueError(
                f"n={self.n} unanimous votes cannot certify anything at alpha={self.alpha:g}; raise n or alpha"
            )

    @property
    def ceiling(self) -> float | None:
        """The largest radius that n unanimous votes certify."""
        return stats.radius_ceiling(self.sigma, self.n, self.alpha)


@dataclass(frozen=True, kw_only=True)
class Falsification:
    """How certificates are attacked; see `falsify`.

    Args:
        shares: of the certified radius, at which a search is made.
        steps: gradient steps of each search.
        m: noisy copies in each gradient.
        n: noisy copies that are counted where the search ends.
        alpha: probability that one such count refutes a true bound.
    """

    shares: tuple[float, ...] = (0.0, 0.5, 0.9, 0.99)
    steps: int = 20
    m: int = 16
    n: int = 1000
    alpha: float = 1e-6


@dataclass(frozen=True, kw_only=True)
class Voting:
    """A smoothed model at work: it answers by a vote over noisy copies, or abstains.

    Args:
        sigma: standard deviation of the Gaussian noise, in [0, 1] pixel units on the canvas.
        n: copies that vote.
        alpha: probability that an answer is given which is not that of the smoothed model.
        m: copies over which an attack averages its gradient, at each step.
    """

    sigma: float
    n: int = 100
    alpha: float = 0.001
    m: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= MAX_SIGMA:
            raise ValueError(f"sigma must be above 0 and at most {MAX_SIGMA}, got {self.sigma:g}")
        if not (1 <= self.n <= MAX_DRAWS and 1 <= self.m <= MAX_COPIES):
            raise ValueError(f"n must lie between 1 and {MAX_DRAWS:,}, m between 1 and {MAX_COPIES:,}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha:g}")
        if stats.binomial_test(self.n, self.n) > self.alpha:
            raise ValueError(f"n={self.n} unanimous votes decide nothing at alpha={self.alpha:g}; raise n or alpha")
