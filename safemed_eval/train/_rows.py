"""From items to the rows that TRL trains on: a conversation, an image on its canvas, and what the adversary needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from safemed_eval.codec import Json
from safemed_eval.core import Item
from safemed_eval.data import Canvas, canvas_of
from safemed_eval.models.answers import CLOSING_TAG
from safemed_eval.models.checkpoints.processor import picture
from safemed_eval.models.checkpoints.prompts import Template, opens_answer, thinks

Row = Json
"""prompt and completion (one message each), image (PIL, or a float tensor in [0, 255] where noise was added), and of
the item: id, question, label."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Makes the rows of these items when they are asked for; images are drawn or decoded then."""

    items: Sequence[Item]
    canvas: Canvas
    template: Template

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        """{"index": [i, j]} -> the columns of these rows, as `datasets` wants a transform to return them."""
        rows = [self.row(self.items[index]) for index in batch["index"]]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def row(self, item: Item) -> Row:
        return {
            "prompt": [{"role": "user", "content": self.template.wording(item.question)}],
            "completion": [{"role": "assistant", "content": completion(item, self.template)}],
            "image": picture(canvas_of(item, self.canvas)),
            "id": item.id,
            "question": item.question,
            "label": item.label,
        }


def completion(item: Item, template: Template) -> str:
    """What supervised fine-tuning teaches: the gold letter after the template's cue.

    Data have no rationales. Where the template asks for one, the gold option's own text stands in: the form is
    learned, reasoning is not.
    """
    letter, option = item.question.letters[item.label], item.question.options[item.label]
    answer = f"{template.cue} {letter}" + (f" {CLOSING_TAG}" if opens_answer(template) else "")
    return f"<think> {option} </think>{answer}" if thinks(template) else answer


def to_canvas(image: Image.Image | torch.Tensor) -> torch.Tensor:
    """The pixels of a row's image again: (3, H, W) float32 in [0, 1] units."""
    if isinstance(image, torch.Tensor):
        return image / 255
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1).float() / 255
