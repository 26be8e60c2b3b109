"""Small models, questions and canvases to attack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from safemed_eval import attacks
from safemed_eval.core import Question
from safemed_eval.models.toy import Linear
from safemed_eval.models.waist import Waist
from safemed_eval.runs.work.shown import Shown
from safemed_eval.seeds import generator
from safemed_eval.smoothing.certify import view_of

AB = Question(text="Which?", options=("A", "B"))
ABCD = Question(text="Which?", options=("A", "B", "C", "D"))
SHAPE = (3, 8, 9)


class Net:
    """A small nonlinear network with K outputs, seeded."""

    def __init__(self, options: int = 4, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.module = torch.nn.Sequential(
                torch.nn.Flatten(),
                torch.nn.Linear(int(np.prod(SHAPE)), 32),
                torch.nn.Tanh(),
                torch.nn.Linear(32, options),
            ).requires_grad_(False)

    def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
        return 3 * self.module(canvas - 0.5)


class Writes:
    """Writes the letter that scores highest; a text is as likely as its letter."""

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        rows = zip(self.scores(canvas, questions), questions, strict=True)  # type: ignore[attr-defined]
        return [q.letters[int(row[: len(q.options)].argmax())] for row, q in rows]

    def text_log_probs(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        said = torch.tensor([q.letters.index(text.strip()) for text, q in zip(texts, questions, strict=True)])
        return self.scores(canvas, questions).log_softmax(1).gather(1, said[:, None])[:, 0]  # type: ignore[attr-defined]


class WritingNet(Writes, Net):
    """A Net that answers in writing."""


class WritingLinear(Writes, Linear):
    """A Linear that answers in writing."""


def middle_canvases(rows: int = 6) -> torch.Tensor:
    """Away from 0 and 1, so that no small attack meets the box."""
    return 0.3 + 0.4 * torch.rand((rows, *SHAPE), generator=torch.Generator().manual_seed(1))


def grid_canvases(rows: int = 6) -> torch.Tensor:
    return (torch.rand((rows, *SHAPE), generator=torch.Generator().manual_seed(2)) * 255).round() / 255


def generators(rows: int = 6, key: str = "") -> list[torch.Generator]:
    return [generator("cpu", 0, key, row) for row in range(rows)]


def run(
    spec: str, model: object, x: torch.Tensor, labels: torch.Tensor, question: Question = ABCD, **kw: bool
) -> attacks.Attacked:
    questions = [question] * len(x)
    classify = Waist(model, torch.device("cpu")).classify(questions)
    rngs, modalities = generators(len(x)), ["Microscopy"] * len(x)
    return attacks.parse(spec)(classify, x, labels, rngs, questions=questions, modalities=modalities, **kw)


def linear(kind: type[Linear] = Linear) -> Linear:
    return kind(torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)), bias=0.1)


def shown(canvas: torch.Tensor) -> Shown:
    """A canvas as `certify` shows it, with certificates about itself."""
    return Shown(canvas=canvas, view=view_of(canvas))
