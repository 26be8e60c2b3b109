"""Toys whose smoothed radius is known in closed form under each kind of noise, to hold certificates against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from safemed_eval.core import Question
from safemed_eval.models.waist import Waist
from safemed_eval.smoothing import Noise
from safemed_eval.smoothing.noise import parse

QUESTION = Question(text="Which?", options=("A", "B"))
SIGMA = {"gaussian": 0.25, "float32": 0.25, "uniform": 0.25, "gamma": 0.5, "brightness": 0.2, "contrast": 0.5}
"""The kinds whose radius follows from the probability of a class, each with a sigma that suits it."""


class Above:
    """Answers A where the first value of the canvas lies above a threshold, and B elsewhere."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        margin = 20 * (canvas.double().flatten(1)[:, 0] - self.threshold)
        return torch.stack([margin, -margin], dim=1)


class LowBits:
    """Answers A where a value close to 0 has bits below 2^-31, which sums of float32 with 2/255 cannot have.

    Under noise in float32 the smoothed answer at black is A nearly always, and two grey levels away it never is.
    """

    def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
        values = canvas.flatten(1).double()
        fine = (values.abs() < 2**-9) & (values * 2**31 != (values * 2**31).round())
        return torch.where(fine.any(1), 0, 1)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A model, a canvas that is answered A with a known probability under the noise, and A's true radius there.

    Changing the first value alone, or the parameter, against A is the worst change, so that the bound of the noise is
    tight: A has a probability of one half at exactly this radius.
    """

    noise: Noise
    model: Waist
    canvas: torch.Tensor
    radius: float


def truth(name: str, p: float, side: int = 1) -> Truth:
    """Make the toy that answers A with probability p.

    Args:
        side: height and width of the canvas.
    """
    noise = parse(name, SIGMA[name])
    radius = noise.radius(p)
    assert radius is not None
    grey = 0.7
    thresholds = {
        "gamma": grey ** math.exp(radius),  # grey^exp(g) is above it for g < radius
        "contrast": 0.5 + (grey - 0.5) * math.exp(-radius),
    }
    model = Waist(Above(thresholds.get(name, grey - radius)), torch.device("cpu"))
    return Truth(noise=noise, model=model, canvas=torch.full((3, side, side), grey), radius=radius)
