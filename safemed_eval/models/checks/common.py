"""What all checks share: findings, a second question, and a model held in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from safemed_eval.core import Question
from safemed_eval.models.waist import Waist

IMAGE_MATTERS, REACHES = "the image matters", "gradient reaches the pixels"
"""Names of the checks that a model fails which does not look at its images."""
Status = Literal["pass", "warn", "fail", "n/a"]

OTHER = Question(text="Is there a visible abnormality in this image of the chest?", options=("Yes", "No"))


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    status: Status
    detail: str
    canvas: str | None = None
    """A canvas that the finding proposes, as `--canvas` takes it."""


def verdict_of(findings: Sequence[Finding]) -> Finding:
    """What all findings come to: whether the model can be attacked and certified, and on which canvas."""
    failed, doubtful = ([one.name for one in findings if one.status == status] for status in ("fail", "warn"))
    canvas = next((one.canvas for one in findings if one.canvas), None)
    if failed:
        return Finding("verdict", "fail", f"cannot be attacked and certified as it is: {', '.join(failed)}", canvas)
    asked = {one.name for one in findings}
    can = "can be attacked and certified" if REACHES in asked else "can be certified, and attacked without gradients"
    can += f", but read first: {', '.join(doubtful)}" if doubtful else ""
    size = f"; --canvas {canvas} suits it, and one canvas for all where checkpoints are compared" if canvas else ""
    return Finding("verdict", "warn" if doubtful else "pass", can + size, canvas)


@contextmanager
def in_full_precision(model: Waist) -> Iterator[Waist]:
    """The model computing in float32, where it does not do so anyway. Raises CheckpointError as `in_float32`."""
    checkpoint = model.offers.checkpoint
    if checkpoint is None or not checkpoint.is_half:
        yield model
        return
    with checkpoint.exact() as twin:
        yield Waist(twin, model.device, model.denoiser)


def largest_change(difference: torch.Tensor) -> float:
    """The largest absolute value; the -inf of padded options, and their differences, are left out."""
    return float(difference[difference.isfinite()].abs().max())
