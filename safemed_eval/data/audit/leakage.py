"""Search for images, questions and patients that a test set shares with a training set."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from safemed_eval.core import UNKNOWN, Item
from safemed_eval.data.audit.near_duplicates import nearest
from safemed_eval.data.audit.shared import Audit, Counts, How, SharedImage, SharedPatient, Side
from safemed_eval.data.dataset import DataSet
from safemed_eval.data.images.fingerprints import Fingerprint, Key, fingerprints, key_of
from safemed_eval.data.kinds import is_made, load_readable
from safemed_eval.errors import SpecError
from safemed_eval.progress import Tick, no_progress

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two sets that are to be compared; no image has been opened.

    Attributes:
        near: also find images that look alike, among those that are not the same.
        paths_only: open no image.
    """

    train: DataSet
    test: DataSet
    near: bool = False
    paths_only: bool = False

    @classmethod
    def load(
        cls,
        train: str,
        test: str,
        *,
        root: Path | None = None,
        test_root: Path | None = None,
        near: bool = False,
        paths_only: bool = False,
    ) -> Comparison:
        """Read the questions of both sets.

        Args:
            train, test: KIND:PATH.
            root: folder that image paths are relative to, where it is not the data's own.
            test_root: the same of the test set, where it has another.
        Raises:
            SpecError: options that exclude each other, or an unknown kind.
            DataError: no question of a set can be read.
        """
        if near and paths_only:
            raise SpecError("--near looks at pixels, which --paths-only leaves out; choose one")
        first = load_readable(train, root)
        second = load_readable(test, test_root or (None if is_made(test.partition(":")[0]) else root))
        return cls(train=first, test=second, near=near, paths_only=paths_only)

    def open_images(self, progress: Tick = no_progress) -> dict[Key, Fingerprint]:
        """Open the images of both sets, unless `paths_only`, and take their fingerprints."""
        if self.paths_only:
            return {}
        return fingerprints((*self.train.items, *self.test.items), progress, likeness=self.near)

    def audit(self, seen: Mapping[Key, Fingerprint], progress: Tick = no_progress) -> Audit:
        """Find what the test set shares with the training set.

        Two images of one path are the same, unless their pixels could be compared and differ.

        Args:
            seen: what `open_images` returned; of images that are not in it only the paths are compared.
            progress: of the search for images that look alike: (images done, images in all).
        """
        train, test = self.train, self.test
        matches, other_content = _matches(self, seen, progress)
        asked = {(_identity(key_of(item), seen), _wording(item)) for item in train.items}
        test_ids, train_ids = _ids_by(test.items, key_of), _ids_by(train.items, key_of)
        test_patients, train_patients = (_ids_by(data.items, lambda item: item.patient_id) for data in (test, train))

        def asked_again(item: Item) -> bool:
            match = matches.get(key_of(item))
            if match is None or match.distance is not None:
                return False
            # Other frames of the same file are asked other questions.
            same = key_of(item) if match.how == ("file",) else match.of
            return (_identity(same, seen), _wording(item)) in asked

        def count(items: Sequence[Item]) -> Counts:
            images = _images(items)
            ways = Counter(how for key in images if key in matches for how in matches[key].how)
            known = [item.patient_id in train_patients for item in items]
            return Counts(
                images=len(images),
                images_shared=sum(key in matches for key in images),
                items=len(items),
                items_shared=sum(key_of(item) in matches or same for item, same in zip(items, known, strict=True)),
                path=ways["path"],
                file=ways["file"],
                pixels=ways["pixels"],
                near=ways["near"],
                question=sum(map(asked_again, items)),
                patient=sum(known),
            )

        return Audit(
            train=_side(train, seen),
            test=_side(test, seen),
            overall=count(test.items),
            by_modality=_by(test.items, lambda item: item.modality, count),
            by_question_type=_by(test.items, lambda item: item.question_type, count),
            shared=tuple(
                SharedImage(
                    image=key[1],
                    of=match.of[1],
                    how=match.how,
                    distance=match.distance,
                    items=tuple(test_ids[key]),
                    of_items=tuple(train_ids[match.of]),
                )
                for key, match in matches.items()
            ),
            shared_patients=tuple(
                SharedPatient(patient=patient, items=tuple(ids), of_items=tuple(train_patients[patient]))
                for patient, ids in test_patients.items()
                if patient in train_patients
            ),
            other_content=other_content,
            near=self.near,
            patients=bool(train_patients) and bool(test_patients),
            paths_only=self.paths_only,
        )


