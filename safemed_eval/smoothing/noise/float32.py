"""float32: the same as other tools draw it, for comparison: rounding can make its certificates false."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safemed_eval.scale import refuse_sigma
from safemed_eval.smoothing.noise._normal import Normal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Float32(Normal):
    """Independent normal noise on every pixel and channel, as published code draws it, for comparison.

    Its certificates are for real numbers: in float32 the sum of image and noise is rounded, so that its low bits tell
    the image. A model that reads them can be certified falsely; see `gaussian`.

    Args:
        sigma: standard deviation in [0, 1] pixel units.
    Source:
        Cohen et al. 2019 (arXiv:1902.02918).
    """

    name = "float32"
    randomness = "the noise in [0, 1] pixel units"
    measure = "l2"
    radius_name = "L2 radius"
    unit = "[0, 1] pixel units"
    caveat = "are for real numbers: rounding in float32 can make one false"

    def __post_init__(self) -> None:
        refuse_sigma(self.sigma)

    def draw(self, canvas: torch.Tensor, n: int, rng: torch.Generator) -> torch.Tensor:
        return canvas.new_empty((n, *canvas.shape[-3:])).normal_(0, self.sigma, generator=rng)

    def apply(self, canvas: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return canvas + drawn


NOISE = Float32
