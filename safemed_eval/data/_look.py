"""One look at an image: the hash of its file, of its pixels, and how it looks. Each image is decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from safemed_eval.core import Item
from safemed_eval.data._dataset import inside_root
from safemed_eval.data._images import Pixels, decode
from safemed_eval.errors import DataError

Words = npt.NDArray[np.uint64]
Key = tuple[Path, str]
"""What tells images apart: the root, and the path below it."""

HASH_SIDE = 16
"""A perceptual hash has the square of this in bits."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen of one image.

    Attributes:
        file: sha256 of the file's bytes, or of the pixels where the image is drawn; None: it cannot be read.
        pixels: sha256 of the decoded 8-bit RGB pixels and their shape; None: it cannot be decoded.
        notes: what was done to get to 8-bit RGB.
        likeness: (4,) its perceptual hash; None where it was not asked for, and of an image of one colour.
        problem: why it cannot be used.
    """

    file: str | None = None
    pixels: str | None = None
    notes: tuple[str, ...] = ()
    likeness: Words | None = None
    problem: str | None = None


def key_of(item: Item) -> Key:
    return item.root, item.image


def look_at_all(
    items: Iterable[Item], progress: Callable[[int, int], None] | None = None, *, likeness: bool = False
) -> dict[Key, Look]:
    """Decode each image of these items once, in a pool of threads.

    Args:
        progress: called with (images done, images in all).
        likeness: take perceptual hashes, too.
    """
    first: dict[Key, Item] = {}
    for item in items:
        first.setdefault(key_of(item), item)
    seen: dict[Key, Look] = {}
    with ThreadPoolExecutor() as pool:
        for key, look in zip(first, pool.map(partial(_look, likeness=likeness), first.values()), strict=True):
            seen[key] = look
            if progress:
                progress(len(seen), len(first))
    return seen


def _look(item: Item, *, likeness: bool) -> Look:
    file, notes = None, tuple[str, ...]()
    if item.drawn:
        pixels = item.drawn()
        file = hashlib.sha256(pixels.tobytes()).hexdigest()
    else:
        try:
            path = inside_root(item)
            file = hashlib.sha256(path.read_bytes()).hexdigest()
            picture = decode(path)
        except DataError as error:
            return Look(file=file, problem=str(error))
        except OSError as error:
            return Look(file=file, problem=f"cannot read {item.path}: {error.strerror or error}")
        pixels, notes = picture.pixels, picture.notes
    return Look(file=file, pixels=_hash(pixels), notes=notes, likeness=_likeness(pixels) if likeness else None)


def _hash(pixels: Pixels) -> str:
    height, width, _ = pixels.shape
    return hashlib.sha256(f"{height}x{width}\n".encode() + pixels.tobytes()).hexdigest()


def _likeness(pixels: Pixels) -> Words | None:
    """The perceptual hash as 64-bit words: signs of an image's low frequencies, against their median.

    Source:
        pHash, as the library ImageHash computes it.
    """
    if pixels.min() == pixels.max():
        return None  # its frequencies are rounding errors
    from imagehash import phash
    from PIL import Image

    bits = phash(Image.fromarray(pixels), hash_size=HASH_SIDE).hash
    return np.packbits(bits).view(np.uint64)
