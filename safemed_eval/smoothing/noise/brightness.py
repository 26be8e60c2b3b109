"""brightness: noise on a grey value added to all pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safemed_eval.rounding import floor_to
from safemed_eval.scale import refuse_sigma
from safemed_eval.smoothing.noise._parameter import Parameter

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Brightness(Parameter):
    """x becomes x + b, with b normal and the same for all pixels; not clipped to [0, 1].

    A radius r says: no b between -r and r turns the answer. On a display with a window of width w, x + b is the same
    window with its centre moved by -b w, as far as it shows: what such a window would clip is not clipped here.

    Args:
        sigma: standard deviation of b, in [0, 1] pixel units.
    """

    name = "brightness"
    randomness = "the added grey value in [0, 1] pixel units"
    radius_name = "brightness radius"
    unit = "[0, 1] pixel units"

    def __post_init__(self) -> None:
        refuse_sigma(self.sigma)

    def apply(self, canvas: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return canvas + drawn

    def words(self, radius: float) -> str:
        share = 100 * floor_to(radius, 3)
        return (
            f"any brightness up to {share:g} % of white up or down: a window centre moved by {share:g} % of its width"
        )


NOISE = Brightness
