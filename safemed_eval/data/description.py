"""Counts of a data set by modality and question type, with what cannot be used of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from safemed_eval.core import UNKNOWN, Item
from safemed_eval.data.dataset import Bad, DataSet
from safemed_eval.data.verification import verify
from safemed_eval.progress import Tick, no_progress


@dataclass(frozen=True, kw_only=True)
class Group:
    """The number of questions of one modality and one question type."""

    modality: str
    question_type: str
    n: int


@dataclass(frozen=True, kw_only=True)
class Description:
    """Counts of a data set.

    Attributes:
        questions: all of them, usable or not; `counts` counts these, too.
        images: different images of the usable questions.
        patients: different patients of them; None where no question names one.
        columns: further columns, which are kept with the items.
        options: number of options -> number of usable questions.
        image_notes: what was done to images on the way to 8-bit RGB -> number of images.
    """

    questions: int
    usable: int
    images: int
    patients: int | None
    columns: tuple[str, ...]
    options: Mapping[int, int]
    counts: tuple[Group, ...]
    canvas: str
    image_notes: Mapping[str, int]
    bad: tuple[Bad, ...]

    def to_json(self) -> dict[str, object]:
        """The counts as `data describe --json` prints them."""
        return asdict(self) | {"bad": [{"item": bad.id, "reason": bad.reason} for bad in self.bad]}


def describe(data: DataSet, progress: Tick = no_progress) -> Description:
    """Open every image of the data, and count questions by modality and question type.

    Args:
        progress: called with (images done, images in all).
    """
    verified = verify(data, progress)
    items = verified.items
    return Description(
        questions=len(items) + len(verified.bad),
        usable=len(items),
        images=len({item.image for item in items}),
        patients=len({item.patient_id for item in items} - {None}) or None,
        columns=tuple(sorted({name for item in items for name in item.extra})),
        options=dict(sorted(Counter(len(item.question.options) for item in items).items())),
        counts=count_groups([*items, *verified.bad]),
        canvas=str(verified.canvas),
        image_notes=dict(verified.notes),
        bad=verified.bad,
    )


def count_groups(items: Iterable[Item | Bad]) -> tuple[Group, ...]:
    """Count the items of each modality and question type that occur together, in alphabetical order."""
    counts = Counter((item.modality or UNKNOWN, item.question_type or UNKNOWN) for item in items)
    return tuple(Group(modality=m, question_type=q, n=n) for (m, q), n in sorted(counts.items()))
