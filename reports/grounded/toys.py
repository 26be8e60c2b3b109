"""Two readers of phantom that learn nothing but counts: one of the text alone, one of the text and a single pixel.

PYTHONPATH=reports/grounded safemed-eval evaluate --model python:toys:text_only --data phantom --grounding
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

import safemed_eval as se
from safemed_eval.core import Question
from safemed_eval.data import Reader

TRAINED_ON = "phantom:split=train"
PLACE = (32, 32)
"""The pixel, row and column."""
LEVELS = 9
"""Grey levels, evenly spaced over [0, 1], between which the log-probabilities are interpolated."""


class Counts:
    """Gives each option the share of training questions that it answers: of those with the text, alike at one pixel.

    Args:
        levels: number of grey levels that the pixel's value is rounded to; 1: the pixel is ignored.
    """

    def __init__(self, levels: int) -> None:
        self.levels = levels
        self.counts: dict[tuple[str, str], torch.Tensor] = defaultdict(lambda: torch.full((levels,), 0.5))
        data = se.load_data(TRAINED_ON)
        for item, canvas in Reader(data.canvas).read(data.items):
            assert isinstance(canvas, torch.Tensor)
            near = self._place(canvas[None])[0].round().long()
            self.counts[item.question.text, item.question.options[item.label]][near] += 1

    def _place(self, canvas: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B,) grey level of the pixel, in steps between two levels."""
        return canvas[:, :, PLACE[0], PLACE[1]].mean(1) * (self.levels - 1)

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """(B, 3, H, W) -> (B, K)."""
        rows = [self.scores_at(place, question) for place, question in zip(self._place(canvas), questions, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1e4)

    def scores_at(self, place: torch.Tensor, question: Question) -> torch.Tensor:
        """(K,) log-probabilities, interpolated between the two nearest grey levels."""
        counts = torch.stack([self.counts[question.text, option] for option in question.options])
        known = (counts / counts.sum(0)).log()
        low = place.detach().floor().clamp(max=max(self.levels - 2, 0)).long()
        high = (low + 1).clamp(max=self.levels - 1)
        share = place - low
        return (1 - share) * known[:, low] + share * known[:, high]


class TextOnly(Counts):
    """Has a path without an image, too."""

    def scores_without_image(self, question: Question) -> torch.Tensor:
        """(K,)."""
        return self.scores_at(torch.zeros(()), question)


def text_only() -> TextOnly:
    """The factory for `--model python:toys:text_only`."""
    return TextOnly(1)


def one_pixel() -> Counts:
    """The factory for `--model python:toys:one_pixel`."""
    return Counts(LEVELS)
