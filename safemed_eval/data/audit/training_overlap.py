"""Digests of the images that a checkpoint was trained on, and their overlap with a test set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict

from safemed_eval.core import Item
from safemed_eval.data.images.fingerprints import Key, key_of
from safemed_eval.data.kinds import drawer_of
from safemed_eval.errors import DataError

Digests = npt.NDArray[np.uint64]


class Overlap(TypedDict):
    """The tested images that a model was trained on, as run.json records them.

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
    """The training of a checkpoint.

    Attributes:
        name: of the checkpoint.
        digests: the file that `write_seen` wrote; None: there is none.
        data: what --data said of trainings that the file does not cover. Drawn images are known by name.
    """

    name: str
    digests: Path | None
    data: tuple[str, ...]

    @property
    def is_known(self) -> bool:
        """True if it is known of every image whether the checkpoint was trained on it."""
        return bool(self.digests or self.data) and all(map(drawer_of, self.data))


def write_seen(file: Path, items: Iterable[Item], earlier: Iterable[Path] = ()) -> None:
    """Write the digests of the images of these items, and those in earlier files; nothing if an image was not read.

    An image has two digests, 64 bits each of the sha256 of its file's bytes and of its decoded pixels. The image cannot
    be restored from these 16 bytes, but whoever has the image can tell that it was used.
    """
    digests = digests_of(items)
    if digests is not None:
        np.save(file, np.unique(np.concatenate([digests, *map(read_seen, earlier)])), allow_pickle=False)


def digests_of(items: Iterable[Item]) -> Digests | None:
    """(D,) digests of the images of these items; None if one has not been read."""
    known = {sha256 for item in items for sha256 in (item.image_sha256, item.pixels_sha256)}
    return None if None in known else np.array([_digest(str(sha256)) for sha256 in known], dtype=np.uint64)


def read_seen(file: Path) -> Digests:
    """Read a file that `write_seen` has written.

    Raises:
        DataError: the file holds something else.
    """
    try:
        digests = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    if not isinstance(digests, np.ndarray) or digests.dtype != np.uint64 or digests.ndim != 1:
        raise DataError(f"{file}: is no set of image digests")
    return digests


def overlap(items: Sequence[Item], trainings: Sequence[Training]) -> Overlap | None:
    """Count the verified items and images that the model was trained on; None if no training is known.

    Raises:
        DataError: a file of digests cannot be read.
    """
    if not trainings:
        return None
    known = [read_seen(training.digests) for training in trainings if training.digests]
    seen = frozenset(np.concatenate(known).tolist()) if known else frozenset[int]()
    drawn = list(filter(None, (drawer_of(spec) for training in trainings for spec in training.data)))

    def was_seen(item: Item) -> bool:
        hashes = (item.image_sha256, item.pixels_sha256)
        in_files = any(sha256 and _digest(sha256) in seen for sha256 in hashes)
        return in_files or any(kind.draws(options, item) for kind, options in drawn)

    seen_images: dict[Key, bool] = {}
    for item in items:
        seen_images.setdefault(key_of(item), was_seen(item))
    return {
        "images": sum(seen_images.values()),
        "of": len(seen_images),
        "items": sum(seen_images[key_of(item)] for item in items),
        "unknown": [training.name for training in trainings if not training.is_known],
    }


def overlap_sentences(overlap: Overlap | None) -> list[str]:
    """Say in words what was tested and trained on, and what is not known of it; empty if there is nothing to say."""
    sentences = []
    if overlap and overlap["images"]:
        share = 100 * overlap["images"] / overlap["of"]
        sentences.append(
            f"{overlap['images']} of {overlap['of']} tested images ({share:.1f} %), with {overlap['items']} questions, "
            "are among those that the model was trained on; what is measured on these says nothing about new images."
        )
    if overlap and overlap["unknown"]:
        sentences.append(
            f"Which images {', '.join(overlap['unknown'])} was trained on is not recorded: whether tested ones are "
            "among them is not known."
        )
    return sentences


def _digest(sha256: str) -> int:
    return int(sha256[:16], 16)
