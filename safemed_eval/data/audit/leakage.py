"""What a test set shares with a training set: images, questions, patients."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from safemed_eval.core import UNKNOWN, Item
from safemed_eval.data.audit.near_duplicates import nearest
from safemed_eval.data.dataset import DataSet
from safemed_eval.data.images.fingerprints import Fingerprint, Key, key_of

How = Literal["path", "file", "pixels", "near"]
"""How an image is one of the other set: by its path below the root, its file's bytes, its pixels; or it is alike."""

Tick = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SharedImage:
    """An image of the test set, and the one of the training set that it is, or looks like."""

    image: str
    of: str
    how: tuple[How, ...]
    distance: int | None = None
    """Bits in which perceptual hashes differ, where it is near."""
    items: tuple[str, ...]
    """Ids of the test set's questions about it."""
    of_items: tuple[str, ...]
    """Ids of the training set's questions about `of`."""


@dataclass(frozen=True, kw_only=True)
class SharedPatient:
    """A patient whom both sets name."""

    patient: str
    items: tuple[str, ...]
    """Ids of the test set's questions about them."""
    of_items: tuple[str, ...]
    """Ids of the training set's."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of one slice of the test set. `path`, `file`, `pixels` and `near` count images, `question` and `patient` items.

    Attributes:
        images_shared: images that are in the training set in any of the ways.
        items_shared: items about such an image, or about a patient of the training set.
        question: items that the training set asks about the same image in the same words.
        patient: items whose patient_id the training set has.
    """

    images: int
    images_shared: int
    items: int
    items_shared: int
    path: int
    file: int
    pixels: int
    near: int
    question: int
    patient: int


@dataclass(frozen=True, kw_only=True)
class Side:
    """What could be compared of one of the two sets.

    Attributes:
        read: images whose pixels were compared.
        missing: images that are not there, or broken: their path alone was compared, and the file where it could be.
        reason: what is wrong with the first of these.
        bad: questions that could not be read, and are in no count.
    """

    items: int
    bad: int
    images: int
    read: int
    missing: int
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What `audit` has found.

    Attributes:
        other_content: images that have the path of one in the training set, but other pixels: not shared.
        near: whether images that look alike were searched for.
        patients: whether both sets name patients; else those were not compared.
    """

    train: Side
    test: Side
    overall: Counts
    by_modality: dict[str, Counts]
    by_question_type: dict[str, Counts]
    shared: tuple[SharedImage, ...]
    shared_patients: tuple[SharedPatient, ...]
    other_content: int
    near: bool
    patients: bool

    @property
    def leaks(self) -> bool:
        return self.overall.items_shared > 0

    @property
    def whole(self) -> bool:
        """Whether the pixels of all images were compared."""
        return not self.train.missing and not self.test.missing


class _Match(NamedTuple):
    """Which image of the training set one is, how that is known, and where they are alike the distance in bits."""

    of: Key
    how: tuple[How, ...]
    distance: int | None = None


@dataclass(kw_only=True)
class _Index:
    """The images of the training set, by all that may tell that one is another."""

    by: dict[How, dict[str, Key]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, key: Key, look: Fingerprint) -> None:
        for how, mark in _marks(key, look).items():
            self.by[how].setdefault(mark, key)

    def find(self, key: Key, look: Fingerprint) -> dict[How, Key]:
        """The image that this one is, in each of the ways."""
        return {how: self.by[how][mark] for how, mark in _marks(key, look).items() if mark in self.by[how]}


def _marks(key: Key, look: Fingerprint) -> dict[How, str]:
    marks: dict[How, str | None] = {"path": posixpath.normpath(key[1]), "file": look.file, "pixels": look.pixels}
    return {how: mark for how, mark in marks.items() if mark is not None}


def audit(
    train: DataSet, test: DataSet, looks: Mapping[Key, Fingerprint], *, near: bool = False, progress: Tick | None = None
) -> Audit:
    """Find what `test` shares with `train`.

    Two images of one path are the same, unless their pixels could be compared and differ.

    Args:
        looks: of every image that could be looked at; of others the paths are compared.
        near: also find images that look alike, among those that are not the same; needs their likenesses.
        progress: of that search, called with (images done, images in all).
    """
    index, unseen = _Index(), Fingerprint()
    ours, theirs = _images(test.items), _images(train.items)
    for key in theirs:
        index.add(key, looks.get(key, unseen))
    found: dict[Key, _Match] = {}
    other_content = 0
    for key in ours:
        look = looks.get(key, unseen)
        ways = index.find(key, look)
        if "path" in ways and _differ(look, looks.get(ways["path"], unseen)):
            del ways["path"]
            other_content += not ways
        if ways:
            found[key] = _Match(list(ways.values())[-1], tuple(ways))
    if near:
        found |= _alike([key for key in ours if key not in found], theirs, looks, progress)
    asked = {(_same(key_of(item), looks), _wording(item)) for item in train.items}
    ids, their_ids = _ids_by(test.items, key_of), _ids_by(train.items, key_of)
    of_patients, patients = (_ids_by(some, lambda item: item.patient_id) for some in (test.items, train.items))

    def again(item: Item) -> bool:
        match = found.get(key_of(item))
        if match is None or match.distance is not None:
            return False
        # Of another frame of the same file, other questions are asked.
        same = key_of(item) if match.how == ("file",) else match.of
        return (_same(same, looks), _wording(item)) in asked

    def count(part: Sequence[Item]) -> Counts:
        images = _images(part)
        ways = Counter(how for key in images if key in found for how in found[key].how)
        known = [item.patient_id in patients for item in part]
        return Counts(
            images=len(images),
            images_shared=sum(key in found for key in images),
            items=len(part),
            items_shared=sum(key_of(item) in found or same for item, same in zip(part, known, strict=True)),
            path=ways["path"],
            file=ways["file"],
            pixels=ways["pixels"],
            near=ways["near"],
            question=sum(map(again, part)),
            patient=sum(known),
        )

    return Audit(
        train=_side(train, looks),
        test=_side(test, looks),
        overall=count(test.items),
        by_modality=_by(test.items, lambda item: item.modality, count),
        by_question_type=_by(test.items, lambda item: item.question_type, count),
        shared=tuple(
            SharedImage(
                image=key[1], of=of[1], how=how, distance=distance, items=tuple(ids[key]), of_items=tuple(their_ids[of])
            )
            for key, (of, how, distance) in found.items()
        ),
        shared_patients=tuple(
            SharedPatient(patient=patient, items=tuple(some), of_items=tuple(patients[patient]))
            for patient, some in of_patients.items()
            if patient in patients
        ),
        other_content=other_content,
        near=near,
        patients=bool(patients) and bool(of_patients),
    )


def _ids_by(items: Iterable[Item], what: Callable[[Item], T | None]) -> dict[T, list[str]]:
    """Ids of the items about each image, or each patient; those that name none are left out."""
    found: dict[T, list[str]] = {}
    for item in items:
        if (about := what(item)) is not None:
            found.setdefault(about, []).append(item.id)
    return found


def _images(items: Iterable[Item]) -> list[Key]:
    return list(dict.fromkeys(map(key_of, items)))


def _differ(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether two images are known to be different ones."""
    if one.pixels and other.pixels:
        return one.pixels != other.pixels
    return bool(one.file and other.file and one.file != other.file)


