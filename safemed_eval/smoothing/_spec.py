"""What is asked of a certificate. No torch here: the command line checks it first."""

from __future__ import annotations

from dataclasses import dataclass

from safemed_eval import stats

MAX_SIGMA = 1000
MAX_DRAWS = 10**8


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
