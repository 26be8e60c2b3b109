"""contrast: noise on the contrast about a grey (contrast:grey=0.5), and a radius in |ln contrast|."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safemed_eval.smoothing.noise._parameter import Parameter, between, refuse_log_sigma

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Contrast(Parameter):
    """x becomes grey + (x - grey) exp(k), with k normal; not clipped to [0, 1].

    A radius r says: no contrast between exp(-r) and exp(r) turns the answer. About the middle grey it is a window of
    exp(-k) times the width with the same centre, as far as it shows: what such a window would clip is not clipped here.

    Args:
        sigma: standard deviation of k, the logarithm of the contrast.
        grey: the value in [0, 1] that stays as it is.
    """

    grey: float = 0.5

    name = "contrast"
    randomness = "ln contrast"
    radius_name = "contrast radius"
    unit = "|ln contrast|"
    factor = "contrast"

    def __post_init__(self) -> None:
        refuse_log_sigma(self.sigma, self.randomness)
        if not 0 <= self.grey <= 1:
            raise ValueError(f"grey must lie between 0 and 1, got {self.grey:g}")

    def apply(self, canvas: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return self.grey + (canvas - self.grey) * drawn.exp()

    def words(self, radius: float) -> str:
        window = f": a window width between {between(radius)} times its own" if self.grey == 0.5 else ""
        return f"any contrast between {between(radius)}{window}"


NOISE = Contrast
