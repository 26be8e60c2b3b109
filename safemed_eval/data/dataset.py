"""A data set in memory: items that can be used, items that cannot, and the canvas that belongs to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from safemed_eval.core import Item
from safemed_eval.data.canvas import DEFAULT_CANVAS, Canvas
from safemed_eval.data.images.paths import frame_of


@dataclass(frozen=True, kw_only=True)
class Bad:
    """An item that cannot be used, the reason, and its slices where they are known."""

    id: str
    reason: str
    modality: str | None = None
    question_type: str | None = None

    def __str__(self) -> str:
        return f"{self.id}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Items that can be used, items that cannot, and the canvas that belongs to this data."""

    items: tuple[Item, ...]
    bad: tuple[Bad, ...] = ()
    canvas: Canvas = DEFAULT_CANVAS
    notes: Mapping[str, int] = field(default_factory=dict)
    """Conversions on the way to 8-bit RGB and the number of images, e.g. {"16-bit greys scaled to 8 bits": 3}."""
    sampled: str | None = None
    """The sampling of the items, in words; None when all are taken."""

    @property
    def sha256(self) -> str:
        """Identity of what is asked: ids, questions, gold answers, slices and image bytes, in order."""
        digest = hashlib.sha256()
        for item in self.items:
            q = item.question
            row = (item.id, q.text, q.options, item.label, item.modality, item.question_type)
            frame = frame_of(item.image)
            image = item.image_sha256 if frame is None else f"{item.image_sha256}#{frame}"
            digest.update(json.dumps([*row, item.patient_id, image]).encode())
        return digest.hexdigest()


def listed(bad: Sequence[Bad], most: int) -> str:
    """List at most `most` bad items, a line each, and say what to do where their images are not found."""
    lines = [f"  {_on_one_line(str(item))}" for item in bad[:most]]
    if len(bad) > most:
        lines.append(f"  ... and {len(bad) - most} more (`safemed-eval data describe ... --json` lists all)")
    if any("image not found" in item.reason for item in bad):
        lines.append("  (--data-root names the folder that image paths are relative to)")
    return "\n".join(lines)


def _on_one_line(text: str) -> str:
    """Escape control characters, line ends included: a terminal must not obey what data say."""
    return "".join(c if c.isprintable() or c in "\u00a0\u3000" else repr(c)[1:-1] for c in text)
