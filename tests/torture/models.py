"""Models for `--model python:torture.models:NAME`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from safemed_eval.core import Question


class Quarters:
    """A small nonlinear model over the means of image quarters: it errs, falls to attacks, and is unsure under noise.

    Args:
        seconds: how long each forward takes, at least.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        time.sleep(self._seconds)
        parts = torch.nn.functional.adaptive_avg_pool2d(canvas, 2).flatten(1) - 0.5
        weight = torch.randn(parts.shape[1], 3, generator=torch.Generator().manual_seed(0))
        return torch.tanh(20 * parts @ weight)


class Held(Quarters):
    """Stop at the question that ends as a file `hold` in the working folder says, which is renamed `held` then.

    Go on when that is gone.
    """

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        hold, held = Path("hold"), Path("held")
        if hold.exists() and any(question.text.endswith(hold.read_text()) for question in questions):
            hold.rename(held)
            while held.exists():
                time.sleep(0.01)
        return super().scores(canvas, questions)


def slow() -> Quarters:
    return Held(0.04)
