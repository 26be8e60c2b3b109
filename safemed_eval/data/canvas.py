"""The canvas: the pixel grid that images are brought to, and on which eps, sigma and radius are measured."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from safemed_eval.core import CANVAS_SIZE, Item
from safemed_eval.data.images.files import decode, fit
from safemed_eval.data.images.paths import Place, inside_root
from safemed_eval.data.images.picture import Picture, Pixels
from safemed_eval.errors import DataError, SpecError

if TYPE_CHECKING:
    import torch

Fit = Literal["stretch", "pad"]


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The pixel grid on which eps, sigma and radius are measured.

    `size` is (height, width), or None for each image's own size. `stretch` ignores the aspect ratio (Med-R1's
    protocol), `pad` keeps it and fills with black.
    """

    size: tuple[int, int] | None
    fit: Fit = "stretch"

    def __str__(self) -> str:
        if self.size is None:
            return "native"
        return f"{self.size[0]}x{self.size[1]} {self.fit}"


DEFAULT_CANVAS = Canvas(size=CANVAS_SIZE)


def parse_canvas(text: str | None, fit: Fit, default: Canvas) -> Canvas:
    """Parse `--canvas HxW|native` and `--fit`; without `--canvas`, the size is that of `default`."""
    if text is None:
        return replace(default, fit=fit)
    if text == "native":
        return Canvas(size=None, fit=fit)
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if not match or not all(8 <= int(side) <= 8192 for side in match.groups()):
        raise SpecError(f"--canvas {text}: write HEIGHTxWIDTH with sides of 8 to 8192, such as 384x384, or 'native'")
    return Canvas(size=(int(match[1]), int(match[2])), fit=fit)


def canvas_of(item: Item, canvas: Canvas) -> torch.Tensor:
    """Read the item's image onto the canvas: (3, H, W) float32 in [0, 1], on 8-bit grey levels, on the CPU.

    Raises:
        DataError: the file is missing, leaves its root, cannot be decoded, or has changed since it was verified.
    """
    import torch

    return torch.from_numpy(_fitted(item, canvas)).permute(2, 0, 1).float() / 255


def pixels_of(item: Item) -> Pixels:
    """Read the item's image at its own size: (H, W, 3) uint8. Raises like `canvas_of`."""
    return picture_of(item).pixels


def picture_of(item: Item) -> Picture:
    """Read the item's image at its own size. Raises like `canvas_of`."""
    return Picture(item.drawn()) if item.drawn else _decoded(inside_root(item), item.image_sha256)


def _fitted(item: Item, canvas: Canvas) -> Pixels:
    # Images at their own size may be huge, so they are not cached; drawn images are drawn again.
    if item.drawn or not canvas.size:
        return fit(pixels_of(item), canvas.size, canvas.fit).copy()
    return _cached(inside_root(item), item.image_sha256, canvas)


@lru_cache(maxsize=64)
def _cached(place: Place, sha256: str | None, canvas: Canvas) -> Pixels:
    """Questions about one image, and attacks on it, tend to follow each other."""
    return fit(_decoded(place, sha256).pixels, canvas.size, canvas.fit).copy()


def _decoded(place: Place, sha256: str | None) -> Picture:
    """Decode the file; refuse it if it is no longer the one that was verified."""
    path, frame = place
    if sha256 is not None:
        try:
            with path.open("rb") as file:
                current = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from None
        if current != sha256:
            raise DataError(f"the image has changed since the run began: {path}")
    return decode(path, frame)
