"""uniform: uniform noise on every pixel, and an L1 radius."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safemed_eval.scale import refuse_sigma
from safemed_eval.smoothing.evidence import Floats
from safemed_eval.smoothing.noise._base import Noise, View
from safemed_eval.smoothing.noise._lattice import SCALE, on_lattice, random_steps, toward
from safemed_eval.smoothing.two_class import Apart

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Uniform(Noise):
    """Independent uniform noise on every pixel and channel, of whole lattice steps between -m and m.

    m = floor(sqrt(3) sigma * 4096 * 255), so that sigma is the standard deviation. Noise around x and around x' share
    all but a part prod(1 - |x_i - x'_i| / w) of their mass, w = (2 m + 1) steps, and 1 minus this is ||x - x'||_1 / w
    at most. A class with probability p keeps p - ||x - x'||_1 / w, and so is the answer within an L1 radius of
    w (p - 1/2). This is exact between canvases on the lattice, and in float32; see `gaussian`.

    Args:
        sigma: standard deviation in [0, 1] pixel units.
    Source:
        Yang et al. 2020 (arXiv:2002.08118), Table 1, with lambda = sqrt(3) sigma; Lee et al. 2019 (arXiv:1906.04948)
        for the discrete case.
    """

    sigma: float

    name = "uniform"
    randomness = "the noise in [0, 1] pixel units"
    measure = "l1"
    radius_name = "L1 radius"
    unit = "[0, 1] pixel units"

    def __post_init__(self) -> None:
        refuse_sigma(self.sigma)

    @property
    def _reach(self) -> int:
        """m, in lattice steps."""
        return math.floor(math.sqrt(3) * self.sigma * SCALE)

    @property
    def _width(self) -> float:
        """w, in [0, 1] pixel units."""
        return (2 * self._reach + 1) / SCALE

    def slack(self, view: View | None) -> float:
        """Bound of the total variation distance from exactly uniform steps.

        2^53 equally likely numbers in [0, 1) are divided among 2 m + 1 steps, which therefore get at most one too many
        or too few each: a distance of (2 m + 1) / 2^53 per value at most.
        """
        return 0.0 if view is None else view.values * (2 * self._reach + 1) * 2**-53

    def draw(self, canvas: torch.Tensor, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw whole numbers of lattice steps: (n, 3, H, W) float32."""
        m = self._reach
        return random_steps(canvas, n, rng, "uniform", lambda shares: shares.mul_(2 * m + 1).floor_().sub_(m))

    def apply(self, canvas: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return on_lattice(canvas, drawn)

    def snap(self, canvas: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        return toward(canvas, moved)

    def radius(self, p_lower: float, view: View | None = None) -> float | None:
        return self._width * (p_lower - 0.5) if p_lower > 0.5 else None

    def probability_needed(self, radius: float, view: View | None = None) -> float:
        return 0.5 + radius / self._width

    def null(self, p0: Floats) -> Apart:
        return Apart(p0)

    def probability_left(self, p_lower: float, radius: float, distance: float, view: View | None = None) -> float:
        left = max(0.0, p_lower - distance / self._width)
        return max(left, 0.5) if distance < radius else left


NOISE = Uniform
