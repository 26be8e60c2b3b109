"""The result of comparing a test set with a training set: shared images, patients and questions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from safemed_eval.data.audit.near_duplicates import NEAR

How = Literal["path", "file", "pixels", "near"]
"""The way in which two images are the same: path below the root, bytes of the file, pixels; or "near": they look alike.
"""
Verdict = Literal["shared", "clean", "not all compared"]
"""Something is shared; nothing is; nothing is as far as was compared, but not all images could be read."""


@dataclass(frozen=True, kw_only=True)
class SharedImage:
    """An image of the test set, and the one of the training set that is the same, or looks alike."""

    image: str
    of: str
    how: tuple[How, ...]
    distance: int | None = None
    """Bits in which perceptual hashes differ, where the images look alike."""
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
    """Counts of one slice of the test set: `path`, `file`, `pixels`, `near` of images, `question`, `patient` of items.

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
    """The extent to which one of the two sets could be compared.

    Attributes:
        bad: questions that could not be read, and are in no count.
        read: images whose pixels were compared.
        missing: images that do not exist or are broken: only their path was compared, and their file where possible.
        reason: what is wrong with the first of these.
    """

    items: int
    bad: int
    images: int
    read: int
    missing: int
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of comparing a test set with a training set.

    Attributes:
        other_content: images that have the path of one in the training set, but other pixels: not shared.
        near: images that look alike were searched for.
        patients: both sets name patients; otherwise patients were not compared.
        paths_only: no image was opened.
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
    paths_only: bool

    @property
    def verdict(self) -> Verdict:
        """Judge whether anything is shared, as far as the images were to be compared."""
        if self.overall.items_shared:
            return "shared"
        return "not all compared" if (self.train.missing or self.test.missing) and not self.paths_only else "clean"

    @property
    def exit_code(self) -> int:
        """0: nothing is shared; 1: something is; 3: not everything was compared."""
        return {"clean": 0, "shared": 1, "not all compared": 3}[self.verdict]

    def to_json(self) -> dict[str, object]:
        """The verdict and all attributes, as `data audit --json` prints them."""
        facts = asdict(self)
        del facts["paths_only"]
        return {"verdict": self.verdict, "near_bits": NEAR if self.near else None, **facts}

    def rows(self) -> Iterator[tuple[str | int | None, ...]]:
        """A row for each item, of either set, that is about something shared; the first row names the columns."""
        yield "shared", "in_b", "in_a", "how", "distance", "set", "item"
        for image in self.shared:
            yield from _rows(("image", image.image, image.of, " ".join(image.how), image.distance), image)
        for patient in self.shared_patients:
            yield from _rows(("patient", patient.patient, patient.patient, "patient_id", None), patient)


def _rows(
    what: tuple[str | int | None, ...], shared: SharedImage | SharedPatient
) -> Iterator[tuple[str | int | None, ...]]:
    for which, items in (("A", shared.of_items), ("B", shared.items)):
        for item in items:
            yield *what, which, item
