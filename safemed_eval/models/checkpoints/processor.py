"""From the canvas to a model's image inputs, through the checkpoint's own image processor, with gradients.

Nothing of a processor is re-implemented. The official call (PIL image and prompt) is made once per prompt and watched:
whatever the processor hands its image processor, layout and settings, is handed over again with float tensors in
[0, 255].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from safemed_eval.errors import CheckpointError, ModelOutputError
from safemed_eval.faults import faults_of_the_model
from safemed_eval.models.finite import is_finite

_FOR_TRAINING = ("labels",)
"""What the processor of PaliGemma adds even where nothing is trained; the model would compute a loss from it."""


@dataclass(frozen=True)
class ImageCall:
    """How a processor calls its image processor."""

    nested: bool
    """Whether images arrive as one list per sample: the processors of Idefics read a flat list as one sample."""
    settings: dict[str, Any]
    outputs: tuple[str, ...]
    """The image processor's outputs that reach the model."""


class _Watched:
    """Stands in for an image processor and notes how it is called."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls: list[tuple[Any, dict[str, Any], tuple[str, ...]]] = []

    def __call__(self, images: Any, **settings: Any) -> Any:
        result = self.inner(images, **settings)
        self.calls.append((images, settings, tuple(result)))
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def official_inputs(processor: Any, image: Image.Image, prompt: str) -> tuple[Mapping[str, torch.Tensor], ImageCall]:
    """The processor's own inputs for one 8-bit image and one prompt, and how it got them.

    Raises:
        CheckpointError: the processor does not call its image processor exactly once.
        ModelOutputError: it fails.
    """
    tokenizer = processor.tokenizer
    settings: dict[str, Any] = {"return_tensors": "pt"}
    if tokenizer.bos_token is not None and prompt.startswith(tokenizer.bos_token):
        settings["add_special_tokens"] = False  # the chat template has written it already
    watched = _Watched(processor.image_processor)
    processor.image_processor = watched
    try:
        with faults_of_the_model(type(processor).__name__):
            inputs = processor(text=[prompt], images=[image], **settings)
    finally:
        processor.image_processor = watched.inner
    if len(watched.calls) != 1:
        raise CheckpointError(
            f"{type(processor).__name__} calls its image processor {len(watched.calls)} times for one image; only "
            "processors that call it once can be followed with float tensors"
        )
    images, image_settings, outputs = watched.calls[0]
    call = ImageCall(
        nested=isinstance(images, (list, tuple)) and isinstance(images[0], (list, tuple)),
        settings=image_settings,
        outputs=tuple(key for key in outputs if key in inputs),
    )
    return {name: value for name, value in inputs.items() if name not in _FOR_TRAINING}, call


def pixel_inputs(
    processor: Any, canvas: torch.Tensor, call: ImageCall, *, checked: bool = True
) -> dict[str, torch.Tensor]:
    """(B, 3, H, W) float in [0, 1] units, noisy values beyond included -> the model's image inputs.

    Args:
        checked: look whether they are finite, which waits for the device; NaN in them is NaN in the scores, too.
    Raises:
        ModelOutputError: the processor made NaN or infinity of them.
    """
    images: list[Any] = list((canvas * 255).unbind(0))
    if call.nested:
        images = [[image] for image in images]
    outputs = processor.image_processor(images, **{**call.settings, "return_tensors": "pt"})
    inputs = {key: outputs[key] for key in call.outputs}
    for key, value in inputs.items() if checked else ():
        if not is_finite(value):
            name = type(processor.image_processor).__name__
            raise ModelOutputError(f"{name} returned NaN or infinite {key}; is its image_std 0?")
    return inputs


def picture(canvas: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] on 8-bit grey levels -> a picture with these very levels."""
    return Image.fromarray((canvas * 255).round().byte().permute(1, 2, 0).cpu().numpy())
