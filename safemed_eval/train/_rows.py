"""Conversion of items to TRL's training rows: a conversation, an image, and the fields that the adversary needs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from safemed_eval.codec import Json
from safemed_eval.core import Item
from safemed_eval.data import Canvas, canvas_of
from safemed_eval.models.answers import CLOSING_TAG
from safemed_eval.models.checkpoints.processor import picture
from safemed_eval.models.checkpoints.prompts import Template, answers_first, opens_answer, thinks

_PIXELS_KEPT = 10**8
"""Pixels of images that are kept, with three bytes each."""

Row = Json
"""A training row: prompt and completion (one message each), image (PIL, or with added noise a float tensor on the scale
[0, 255]), and id, question and label of the item."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Makes the rows of items on demand; images are drawn or decoded only then, and the latest are kept."""

    items: Sequence[Item]
    canvas: Canvas
    template: Template
    _kept: OrderedDict[tuple[Path, str], Image.Image] = field(default_factory=OrderedDict, init=False, repr=False)

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        """Return the columns of some rows, {"index": [i, j]}, as `datasets` expects of a transform."""
        rows = [self.row(self.items[index]) for index in batch["index"]]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def _image(self, item: Item) -> Image.Image:
        key, kept = (item.root, item.image), self._kept
        if key not in kept:
            kept[key] = picture(canvas_of(item, self.canvas))
            pixels = kept[key].width * kept[key].height
            while len(kept) > max(1, _PIXELS_KEPT // pixels):
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]

    def row(self, item: Item) -> Row:
        return {
            "prompt": [{"role": "user", "content": self.template.wording(item.question)}],
            "completion": [{"role": "assistant", "content": completion(item, self.template)}],
            "image": self._image(item),
            "id": item.id,
            "question": item.question,
            "label": item.label,
        }


def completion(item: Item, template: Template) -> str:
    """Return the target of supervised fine-tuning: the gold letter after the template's cue.

    Data have no rationales. If the template asks for one, the gold option's text takes its place: this teaches the
    format, but no reasoning.
    """
    letter, option = item.question.letters[item.label], item.question.options[item.label]
    answer = f"{template.cue} {letter}" + (f" {CLOSING_TAG}" if opens_answer(template) else "")
    if not thinks(template):
        return answer
    thought = f"<think> {option} </think>"
    return f"{answer}{thought}" if answers_first(template) else f"{thought}{answer}"


def to_canvas(image: Image.Image | torch.Tensor) -> torch.Tensor:
    """Convert a row's image to its canvas: (3, H, W) float32 in [0, 1] units."""
    if isinstance(image, torch.Tensor):
        return image / 255
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1).float() / 255
