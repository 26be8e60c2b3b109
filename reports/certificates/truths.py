"""Toys whose smoothed radius is known in closed form under each kind of noise, to hold certificates against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import ndtri

from safemed_eval.core import Question
from safemed_eval.data.images.resample import Resize
from safemed_eval.models.waist import Waist
from safemed_eval.smoothing import Noise, View
from safemed_eval.smoothing.noise import FileView, parse, rounded

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


class Along:
    """Answers A where the product of a weight and the canvas lies above a threshold."""

    def __init__(self, weight: torch.Tensor, threshold: float) -> None:
        self.weight, self.threshold = weight.double(), threshold

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        margin = 20 * (canvas.double().flatten(1) @ self.weight.flatten() - self.threshold)
        return torch.stack([margin, -margin], dim=1)


@dataclass(frozen=True, kw_only=True)
class FileTruth:
    """A model behind a resize, an image file, and the radius of its smoothed answer in the file's pixels."""

    model: Waist
    canvas: torch.Tensor
    view: View
    radius: float


def file_truth(p: float, before: int, after: int) -> FileTruth:
    """Make the toy that answers A with probability p on an image of `before` columns, resized to `after`.

    The model looks along the direction that the resize stretches most, so that ||R|| is reached: the radius in the file
    is that on the canvas divided by ||R||.
    """
    resize = Resize(before=(1, before), size=(1, after))
    rows = torch.stack(
        [resize(torch.eye(before, dtype=torch.float64)[i].expand(3, 1, -1))[0, 0] for i in range(before)]
    )
    stretched = torch.linalg.svd(rows.T)[0][:, 0]
    weight = torch.zeros(3, 1, after, dtype=torch.float64)
    weight[0, 0] = stretched
    canvas = rounded(resize(torch.full((3, 1, before), 0.5, dtype=torch.float64)))
    on_canvas = SIGMA["gaussian"] * float(ndtri(p))
    threshold = float(canvas.double().flatten() @ weight.flatten()) - on_canvas
    view = View(height=1, width=after, file=FileView(height=1, width=before, norm=resize.norm))
    norm = float(torch.linalg.matrix_norm(rows, 2))
    return FileTruth(
        model=Waist(Along(weight, threshold), torch.device("cpu")), canvas=canvas, view=view, radius=on_canvas / norm
    )


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
