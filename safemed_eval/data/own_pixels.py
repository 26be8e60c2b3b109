"""Images at their own size, for certificates and attacks that are about the file and not about the canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from safemed_eval.core import Item
from safemed_eval.data.canvas import Canvas, picture_of
from safemed_eval.data.images.picture import Window
from safemed_eval.data.images.resample import Resize

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnPixels:
    """An image at its own size, and the linear map from there to the canvas.

    Args:
        pixels: (3, H, W) float64 in [0, 1]: the decoded 8-bit RGB, or for a DICOM file with a linear window its greys
            before they are rounded to 8 bits, three times.
        resize: the map to the canvas.
        window: of such a DICOM file.
    """

    pixels: torch.Tensor
    resize: Resize
    window: Window | None


def own_pixels_of(item: Item, canvas: Canvas) -> OwnPixels:
    """Read the item's image at its own size, for a canvas that has one, on the CPU. Raises like `canvas_of`."""
    import torch

    assert canvas.size is not None
    picture = picture_of(item)
    window = picture.window
    greys = picture.pixels if window is None else np.repeat(window.greys[..., None], 3, axis=2)
    pixels = torch.tensor(greys, dtype=torch.float64).permute(2, 0, 1).contiguous() / 255
    resize = Resize(before=(pixels.shape[1], pixels.shape[2]), size=canvas.size, how=canvas.fit)
    return OwnPixels(pixels=pixels, resize=resize, window=window)
