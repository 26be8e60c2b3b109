"""Fingerprints of images: hashes of the file and of its pixels, and a perceptual hash. Each image is decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from safemed_eval.core import Item
from safemed_eval.data.images.files import decode
from safemed_eval.data.images.guarded import guarded
from safemed_eval.data.images.paths import Place, inside_root
from safemed_eval.data.images.picture import Pixels
from safemed_eval.errors import DataError
from safemed_eval.progress import Tick, no_progress

Words = npt.NDArray[np.uint64]
Key = tuple[Path, str]
"""Tells images apart: the root, and the path below it, with the frame where one is named."""
Fields = tuple[str | None, str, Sequence[str], list[str] | None]
"""`file`, `pixels`, `notes` and `likeness` of a Fingerprint, as JSON can hold them."""

HASH_SIDE = 16
"""A perceptual hash has the square of this in bits."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """The hashes that identify one image, or the problem with it.

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
    """The key of the item's image."""
    return item.root, item.image


def fingerprints(
    items: Iterable[Item], progress: Tick = no_progress, *, likeness: bool = False
) -> dict[Key, Fingerprint]:
    """Decode each image of these items once, each file in a process that it cannot harm; see `guarded`.

    Args:
        progress: called with (images done, images in all).
        likeness: take perceptual hashes, too.
    """
    first: dict[Key, Item] = {}
    for item in items:
        first.setdefault(key_of(item), item)
    seen: dict[Key, Fingerprint] = {}
    for key, taken in zip(first, _fingerprints(list(first.values()), likeness), strict=True):
        seen[key] = taken
        progress(len(seen), len(first))
    return seen


def _fingerprints(items: Sequence[Item], likeness: bool) -> Iterator[Fingerprint]:
    """One for each item's image: drawings are hashed here, files in another process."""
    places = [None if item.drawn else _place(item) for item in items]
    work = fingerprint_with_likeness if likeness else fingerprint
    read = guarded(f"{__name__}:{work.__name__}", [place for place in places if isinstance(place, Place)])
    with ThreadPoolExecutor() as pool:
        drawn = pool.map(partial(_of_drawing, likeness), [item for item in items if item.drawn])
        for item, place in zip(items, places, strict=True):
            if item.drawn:
                yield next(drawn)
            elif isinstance(place, Place):
                yield _of_file(place.path, *next(read))
            else:
                yield Fingerprint(problem=place)


def _of_file(path: Path, fields: object, problem: str | None) -> Fingerprint:
    """Build it from the answer of another process; a file that cannot be decoded still has the hash of its bytes."""
    if problem is not None:
        return Fingerprint(file=_file_hash(path), problem=problem)
    file, pixels, notes, words = cast(Fields, fields)
    likeness = None if words is None else np.array([int(word) for word in words], dtype=np.uint64)
    return Fingerprint(file=file, pixels=pixels, notes=tuple(notes), likeness=likeness)


def _of_drawing(likeness: bool, item: Item) -> Fingerprint:
    assert item.drawn is not None
    pixels = item.drawn()
    file = hashlib.sha256(pixels.tobytes()).hexdigest()
    return Fingerprint(file=file, pixels=_pixel_hash(pixels), likeness=_likeness(pixels) if likeness else None)


def fingerprint(place: Place, *, likeness: bool = False) -> Fields:
    """Decode an image file and take its fingerprint. Runs in the process that `guarded` starts. Raises DataError."""
    picture = decode(*place)
    words = _likeness(picture.pixels) if likeness else None
    texts = None if words is None else [str(word) for word in words]
    return _file_hash(place.path), _pixel_hash(picture.pixels), picture.notes, texts


def fingerprint_with_likeness(place: Place) -> Fields:
    """`fingerprint` with a perceptual hash."""
    return fingerprint(place, likeness=True)


def _place(item: Item) -> Place | str:
    """The item's image file, or the reason why it has none."""
    try:
        return inside_root(item)
    except DataError as error:
        return str(error)


def _file_hash(file: Path) -> str | None:
    """sha256 of a file's bytes, None where they cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def _pixel_hash(pixels: Pixels) -> str:
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
