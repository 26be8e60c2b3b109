"""Options of certificates, of attacks on them, and of smoothed models. No torch here: the command line parses them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from safemed_eval import grammar, stats
from safemed_eval.core import DEFAULT_NOISE
from safemed_eval.errors import SpecError
from safemed_eval.smoothing.evidence import Evidence, Floats, evidence_of
from safemed_eval.smoothing.noise import FLOAT32, Noise, View, parse
from safemed_eval.smoothing.noise.patch import Patch
from safemed_eval.smoothing.two_class import Null, least_gold

MAX_DRAWS = 10**8
MAX_COPIES = 10**4
MAX_RADIUS = 8
"""Largest radius in sigmas; beyond it the probability that it needs rounds to 1."""
_SURE = 1 - 1e-9
"""Probability that MAX_DRAWS draws cannot show to be exceeded, at any alpha below 0.9: a radius that needs more is not
certified."""
FIXED, SEQUENTIAL, EXHAUSTIVE = "fixed", "sequential", "exhaustive"
"""Kinds of sampling: a number of noisy copies that is set in advance, as many as it takes to decide the radii, or every
copy there is."""


@dataclass(frozen=True, kw_only=True)
class _Noisy:
    """Options that name the noise.

    Args:
        noise: spec string of its kind; see `noise.parse`.
        sigma: its standard deviation, for noise on the pixels in [0, 1] pixel units on the canvas.
    """

    sigma: float
    noise: str = DEFAULT_NOISE

    @property
    def kind(self) -> Noise:
        kind = parse(self.noise, self.sigma)
        if not isinstance(kind, Noise):
            raise SpecError(f"--noise {self.noise}: is no random noise, which copies are drawn with")
        return kind

    def _check(self, alpha: float) -> None:
        try:
            _ = self.kind
        except SpecError as error:
            raise ValueError(str(error)) from None
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {alpha:g}")


@dataclass(frozen=True, kw_only=True)
class Smoothing(_Noisy):
    """The options of Cohen et al. 2019, under their names.

    Args:
        n0: draws that select the class.
        n: further draws that bound its probability.
        alpha: probability that a certificate is false.
    """

    sampling: ClassVar = FIXED

    n0: int = 100
    n: int = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        self._check(self.alpha)
        if not (1 <= self.n0 <= MAX_DRAWS and 1 <= self.n <= MAX_DRAWS):
            raise ValueError(f"n0 and n must lie between 1 and {MAX_DRAWS:,}, got n0={self.n0}, n={self.n}")
        if self.ceiling is None:
            raise ValueError(
                f"n={self.n} unanimous votes cannot certify anything at alpha={self.alpha:g}; raise n or alpha"
            )

    @property
    def ceiling(self) -> float | None:
        """The largest radius that n unanimous votes certify, on a canvas of whatever size."""
        return self.ceiling_on(None)

    def ceiling_on(self, view: View | None) -> float | None:
        """The largest radius that n unanimous votes certify on this canvas."""
        lower = stats.clopper_pearson_lower(self.n, self.n, self.alpha) - self.kind.slack(view)
        return self.kind.radius(max(0.0, lower), view)

    def at(self, alpha: float) -> Smoothing:
        """The same budget at another alpha; raises ValueError where nothing can be certified at it."""
        return replace(self, alpha=alpha)

    def points(self, radii: str | None, usual: str = grammar.RADII) -> dict[str, float]:
        """The radii at which certified accuracy is shown, by name, from text; None: the usual ones."""
        return grammar.radii(radii or usual, self.sigma)


@dataclass(frozen=True, kw_only=True)
class Sequential(_Noisy):
    """Certificates of the gold answer at some radii, from as many draws as it takes to decide them.

    Args:
        radii: by name, in the same unit; at least one above 0.
        n: largest number of draws.
        alpha: probability that a certificate is false, at whatever radius.
        test: of gold against each other class by itself, where the noise has such a one; None: against all others
            together, as versions did that knew no other.
    """

    sampling: ClassVar = SEQUENTIAL

    radii: Mapping[str, float]
    n: int = 1000
    alpha: float = 0.001
    test: Literal["two classes"] | None = "two classes"

    def __post_init__(self) -> None:
        self._check(self.alpha)
        if self.test not in ("two classes", None):
            raise ValueError(f"test cannot be {self.test!r:.60}")
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
        """The largest of the radii that n unanimous votes certify, on a canvas of whatever size."""
        return self.ceiling_on(None)

    def ceiling_on(self, view: View | None) -> float | None:
        """The largest of the radii that n unanimous votes certify on this canvas, by the one-class evidence alone."""
        unanimous, largest = np.array([self.n]), None
        for radius, evidence in zip(self.ladder.values(), self.evidence(view), strict=True):
            if evidence.log_e(unanimous, unanimous, self.nothing)[0] < -math.log(self.alpha):
                break
            largest = radius
        return largest

    def evidence(self, view: View | None = None) -> list[Evidence]:
        """The evidence that each radius needs on this canvas, from small to large: against p <= p0."""
        noise = self.kind
        needed = (noise.probability_needed(radius, view) + noise.slack(view) for radius in self.ladder.values())
        return [evidence_of(min(p0, _SURE), self.n, self.alpha) for p0 in needed]

    def null(self, p0: Floats) -> Null | None:
        """The two-class nulls of these p0, or None: the test is of one class."""
        return self.kind.null(p0) if self.test else None

    @property
    def nothing(self) -> Floats | None:
        """Two-class evidence that says nothing, beside which the one-class evidence has to reach 1 / alpha alone."""
        return np.array(-np.inf) if two_classes(self) else None

    def least_gold(self, p0: float, classes: int) -> float:
        """Lower bound of the probability of gold that follows if it is ahead of all others at a radius with this p0."""
        null = self.null(np.array(p0))
        return p0 if null is None else min(p0, float(least_gold(null, classes - 1)))

    def asked(self, radius: float) -> float | None:
        """The radius of the spec that equals this one up to rounding; None where there is none.

        A sequential certificate says nothing about radii in between.
        """
        return next((asked for asked in self.radii.values() if math.isclose(asked, radius, rel_tol=1e-9)), None)

    def at(self, alpha: float) -> Sequential:
        """See `Smoothing.at`."""
        return replace(self, alpha=alpha)

    def points(self, radii: str | None, usual: str = grammar.RADII) -> dict[str, float]:
        """See `Smoothing.points`; the usual ones are those that were asked for."""
        return self.ladder if radii is None else grammar.radii(radii, self.sigma)


@dataclass(frozen=True, kw_only=True)
class Exhaustive:
    """Certificates from every ablated copy there is: nothing is drawn, and none is false by chance.

    Args:
        noise: spec string of `noise.patch`.
    """

    sampling: ClassVar = EXHAUSTIVE
    sigma: ClassVar[None] = None
    alpha: ClassVar[float] = 0.0

    noise: str

    def __post_init__(self) -> None:
        _ = self.kind

    @property
    def kind(self) -> Patch:
        kind = parse(self.noise, None)
        if not isinstance(kind, Patch):
            raise ValueError(f"noise={self.noise} has more copies than can be counted")
        return kind

    def draws(self, width: int) -> int:
        """The number of copies of a canvas of this width."""
        return len(self.kind.starts(width))

    def ceiling_on(self, view: View | None) -> int | None:
        """The largest patch that unanimous votes certify on this canvas; None: the canvas is not known."""
        return None if view is None else self.kind.largest(self.draws(view.width), view)

    def refuse_canvas(self, size: tuple[int, int] | None) -> None:
        """Raise ValueError where nothing can be certified on a canvas of this height and width; None: on any."""
        if size is None:
            raise ValueError("needs one canvas for all images, whose bands it counts; name a --canvas")
        view, kind = View(height=size[0], width=size[1]), self.kind
        if not self.ceiling_on(view):
            raise ValueError(
                f"a patch of one pixel meets {kind.met(1, view.width)} of the {self.draws(view.width)} bands on a "
                f"canvas {view.width} wide, which certifies nothing; make the band narrower"
            )

    def at(self, alpha: float) -> Exhaustive:
        """The same budget: there is no alpha."""
        return self

    def points(self, radii: str | None, usual: str = grammar.RADII) -> dict[str, float]:
        """The sizes in pixels at which certified accuracy is shown, from text; the usual ones lie around `Patch.size`.

        Raises:
            SpecError: they cannot be read, or count in sigma.
        """
        if radii not in (None, usual):
            return grammar.radii(radii, None)
        size = self.kind.size
        return {str(side): float(side) for side in sorted({0, size // 2, size, 2 * size})}


Budget = Smoothing | Sequential | Exhaustive


def two_classes(budget: Budget) -> bool:
    """Whether the certified class is tested against each other class by itself."""
    return isinstance(budget, Sequential) and budget.null(np.array(0.5)) is not None


def budget_of(spec: Mapping[str, Any]) -> Budget:
    """Read the budget from the spec of a certify run.

    Raises:
        TypeError, ValueError: the spec holds no valid budget.
    """
    kinds: dict[object, type[Budget]] = {kind.sampling: kind for kind in (Smoothing, Sequential, Exhaustive)}
    if spec.get("sampling") not in kinds:
        raise ValueError(f"sampling cannot be {spec.get('sampling')!r:.60}")
    older = {"noise": FLOAT32} | ({"test": None} if spec["sampling"] == SEQUENTIAL else {})
    return kinds[spec["sampling"]](**{**older, **spec["smoothing"]})


@dataclass(frozen=True, kw_only=True)
class Falsification:
    """Options of the attack on certificates; see `falsify`.

    Args:
        shares: shares of the certified radius at which a search is made.
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
class PatchSearch:
    """Options of the attack on certificates against patches; see `runs.work.falsify_patch`.

    Args:
        positions: patches of the certified size that are tried on each item, at places drawn at random.
        steps: gradient steps for each of them.
    """

    positions: int = 4
    steps: int = 20

    def __post_init__(self) -> None:
        if not (1 <= self.positions <= MAX_COPIES and 1 <= self.steps <= MAX_COPIES):
            raise ValueError(f"positions and steps must lie between 1 and {MAX_COPIES:,}")


