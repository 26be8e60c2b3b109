"""A linear classifier whose adversarial margins and smoothed radii are known in closed form.

The yardstick for every attack and certificate, and a model for the docs that needs no checkpoint:

    safemed-eval certify --model python:safemed_eval.models.toy:brightness --data ... --sigma 0.25
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from safemed_eval.core import Question
from safemed_eval.threat import Threat

_NEVER = -1e4


class Linear:
    """Answers A where w . x + b > 0 and B elsewhere; further options are never answered.

    Args:
        weight: (3, H, W).
        bias: added to the product of weight and canvas.
    """

    def __init__(self, weight: torch.Tensor, bias: float = 0.0) -> None:
        self.weight = weight
        self.bias = bias

    def margin(self, canvas: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B,) float64 w . x + b, which is the log-odds of A against B."""
        product = canvas.double().flatten(1) @ self.weight.double().flatten()
        return product + self.bias

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """(B, 3, H, W) -> (B, K): half the margin for A, minus half of it for B."""
        half = self.margin(canvas) / 2
        rest = max(len(q.options) for q in questions) - 2
        return torch.stack([half, -half, *[torch.full_like(half, _NEVER)] * rest], dim=1)

    def radius(self, canvas: torch.Tensor) -> torch.Tensor:
        """(B,) the true L2 radius of the smoothed classifier at any sigma: |margin| / ||w||_2.

        Under noise the margin is normal with mean w . x + b and standard deviation sigma ||w||_2, so p_A =
        Phi(|margin| / (sigma ||w||_2)), and sigma * ppf(p_A) is the distance to the plane.
        """
        distance: torch.Tensor = self.margin(canvas).abs() / self.weight.double().norm()
        return distance

    def best_drop(self, threat: Threat) -> float:
        """The reduction of the margin by an optimal attack: eps ||w||_1 for L-infinity, eps ||w||_2 for L2.

        Holds for images so far from 0 and 1 that the optimal change does not reach these bounds.
        """
        return threat.eps * float(self.weight.norm(p=1 if threat.norm == "linf" else 2))


class Brightness:
    """Answers A where the image is brighter than mid-grey on average; a Linear for every canvas size."""

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """(B, 3, H, W) -> (B, K)."""
        weight = torch.full(canvas.shape[1:], 20 / canvas[0].numel(), device=canvas.device)
        return Linear(weight, bias=-10.0).scores(canvas, questions)


def brightness() -> Brightness:
    """The factory for `--model python:safemed_eval.models.toy:brightness`."""
    return Brightness()
