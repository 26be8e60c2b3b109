"""Regions of the canvas that an attack is confined to: background, border, or a mask file beside the image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from safemed_eval.core import Item
from safemed_eval.data.canvas import Canvas, pixels_of
from safemed_eval.data.images.files import decode, fit
from safemed_eval.data.images.fingerprints import key_of
from safemed_eval.data.images.guarded import guarded
from safemed_eval.data.images.paths import Place, frame_of, inside_root
from safemed_eval.data.images.picture import Mask, Pixels
from safemed_eval.data.progress import Progress, no_progress
from safemed_eval.errors import DataError, shortened
from safemed_eval.threat import BACKGROUND, MASK, border_width

if TYPE_CHECKING:
    import torch

MASK_RULE = (
    f"region={MASK} reads IMAGE.mask.png beside each image, as case12.mask.png for case12.png: of the image's size, "
    "white where pixels may change, else black"
)
_ENDING = ".mask.png"
_LEVELS = 256


def region_of(region: str, clean: torch.Tensor, item: Item, canvas: Canvas) -> torch.Tensor:
    """Find the pixels of an item's canvas that may change: (1, H, W) bool, on the device of the canvas.

    - background: `background_of` the canvas; padding belongs to the image here.
    - border:PIXELS: a frame of that width; where it is half of the canvas or more, all of it.
    - mask: the white part of the mask file, see MASK_RULE, brought to the canvas as the image is, but by the nearest
      neighbour; padding stays clean.

    Args:
        region: as `threat.spelled_region` writes it.
        clean: (3, H, W) float32 in [0, 1], the item's canvas.
    Raises:
        DataError: the mask is missing or not one.
    """
    import torch

    if region == MASK:
        inside = fit(_as_pixels(_read(_place_of(item))), canvas.size, canvas.fit, nearest=True)[..., 0] > 0
    elif region == BACKGROUND:
        inside = background_of((clean * 255).round().byte().permute(1, 2, 0).cpu().numpy())
    else:
        width = border_width(region)
        assert width
        inside = np.ones(clean.shape[1:], dtype=bool)
        inside[width:-width, width:-width] = False
    return torch.from_numpy(inside)[None].to(clean.device)


def background_of(pixels: Pixels) -> Mask:
    """Find the background of an image: (H, W, 3) uint8 -> (H, W) bool.

    Grey levels (ITU-R 601 luma) are split in two by Otsu's threshold. The side that has more of the outermost pixels is
    the background, the dark one where both have as many. An image of one grey level has none.
    """
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    threshold = otsu(grey)
    if threshold is None:
        return np.zeros(grey.shape, dtype=bool)
    dark = grey <= threshold
    edge = np.ones(grey.shape, dtype=bool)
    edge[1:-1, 1:-1] = False
    return dark if 2 * np.count_nonzero(dark[edge]) >= np.count_nonzero(edge) else ~dark


def otsu(grey: Pixels) -> int | None:
    """Find the grey level that best separates the levels up to it from those above; None where there is one level.

    Source:
        Otsu 1979, "A threshold selection method from gray-level histograms": the largest between-class variance. Of
        several such levels, which all make the same two classes, the lowest.
    """
    counts = np.bincount(grey.ravel(), minlength=_LEVELS).astype(np.float64)
    below, total = counts.cumsum(), (counts * np.arange(_LEVELS)).cumsum()
    above = below[-1] - below
    both = (below > 0) & (above > 0)
    if not both.any():
        return None
    variance = np.full(_LEVELS, -np.inf)
    variance[both] = (total[-1] * below - below[-1] * total)[both] ** 2 / (below * above)[both]
    return int(variance.argmax())


def verify_masks(items: Sequence[Item], progress: Progress = no_progress) -> str:
    """Open the mask of every image once, and return a hash of all masks, in the order of their items.

    Args:
        items: verified ones.
        progress: called with (masks done, masks in all).
    Raises:
        DataError: a mask is missing, of another size than its image, or no plain black and white image.
    """
    images = list({key_of(item): item for item in items}.values())
    places: list[Place | str] = [_place_or_problem(item) for item in images]
    read = guarded(f"{__name__}:mask_facts", [place for place in places if isinstance(place, Place)])
    digest, problems = hashlib.sha256(), list[str]()
    with ThreadPoolExecutor() as pool:
        sizes = pool.map(lambda item: None if item.drawn else pixels_of(item).shape[:2], images)
        for done, (item, place, size) in enumerate(zip(images, places, sizes, strict=True), start=1):
            facts, problem = next(read) if isinstance(place, Place) else (None, place)
            if problem is None:
                height, width, mask = cast("tuple[int, int, str]", facts)
                digest.update(json.dumps([*key_of(item)[1:], mask]).encode())
                if size and size != (height, width):
                    problem = f"its mask has {width} x {height} pixels, the image {size[1]} x {size[0]}"
            if problem is not None:
                problems.append(f"{shortened(item.image)}: {problem}")
            progress(done, len(images))
    if problems:
        raise DataError(f"{len(problems)} of {len(images)} images have no usable mask, {problems[0]}. {MASK_RULE}")
    return digest.hexdigest()


def mask_facts(place: Place) -> tuple[int, int, str]:
    """Read a mask: height, width and hash. Runs in the process that `guarded` starts. Raises DataError."""
    mask = _read(place)
    return (*mask.shape, hashlib.sha256(np.packbits(mask).tobytes()).hexdigest())


def _place_or_problem(item: Item) -> Place | str:
    try:
        return _place_of(item)
    except DataError as error:
        return str(error)


def _place_of(item: Item) -> Place:
    """Locate the mask of an item's image, in the bounds of its data root. The frames of a file share one mask."""
    if item.drawn:
        raise DataError("the image is drawn and has no file")
    image = item.image
    if frame_of(image) is not None and not item.path.is_file():
        image = image.rpartition("#")[0]
    mask = str(PurePosixPath(image).with_suffix(_ENDING))
    try:
        return inside_root(replace(item, image=mask))
    except DataError as error:
        raise DataError(str(error).replace("image", "mask", 1)) from None


def _read(place: Place) -> Mask:
    """Read a mask: (H, W) bool. What is not black and white, or not plain 8-bit, may not mean what is seen."""
    picture = decode(*place)
    levels = np.unique(picture.pixels)
    if picture.notes or not np.isin(levels, (0, 255)).all() or np.ptp(picture.pixels, axis=2).any():
        strange = picture.notes[0] if picture.notes else f"it has the levels {', '.join(map(str, levels[:4]))}"
        raise DataError(f"the mask is not an 8-bit image of black (0) and white (255) alone, {strange}: {place.path}")
    return picture.pixels[..., 0] > 0


def _as_pixels(mask: Mask) -> Pixels:
    return np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
