"""gaussian: normal noise on every pixel, and an L2 radius that holds in floating point, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safemed_eval.scale import refuse_sigma
from safemed_eval.smoothing.noise._base import View
from safemed_eval.smoothing.noise._lattice import SCALE, on_lattice, random_steps, toward
from safemed_eval.smoothing.noise._normal import Normal

if TYPE_CHECKING:
    import torch

WIDEST = 1.5
"""Largest sigma: beyond it image plus noise may exceed what float32 holds exactly."""
_ERROR = 32 * 2**-53
"""Bound of E|N - N*| for a drawn float64 normal N and its exact counterpart N*; see `Gaussian.slack`."""


@dataclass(frozen=True)
class Gaussian(Normal):
    """Independent normal noise on every pixel and channel, rounded to 1/4096 grey level.

    Noise in float32 that is added to k/255 leaks the image: the sum is rounded, and which low bits it can have depends
    on k. A model that reads them behaves differently at the image and one grey level away, and a certificate says that
    it cannot. So the noise is drawn here in lattice steps of 1/4096 grey level,

        z = round(4096 * 255 * sigma * N), N standard normal in float64

    and added to the canvas's number of steps: whole numbers below 2^24, whose sum is exact in float32. Rounding
    commutes with whole shifts: for a canvas x on the lattice, x + round(s) = round(x + s). So each copy is a function
    of x plus *exact* normal noise, and everything after it, float arithmetic included, is one more fixed function.
    The certificate holds between all canvases on the lattice, every 8-bit file among them.

    `slack` bounds what is left, that N itself has 53 bits.

    Args:
        sigma: standard deviation in [0, 1] pixel units.
    Source:
        Cohen et al. 2019 (arXiv:1902.02918). The leak: Voracek and Hein 2023, "Sound randomized smoothing in
        floating-point arithmetics" (arXiv:2207.07209), who also round; the lattice and the bound are ours.
    """

    name = "gaussian"
    randomness = "the noise in [0, 1] pixel units"
    measure = "l2"
    radius_name = "L2 radius"
    unit = "[0, 1] pixel units"

    def __post_init__(self) -> None:
        refuse_sigma(self.sigma)
        if self.sigma > WIDEST:
            raise ValueError(
                f"sigma={self.sigma:g} is above {WIDEST:g}, beyond which this noise is not exact in float32; "
                "--noise float32 takes more"
            )

    def slack(self, view: View | None) -> float:
        """Bound of the total variation distance between rounded noise as drawn, and rounded exact normal noise.

        Let N* be exact, N what is drawn from the same uniform numbers, and S = 4096 * 255 * sigma. Rounding S N and
        S N* differs only where a rounding boundary lies between them, which has probability E|S N - S N*| at most, up
        to a factor 1 + 1e-6 for the density of S N*, which is nearly constant between boundaries. In units of 2^-53,

            Box-Muller (CUDA): 2 pi E|r sin| = 5.0 and 8.6 E|cos| = 5.5 for uniform numbers of 53 bits, and less than
                15 for the rounding of log, sqrt, sin, cos and their products;
            ziggurat (NumPy): 7.3 for positions of 52 bits in layers of width 3.66 at most, and less than 3 for rounding
                and for the comparisons at the layers' ends,

        so that 32 bounds E|N - N*| for both. Values are independent: their distances add up.

        Args:
            view: the canvas; None: that of a single value, for which the distance is nothing.
        """
        return 0.0 if view is None else view.values * _ERROR * SCALE * self.sigma

    def draw(self, canvas: torch.Tensor, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw whole numbers of lattice steps: (n, 3, H, W) float32."""
        std = SCALE * self.sigma
        return random_steps(canvas, n, rng, "normal", lambda numbers: numbers.mul_(std).round_())

    def apply(self, canvas: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return on_lattice(canvas, drawn)

    def snap(self, canvas: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        return toward(canvas, moved)


NOISE = Gaussian
