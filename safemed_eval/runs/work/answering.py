"""Answers of the model that is evaluated, and the records that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image

from safemed_eval.core import Answers, Item, item_fields
from safemed_eval.faults import ShrinkingBatch
from safemed_eval.models.waist import Waist
from safemed_eval.runs.record import EvaluateRecord
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Voting, read_prediction
from safemed_eval.smoothing.certify import count_votes

Fields = dict[str, Any]
"""Some fields of a record, by name."""


@dataclass(frozen=True, kw_only=True)
class Answering:
    """Answers questions about canvases, in batches that fit into memory.

    Args:
        memory: the batch size.
        voting: answer with the smoothed model.
    """

    model: Waist
    seed: int
    memory: ShrinkingBatch
    voting: Voting | None

    def answers(self, condition: str, canvas: torch.Tensor, items: Sequence[Item]) -> list[Fields]:
        """Answer all rows, with the smoothed model if it is asked, and return each row's fields for its record."""
        return self._votes(condition, canvas, items) if self.voting else self.without_noise(canvas, items)

    def without_noise(self, canvas: torch.Tensor, items: Sequence[Item]) -> list[Fields]:
        """Answer all rows with the model without noise."""
        size = self.memory.size
        parts = ((canvas[i : i + size], items[i : i + size]) for i in range(0, len(items), size))
        answers = (self.model.answer(rows, [item.question for item in asked]) for rows, asked in parts)
        return [row for part in answers for row in fields_of(part)]

    def _votes(self, condition: str, canvas: torch.Tensor, items: Sequence[Item]) -> list[Fields]:
        """Answer all rows with the smoothed model, by PREDICT, and return each row's fields for its record."""
        assert self.voting is not None
        rows = []
        for row, item in zip(canvas, items, strict=True):
            streams = partial(generator, self.model.device, self.seed, "predict", condition, item.id)
            votes = count_votes(
                self.model.vote(item.question), row, self.voting.kind, self.voting.n, self.memory.size, streams
            )
            rows.append({**asdict(read_prediction(votes, self.voting.alpha)), "votes": list(votes)})
        return rows

    def official(self, image: Image.Image, item: Item) -> Fields:
        """Answer about an image through the checkpoint's official path, and return the fields for its record."""
        return fields_of(self.model.official(image, item.question))[0]


def fields_of(answers: Answers) -> list[Fields]:
    """Split answers into the fields of each row's record."""
    unknown = [None] * len(answers.predictions)
    columns = zip(answers.predictions, answers.log_probs or unknown, answers.texts or unknown, strict=True)
    return [{"prediction": answer, "log_probs": scores, "text": text} for answer, scores, text in columns]


def record(item: Item, condition: str, *, error: str | None = None, **values: Any) -> EvaluateRecord:
    """Build the record of an item; unknown values are None."""
    whole = {"prediction": None} | item_fields(item) | values
    whole = {name: tuple(value) if isinstance(value, list) else value for name, value in whole.items()}
    right = error is None and whole["prediction"] == item.label
    return EvaluateRecord(attack=condition, **whole, error=error, correct=right)
