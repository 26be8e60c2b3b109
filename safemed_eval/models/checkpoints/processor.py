"""Convert the canvas to a model's image inputs by the checkpoint's own image processor, with gradients.

Nothing of a processor is re-implemented. The official call (PIL image and prompt) is made once per prompt and recorded:
the layout and the settings that the processor passes to its image processor are passed again with float tensors in
[0, 255].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from safemed_eval.errors import CheckpointError, ModelOutputError
from safemed_eval.faults import faults_of_the_model
from safemed_eval.models.checkpoints.protocols import ImageProcessor, Processor, Tensors
from safemed_eval.models.finite import is_finite
from safemed_eval.models.scorer import ImageSize

_FOR_TRAINING = ("labels",)
"""Added by the processor of PaliGemma even outside of training; the model would compute a loss from it."""


@dataclass(frozen=True)
class ImageCall:
    """How a processor calls its image processor."""

    nested: bool
    """True if images arrive as one list per sample: the processors of Idefics read a flat list as one sample."""
    settings: dict[str, object]
    outputs: tuple[str, ...]
    """The image processor's outputs that reach the model."""


class _Watched:
    """Stands in for an image processor and records how it is called."""

    def __init__(self, inner: ImageProcessor) -> None:
        self.inner = inner
        self.calls: list[tuple[Sequence[object], dict[str, object], tuple[str, ...]]] = []

    def __call__(self, images: Sequence[object], **settings: object) -> Tensors:
        result = self.inner(images, **settings)
        self.calls.append((images, settings, tuple(result)))
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def official_inputs(processor: Processor, image: Image.Image, prompt: str) -> tuple[Tensors, ImageCall]:
    """The processor's own inputs for one 8-bit image and one prompt, and its call of the image processor.

    Raises:
        CheckpointError: the processor does not call its image processor exactly once.
        ModelOutputError: it fails.
    """
    tokenizer = processor.tokenizer
    settings: dict[str, object] = {"return_tensors": "pt"}
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


def grouped_if_equal(processor: Processor, call: ImageCall, size: tuple[int, int]) -> ImageCall:
    """Let the image processor prepare images of one size (height, width) together, if no bit of its outputs changes.

    On a GPU transformers does so by default, on a CPU it takes one image after the other.
    """
    together = replace(call, settings={**call.settings, "disable_grouping": False})
    canvas = torch.rand((3, 3, *size), generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            alone, grouped = (pixel_inputs(processor, canvas, each, checked=False) for each in (call, together))
    except Exception:  # it takes no such setting, or no float images at all, which `models check` says
        return call
    return together if all(torch.equal(alone[key], grouped[key]) for key in alone) else call


def pixel_inputs(
    processor: Processor, canvas: torch.Tensor, call: ImageCall, *, checked: bool = True
) -> dict[str, torch.Tensor]:
    """(B, 3, H, W) float in [0, 1] units, and beyond them under noise -> the model's image inputs.

    Args:
        checked: check that they are finite, which waits for the device; NaN in them shows as NaN in the scores anyway.
    Raises:
        ModelOutputError: the processor turned pixels into NaN or infinity.
    """
    rows = (canvas * 255).unbind(0)
    images = [[image] for image in rows] if call.nested else list(rows)
    outputs = processor.image_processor(images, **{**call.settings, "return_tensors": "pt"})
    inputs = {key: outputs[key] for key in call.outputs}
    for key, value in inputs.items() if checked else ():
        if not is_finite(value):
            name = type(processor.image_processor).__name__
            raise ModelOutputError(f"{name} returned NaN or infinite {key}; is its image_std 0?")
    return inputs


def refuse_8_bit_only(processor: Processor, clean: torch.Tensor, noisy: torch.Tensor, prompt: str) -> None:
    """Raise CheckpointError if an image (3, H, W) passes the processor as 8 bits, but noise (1, 3, H, W) fails."""
    with faults_of_the_model():
        _, call = official_inputs(processor, picture(clean), prompt)
    try:
        with faults_of_the_model():
            pixel_inputs(processor, noisy, call)
    except ModelOutputError as error:
        name = type(processor.image_processor).__name__
        raise CheckpointError(f"{name} takes 8-bit images only: neither noise nor gradients pass; {error}") from error


def both_inputs(processor: Processor, canvas: torch.Tensor, prompt: str) -> tuple[str, torch.Tensor, torch.Tensor]:
    """The name of the image input, and its values for a (3, H, W) canvas by the 8-bit and by the float path."""
    official, call = official_inputs(processor, picture(canvas), prompt)
    ours = pixel_inputs(processor, canvas[None], call)
    name = next(key for key in call.outputs if official[key].is_floating_point())
    return name, official[name], ours[name]


def size_of(processor: Processor, canvas: torch.Tensor, prompt: str) -> ImageSize | None:
    """The size at which a (3, H, W) canvas reaches the model; None where the processor's output does not tell it.

    Read from the output: (images, 3, height, width), or patches with their number along each side.
    """
    official, call = official_inputs(processor, picture(canvas), prompt)
    grid, patch = official.get("image_grid_thw"), getattr(processor.image_processor, "patch_size", None)
    if grid is not None and isinstance(patch, int):
        _, rows, columns = (int(count) for count in grid[0])
        return ImageSize((rows * patch, columns * patch), 1)
    values = official[next(key for key in call.outputs if official[key].is_floating_point())]
    if values.ndim < 4 or values.shape[-3] != 3:
        return None
    return ImageSize((int(values.shape[-2]), int(values.shape[-1])), values.shape[:-3].numel())


def mean_colour(processor: Processor) -> tuple[float, float, float] | None:
    """The colour in [0, 1] units that the image processor's normalisation turns into 0; None: it does not normalise."""
    images = processor.image_processor
    mean = getattr(images, "image_mean", None)
    if mean is None or not getattr(images, "do_normalize", True):
        return None
    red, green, blue = (float(mean),) * 3 if isinstance(mean, int | float) else map(float, mean)
    return red, green, blue


def picture(canvas: torch.Tensor) -> Image.Image:
    """Convert (3, H, W) in [0, 1] on 8-bit grey levels to a picture with these very levels."""
    return Image.fromarray((canvas * 255).round().byte().permute(1, 2, 0).cpu().numpy())
