"""What all checks share: findings, a second question, and a model held in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from safemed_eval.core import Question
from safemed_eval.models.waist import Waist

IMAGE_MATTERS, REACHES = "the image matters", "gradient reaches the pixels"
"""Names of the checks that a model fails which does not look at its images."""
Status = Literal["pass", "warn", "fail"]

OTHER = Question(text="Is there a visible abnormality in this image of the chest?", options=("Yes", "No"))


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    status: Status
    detail: str


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
