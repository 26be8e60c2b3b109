"""Which images a checkpoint was trained on: a set of digests beside it, and what a test set has in common with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict

from safemed_eval import grammar
from safemed_eval.core import Item
from safemed_eval.data.images.fingerprints import Key, key_of
from safemed_eval.errors import DataError

Digests = npt.NDArray[np.uint64]
_DRAWN = re.compile(r"(?:Images/)?(train|validation|test)/(\d+)/(\d{6})\.png")
"""The name of an image of phantom, also where `data export` has written it."""


class Overlap(TypedDict):
    """What tested items have in common with the training, as run.json records it.

    Attributes:
        images: tested images that the model was trained on.
        of: tested images.
        items: tested items about such an image.
        unknown: names of checkpoints that do not say which images they were trained on.
    """

    images: int
    of: int
    items: int
    unknown: list[str]


class Training(NamedTuple):
    """What made a checkpoint.

    Attributes:
        name: of the checkpoint.
        digests: the file that `write_seen` left; None: there is none.
        data: what --data said of trainings that it does not cover. The images of phantom are known by name.
    """

    name: str
    digests: Path | None
    data: tuple[str, ...]

    @property
    def is_known(self) -> bool:
        """Whether it can be told of every image whether it was seen."""
        return bool(self.digests or self.data) and all(map(_is_drawn, self.data))


def write_seen(file: Path, items: Iterable[Item], earlier: Iterable[Path] = ()) -> None:
    """Write the digests of the images of these items, and those in earlier files; nothing where an image is not known.

    A digest is 64 bits of the sha256 of the file's bytes, or of the decoded pixels: 16 bytes an image, from which it
    cannot be restored, but by which someone who has it can tell that it was there.
    """
    found = digests_of(items)
    if found is not None:
        np.save(file, np.unique(np.concatenate([found, *map(read_seen, earlier)])), allow_pickle=False)


def digests_of(items: Iterable[Item]) -> Digests | None:
    """(D,) of all their images; None where one has not been read."""
    known = {sha256 for item in items for sha256 in (item.image_sha256, item.pixels_sha256)}
    return None if None in known else np.array([_short(str(sha256)) for sha256 in known], dtype=np.uint64)


def read_seen(file: Path) -> Digests:
    """What `write_seen` has written.

    Raises:
        DataError: it is something else.
    """
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    if not isinstance(found, np.ndarray) or found.dtype != np.uint64 or found.ndim != 1:
        raise DataError(f"{file}: is no set of image digests")
    return found


def overlap(items: Sequence[Item], trainings: Sequence[Training]) -> Overlap | None:
    """What verified items have in common with what was trained on.

    Returns:
        `images` of the `of` tested images that were seen, and the `items` about them; `unknown`, the names of
        checkpoints that do not say which images they saw. None where nothing was trained.
    Raises:
        DataError: a file of digests cannot be read.
    """
    if not trainings:
        return None
    known = [read_seen(training.digests) for training in trainings if training.digests]
    seen = frozenset(np.concatenate(known).tolist()) if known else frozenset[int]()
    drawn = [_phantom(spec) for training in trainings for spec in filter(_is_drawn, training.data)]

    def was_seen(item: Item) -> bool:
        known = (item.image_sha256, item.pixels_sha256)
        return any(one and _short(one) in seen for one in known) or any(_drawn_by(item, *one) for one in drawn)

    met: dict[Key, bool] = {}
    for item in items:
        met.setdefault(key_of(item), was_seen(item))
    return {
        "images": sum(met.values()),
        "of": len(met),
        "items": sum(met[key_of(item)] for item in items),
        "unknown": [training.name for training in trainings if not training.is_known],
    }


def overlap_sentences(found: Overlap | None) -> list[str]:
    """What a person must know of it."""
    told = []
    if found and found["images"]:
        share = 100 * found["images"] / found["of"]
        told.append(
            f"{found['images']} of {found['of']} tested images ({share:.1f} %), with {found['items']} questions, are "
            "among those that the model was trained on; what is measured on these says nothing about new images."
        )
    if found and found["unknown"]:
        told.append(
            f"Which images {', '.join(found['unknown'])} was trained on is not recorded: whether tested ones are among "
            "them is not known."
        )
    return told


def _is_drawn(spec: str) -> bool:
    return spec.partition(":")[0] == "phantom"


def _short(sha256: str) -> int:
    return int(sha256[:16], 16)


def _phantom(spec: str) -> tuple[str, int, int]:
    """Split, seed and number of images."""
    from safemed_eval.data.sources.phantom import Phantom

    made = grammar.build(Phantom, grammar.split(spec)[1], spec)
    return made.split, made.seed, made.images


def _drawn_by(item: Item, split: str, seed: int, images: int) -> bool:
    match = _DRAWN.fullmatch(item.image) if item.source == "phantom" else None
    return match is not None and (match[1], int(match[2])) == (split, seed) and int(match[3]) < images