def _alike(
    ours: Sequence[Key], theirs: Sequence[Key], looks: Mapping[Key, Fingerprint], progress: Tick | None
) -> dict[Key, _Match]:
    mine, other = (
        {key: look.likeness for key in keys if (look := looks.get(key)) and look.likeness is not None}
        for keys in (ours, theirs)
    )
    names, pairs = list(other), nearest(list(mine.values()), list(other.values()), progress)
    return {key: _Match(names[pair[0]], ("near",), pair[1]) for key, pair in zip(mine, pairs, strict=True) if pair}


def _same(key: Key, looks: Mapping[Key, Fingerprint]) -> str:
    """Equal for images that are the same, under whatever path."""
    look = looks.get(key, Fingerprint())
    return look.pixels or look.file or posixpath.normpath(key[1])


def _wording(item: Item) -> str:
    return " ".join(item.question.text.casefold().split())


def _side(data: DataSet, looks: Mapping[Key, Fingerprint]) -> Side:
    images = _images(data.items)
    read = [key for key in images if key in looks and looks[key].pixels]
    unread = [key for key in images if key in looks and not looks[key].pixels]
    return Side(
        items=len(data.items),
        bad=len(data.bad),
        images=len(images),
        read=len(read),
        missing=len(images) - len(read),
        reason=looks[unread[0]].problem if unread else None,
    )


def _by(
    items: Sequence[Item], slice_of: Callable[[Item], str | None], count: Callable[[Sequence[Item]], Counts]
) -> dict[str, Counts]:
    parts: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        parts[slice_of(item) or UNKNOWN].append(item)
    return {name: count(parts[name]) for name in sorted(parts)}