class _Match(NamedTuple):
    """The image of the training set that an image matches, in which ways, and their distance if they look alike."""

    of: Key
    how: tuple[How, ...]
    distance: int | None = None


@dataclass(kw_only=True)
class _Index:
    """The images of the training set by path, by hash of the file and by hash of the pixels."""

    by: dict[How, dict[str, Key]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, key: Key, image: Fingerprint) -> None:
        for how, mark in _marks(key, image).items():
            self.by[how].setdefault(mark, key)

    def find(self, key: Key, image: Fingerprint) -> dict[How, Key]:
        """The training image that equals this one in each of the ways."""
        return {how: self.by[how][mark] for how, mark in _marks(key, image).items() if mark in self.by[how]}


def _marks(key: Key, image: Fingerprint) -> dict[How, str]:
    marks: dict[How, str | None] = {"path": posixpath.normpath(key[1]), "file": image.file, "pixels": image.pixels}
    return {how: mark for how, mark in marks.items() if mark is not None}


def _matches(pair: Comparison, seen: Mapping[Key, Fingerprint], progress: Tick) -> tuple[dict[Key, _Match], int]:
    """Test image -> the training image that it matches; and how many share a path only, with other pixels."""
    index, unseen = _Index(), Fingerprint()
    test_images, train_images = _images(pair.test.items), _images(pair.train.items)
    for key in train_images:
        index.add(key, seen.get(key, unseen))
    matches: dict[Key, _Match] = {}
    other_content = 0
    for key in test_images:
        image = seen.get(key, unseen)
        ways = index.find(key, image)
        if "path" in ways and _differ(image, seen.get(ways["path"], unseen)):
            del ways["path"]
            other_content += not ways
        if ways:
            matches[key] = _Match(list(ways.values())[-1], tuple(ways))
    if pair.near:
        matches |= _alike([key for key in test_images if key not in matches], train_images, seen, progress)
    return matches, other_content


def _ids_by(items: Iterable[Item], about: Callable[[Item], T | None]) -> dict[T, list[str]]:
    """Ids of the items about each image, or each patient; items that name none are left out."""
    ids: dict[T, list[str]] = {}
    for item in items:
        if (subject := about(item)) is not None:
            ids.setdefault(subject, []).append(item.id)
    return ids


def _images(items: Iterable[Item]) -> list[Key]:
    return list(dict.fromkeys(map(key_of, items)))


def _differ(first: Fingerprint, second: Fingerprint) -> bool:
    """True if the two images are known to be different ones."""
    if first.pixels and second.pixels:
        return first.pixels != second.pixels
    return bool(first.file and second.file and first.file != second.file)


def _alike(
    test_images: Sequence[Key], train_images: Sequence[Key], seen: Mapping[Key, Fingerprint], progress: Tick
) -> dict[Key, _Match]:
    ours, theirs = (
        {key: image.likeness for key in keys if (image := seen.get(key)) and image.likeness is not None}
        for keys in (test_images, train_images)
    )
    names, pairs = list(theirs), nearest(list(ours.values()), list(theirs.values()), progress)
    return {key: _Match(names[pair[0]], ("near",), pair[1]) for key, pair in zip(ours, pairs, strict=True) if pair}


def _identity(key: Key, seen: Mapping[Key, Fingerprint]) -> str:
    """Equal for images that are the same, under whatever path."""
    image = seen.get(key, Fingerprint())
    return image.pixels or image.file or posixpath.normpath(key[1])


def _wording(item: Item) -> str:
    return " ".join(item.question.text.casefold().split())


def _side(data: DataSet, seen: Mapping[Key, Fingerprint]) -> Side:
    images = _images(data.items)
    read = [key for key in images if key in seen and seen[key].pixels]
    unread = [key for key in images if key in seen and not seen[key].pixels]
    return Side(
        items=len(data.items),
        bad=len(data.bad),
        images=len(images),
        read=len(read),
        missing=len(images) - len(read),
        reason=seen[unread[0]].problem if unread else None,
    )


def _by(
    items: Sequence[Item], slice_of: Callable[[Item], str | None], count: Callable[[Sequence[Item]], Counts]
) -> dict[str, Counts]:
    parts: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        parts[slice_of(item) or UNKNOWN].append(item)
    return {name: count(parts[name]) for name in sorted(parts)}