@dataclass(frozen=True, kw_only=True)
class DonorVote:
    """Options of the smoothed model's answer to a question about another patient's image; see `read_prediction`.

    Args:
        n: noisy copies that vote.
        alpha: probability of an answer that is not the smoothed model's.
    """

    n: int = 100
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not (1 <= self.n <= MAX_DRAWS and 0 < self.alpha < 1):
            raise ValueError(f"n must lie between 1 and {MAX_DRAWS:,}, alpha between 0 and 1")
        if stats.binomial_test(self.n, self.n) > self.alpha:
            raise ValueError(f"n={self.n} unanimous votes decide nothing at alpha={self.alpha:g}; raise n or alpha")


@dataclass(frozen=True, kw_only=True)
class Voting(_Noisy):
    """Options of a smoothed model, which answers by a vote over noisy copies, or abstains.

    Args:
        n: copies that vote.
        alpha: probability of an answer that is not the smoothed model's.
        m: copies over which each gradient of an attack is averaged.
    """

    n: int = 100
    alpha: float = 0.001
    m: int = 8

    def __post_init__(self) -> None:
        self._check(self.alpha)
        if self.kind.measure == "parameter":
            raise ValueError(f"noise={self.noise} is not noise on the pixels, as attacks on a smoothed model need it")
        if not (1 <= self.n <= MAX_DRAWS and 1 <= self.m <= MAX_COPIES):
            raise ValueError(f"n must lie between 1 and {MAX_DRAWS:,}, m between 1 and {MAX_COPIES:,}")
        if stats.binomial_test(self.n, self.n) > self.alpha:
            raise ValueError(f"n={self.n} unanimous votes decide nothing at alpha={self.alpha:g}; raise n or alpha")
