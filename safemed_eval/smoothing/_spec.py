"""What is asked of a certificate. No torch here: the command line checks it first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import ndtr

from safemed_eval import stats
from safemed_eval.scale import refuse_sigma
from safemed_eval.smoothing._evidence import Evidence, evidence_of

MAX_DRAWS = 10**8
MAX_COPIES = 10**4
MAX_RADIUS = 8
"""In sigmas; beyond it the probability that would have to be shown rounds to 1."""
FIXED, SEQUENTIAL = "fixed", "sequential"
"""How noisy copies are drawn: a number that is set in advance, or until the radii that were asked are decided."""


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """The options of Cohen et al. 2019, under their names.

    Args:
        sigma: standard deviation of the Gaussian noise, in [0, 1] pixel units on the canvas.
        n0: draws that select the class.
        n: further draws that bound its probability.
        alpha: probability that a certificate is false.
    """

    sampling: ClassVar = FIXED

    sigma: float
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        _check_budget(self.sigma, self.alpha)
        if not (1 <= self.n0 <= MAX_DRAWS and 1 <= self.n <= MAX_DRAWS):
            raise ValueError(f"n0 and n must lie between 1 and {MAX_DRAWS:,}, got n0={self.n0}, n={self.n}")
        if self.ceiling is None:
            raise ValueError(
                f"n={self.n} unanimous votes cannot certify anything at alpha={self.alpha:g}; raise n or alpha"
            )

    @property
    def ceiling(self) -> float | None:
        """The largest radius that n unanimous votes certify."""
        return stats.radius_ceiling(self.sigma, self.n, self.alpha)


@dataclass(frozen=True, kw_only=True)
class Sequential:
    """Certificates of the gold answer at some radii, from as many draws as it takes to decide them.

    Args:
        sigma: standard deviation of the Gaussian noise, in [0, 1] pixel units on the canvas.
        radii: by name, in the same unit; at least one above 0.
        n: most draws.
        alpha: probability that a certificate is false, at whatever radius.
    """

    sampling: ClassVar = SEQUENTIAL

    sigma: float
    radii: Mapping[str, float]
    n: int = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        _check_budget(self.sigma, self.alpha)
        if not 1 <= self.n <= MAX_DRAWS:
            raise ValueError(f"n must lie between 1 and {MAX_DRAWS:,}, got n={self.n}")
        for name, radius in self.radii.items():
            if not 0 <= radius <= MAX_RADIUS * self.sigma:
                raise ValueError(f"radius {name} must lie between 0 and {MAX_RADIUS} sigma")
        if not any(self.radii.values()):
            raise ValueError("sequential certificates need a radius above 0")
        if not self.ceiling:
            raise ValueError(
                f"n={self.n} unanimous votes certify none of the radii {', '.join(self.radii)} above 0 at "
                f"alpha={self.alpha:g}; raise n or alpha, or ask for smaller ones"
            )

    @property
    def ladder(self) -> dict[str, float]:
        """The radii from small to large."""
        return dict(sorted(self.radii.items(), key=lambda pair: pair[1]))

    @property
    def ceiling(self) -> float | None:
        """The largest of the radii that n unanimous votes certify."""
        unanimous, found = np.array([self.n]), None
        for radius, evidence in zip(self.ladder.values(), self.evidence(), strict=True):
            if evidence.log_e(unanimous, unanimous)[0] < -math.log(self.alpha):
                break
            found = radius
        return found

    def evidence(self) -> list[Evidence]:
        """Against p <= Phi(radius / sigma), for the radii from small to large."""
        return [evidence_of(float(ndtr(radius / self.sigma)), self.n, self.alpha) for radius in self.ladder.values()]

    def asked(self, radius: float) -> float | None:
        """The radius as it was asked for, up to rounding; None where it was not. Nothing is known in between."""
        return next((one for one in self.radii.values() if math.isclose(one, radius, rel_tol=1e-9)), None)


Budget = Smoothing | Sequential


def budget_of(spec: Mapping[str, Any]) -> Budget:
    """What the spec of a certify run has asked for.

    Raises:
        TypeError, ValueError: it is none.
    """
    kinds: dict[Any, type[Budget]] = {kind.sampling: kind for kind in (Smoothing, Sequential)}
    if spec.get("sampling") not in kinds:
        raise ValueError(f"sampling cannot be {spec.get('sampling')!r:.60}")
    return kinds[spec["sampling"]](**spec["smoothing"])


def _check_budget(sigma: float, alpha: float) -> None:
    refuse_sigma(sigma)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha:g}")


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

    def __post_init__(self) -> None:
        if not (all(0 <= share < 1 for share in self.shares) and self.steps >= 1 and 0 < self.alpha < 1):
            raise ValueError("shares must lie in [0, 1), steps be at least 1, and alpha lie between 0 and 1")
        if not (1 <= self.n <= MAX_DRAWS and 1 <= self.m <= MAX_COPIES):
            raise ValueError(f"n must lie between 1 and {MAX_DRAWS:,}, m between 1 and {MAX_COPIES:,}")


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
        _check_budget(self.sigma, self.alpha)
        if not (1 <= self.n <= MAX_DRAWS and 1 <= self.m <= MAX_COPIES):
            raise ValueError(f"n must lie between 1 and {MAX_DRAWS:,}, m between 1 and {MAX_COPIES:,}")
        if stats.binomial_test(self.n, self.n) > self.alpha:
            raise ValueError(f"n={self.n} unanimous votes decide nothing at alpha={self.alpha:g}; raise n or alpha")
