"""Images as `certify` shows them to the smoothed model: on the canvas, with what a certificate around it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from safemed_eval.core import Classify, Domain, Item
from safemed_eval.data import Canvas, canvas_of
from safemed_eval.data.images.resample import Resize
from safemed_eval.data.own_pixels import OwnPixels, own_pixels_of
from safemed_eval.smoothing.certify import view_of
from safemed_eval.smoothing.noise import FileView, View, rounded


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """An image on the canvas.

    Args:
        canvas: (3, h, w) float32; of a file on the lattice, where it may leave [0, 1], since nothing is clipped.
        view: what a certificate around it is about.
        own: the image at its own size, where certificates are about that.
    """

    canvas: torch.Tensor
    view: View
    own: OwnPixels | None = None


def shown_of(item: Item, canvas: Canvas, domain: Domain, device: torch.device) -> Shown:
    """Read the item's image: for the canvas as `canvas_of` does, for the file through `Resize`. Raises like these."""
    if domain == "canvas":
        shown = canvas_of(item, canvas).to(device)
        return Shown(canvas=shown, view=view_of(shown))
    own = own_pixels_of(item, canvas)
    shown = canvas_from(own.pixels, own.resize).to(device)
    window, (height, width) = own.window, own.resize.before
    gain, cut = (window.gain, window.cut) if window else (None, None)
    file = FileView(height=height, width=width, norm=own.resize.norm, gain=gain, cut=cut)
    return Shown(canvas=shown, view=view_of(shown, file), own=own)


def canvas_from(pixels: torch.Tensor, resize: Resize) -> torch.Tensor:
    """Compute the canvas of an image, (3, H, W) float64 -> (3, h, w) float32, on the lattice, on the CPU."""
    return rounded(resize(pixels.cpu()))


@dataclass(frozen=True, kw_only=True)
class Resized:
    """The `Classify` of images at their own size: they are resized in float32, and then asked about."""

    classify: Classify
    resize: Resize

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        return self.classify(self.resize(canvas))

    def take(self, rows: Sequence[int]) -> Self:
        return type(self)(classify=self.classify.take(rows), resize=self.resize)
