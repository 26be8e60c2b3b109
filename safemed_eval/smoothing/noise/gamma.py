"""gamma: noise on a display's gamma, and a radius in |ln gamma|."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safemed_eval.smoothing.noise._parameter import Parameter, between, refuse_log_sigma

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Gamma(Parameter):
    """x becomes x^exp(g), with g normal: nothing leaves [0, 1], so nothing is clipped.

    A radius r says: no gamma between exp(-r) and exp(r) turns the answer. Gammas multiply, so their logarithms add up:
    (x^exp(s))^exp(t) = x^exp(s + t).

    Args:
        sigma: standard deviation of ln gamma: at 0.35, two thirds of the copies have a gamma between 0.70 and 1.42.
    """

    name = "gamma"
    randomness = "ln gamma"
    radius_name = "gamma radius"
    unit = "|ln gamma|"
    factor = "gamma"

    def __post_init__(self) -> None:
        refuse_log_sigma(self.sigma, self.randomness)

    def apply(self, canvas: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return canvas.pow(drawn.exp())

    def words(self, radius: float) -> str:
        return f"any gamma between {between(radius)}"


NOISE = Gamma
