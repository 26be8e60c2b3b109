"""One look at an image: the hash of its file, of its pixels, and how it looks. Each image is decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safemed_eval.core import Item
from safemed_eval.data._dataset import inside_root
from safemed_eval.data.images.files import Place, decode
from safemed_eval.data.images.guarded import guarded
from safemed_eval.data.images.picture import Pixels
from safemed_eval.errors import DataError

Words = npt.NDArray[np.uint64]
Key = tuple[Path, str]
"""What tells images apart: the root, and the path below it, with the frame where one is named."""

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
    """Decode each image of these items once, each file in a process that it cannot harm; see `_guarded`.

    Args:
        progress: called with (images done, images in all).
        likeness: take perceptual hashes, too.
    """
    first: dict[Key, Item] = {}
    for item in items:
        first.setdefault(key_of(item), item)
    seen: dict[Key, Look] = {}
    for key, look in zip(first, _looks(list(first.values()), likeness), strict=True):
        seen[key] = look
        if progress:
            progress(len(seen), len(first))
    return seen


def _looks(items: Sequence[Item], likeness: bool) -> Iterator[Look]:
    """One for each item's image: of a drawing here, of a file in another process."""
    places = [None if item.drawn else _place(item) for item in items]
    work = look_closely if likeness else look
    read = guarded(f"{__name__}:{work.__name__}", [place for place in places if isinstance(place, Place)])
    with ThreadPoolExecutor() as pool:
        drawn = pool.map(partial(_drawn, likeness), [item for item in items if item.drawn])
        for item, place in zip(items, places, strict=True):
            if item.drawn:
                yield next(drawn)
            elif isinstance(place, Place):
                yield _of(place.path, *next(read))
            else:
                yield Look(problem=place)


def _of(path: Path, found: Any, problem: str | None) -> Look:
    """From what `look` and `look_closely` found in another process; a file that cannot be decoded has its hash yet."""
    if problem is not None:
        return Look(file=_digest(path), problem=problem)
    file, pixels, notes, words = found
    likeness = None if words is None else np.array([int(word) for word in words], dtype=np.uint64)
    return Look(file=file, pixels=pixels, notes=tuple(notes), likeness=likeness)


def look(place: Place, *, likeness: bool = False) -> tuple[str | None, str, tuple[str, ...], list[str] | None]:
    """The fields of the Look of an image file, as JSON can hold them. Raises DataError."""
    picture = decode(*place)
    words = _likeness(picture.pixels) if likeness else None
    said = None if words is None else [str(word) for word in words]
    return _digest(place.path), _hash(picture.pixels), picture.notes, said


def look_closely(place: Place) -> tuple[str | None, str, tuple[str, ...], list[str] | None]:
    """`look`, with a perceptual hash."""
    return look(place, likeness=True)


def _digest(file: Path) -> str | None:
    """sha256 of a file's bytes, None where they cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def _drawn(likeness: bool, item: Item) -> Look:
    assert item.drawn is not None
    pixels = item.drawn()
    file = hashlib.sha256(pixels.tobytes()).hexdigest()
    return Look(file=file, pixels=_hash(pixels), likeness=_likeness(pixels) if likeness else None)


def _place(item: Item) -> Place | str:
    """Where the item's image is, or why it has none."""
    try:
        return inside_root(item)
    except DataError as error:
        return str(error)


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
