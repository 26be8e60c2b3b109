"""Single items on the page: questions, outcomes, votes, texts and images, in the form that page.js reads."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from safemed_eval.core import CIRCULAR, UNATTACKED, UNKNOWN
from safemed_eval.errors import RunError
from safemed_eval.report.findings.canvas import own_pixel_words
from safemed_eval.report.rows import Slicing
from safemed_eval.report.run import Run
from safemed_eval.runs.images import Pixels, kept
from safemed_eval.runs.record import CertifyRecord, Record
from safemed_eval.text import visible

MOST_IMAGES = 60
"""Items whose images the page holds."""
_LONGEST_TEXT = 4000
_WIDEST_IMAGE = 448
_SMALL_IMAGE = 128


@dataclass(frozen=True, kw_only=True)
class ItemColumns:
    """A value for each item. Questions, options and slices are places in lists, since they repeat."""

    id: list[str]
    question: list[int]
    options: list[int]
    label: list[int]
    image: list[str]
    source: list[str | None]
    modality: list[int]
    question_type: list[int]


@dataclass(frozen=True, kw_only=True)
class ItemsTable:
    """All items, with the lists of their questions and options. Patients are left out: a page is passed on."""

    columns: ItemColumns
    questions: list[str]
    options: list[tuple[str, ...]]


class Items:
    """The items of all runs, each once: an item is one in two runs if they asked the same question about one image.

    Attributes:
        places: for each run, the number of each item on the page, by its id.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._numbers: dict[tuple[object, ...], int] = {}
        self._records: list[Record] = []
        self.places: list[dict[str, int]] = []
        for run in runs:
            places: dict[str, int] = {}
            for record in run.records:
                if record.item not in places:
                    places[record.item] = self._number(record)
            self.places.append(places)

    def __len__(self) -> int:
        return len(self._records)

    def _number(self, record: Record) -> int:
        same = (record.item, record.question, record.label, record.modality, record.question_type, record.image_sha256)
        number = self._numbers.setdefault((*same, *record.options), len(self._records))
        if number == len(self._records):
            self._records.append(record)
        return number

    def table(self, slices: Mapping[Slicing, Sequence[str]]) -> ItemsTable:
        """Make the table of items.

        Args:
            slices: the names of all slices; the columns hold places in these.
        """
        records, questions, options = self._records, dict[str, int](), dict[tuple[str, ...], int]()
        modalities, question_types = (
            {name: place for place, name in enumerate(slices[by])} for by in ("modality", "question_type")
        )
        columns = ItemColumns(
            id=[visible(record.item) for record in records],
            question=[questions.setdefault(visible(record.question), len(questions)) for record in records],
            options=[options.setdefault(tuple(map(visible, record.options)), len(options)) for record in records],
            label=[record.label for record in records],
            image=[visible(record.image) for record in records],
            source=[None if record.source is None else visible(record.source) for record in records],
            modality=[modalities[record.modality or UNKNOWN] for record in records],
            question_type=[question_types[record.question_type or UNKNOWN] for record in records],
        )
        return ItemsTable(columns=columns, questions=list(questions), options=list(options))


_RIGHT, _WRONG, _SILENT, _FAILED, _MISSING, _ABSTAINED = "+x?!-a"


def marks_of(run: Run, places: Mapping[str, int], count: int) -> list[str]:
    """Make one string for each condition, with one mark for the outcome of each of `count` items."""
    lines = []
    for rows in run.parts.values():
        marks = [_MISSING] * count
        for record in rows:
            marks[places[record.item]] = _mark(record)
        lines.append("".join(marks))
    return lines


def _mark(record: Record) -> str:
    if record.failed:
        return _FAILED
    if isinstance(record, CertifyRecord) and record.radius is None:
        return _ABSTAINED
    if record.correct:
        return _RIGHT
    return _SILENT if record.prediction is None else _WRONG


def radii_by_item(run: Run, places: Mapping[str, int], count: int) -> list[float | None]:
    """List the certified radius of each item; None where there is none."""
    radii: list[float | None] = [None] * count
    for record in run.certificates:
        radii[places[record.item]] = record.radius
    return radii


Entry = list[object]
"""The details of one record, shown when its item is opened.

For evaluate [prediction, probabilities, linf, l2, steps, text, error], and under the circular condition the answers to
all rotations. For certify [prediction, votes0, votes, p_lower, abstained, error], for sequential ones a `Ladder`, and,
for certificates about the file, what they say of that.
"""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The draws that a sequential certificate was read from.

    Attributes:
        gold: how many of the draws gave the gold answer.
        stopped: why no more were drawn.
        radii: from small to large (name, radius, largest ln e, whether it is certified).
    """

    draws: int
    gold: int
    stopped: str | None
    radii: list[tuple[str, float, float, bool]]


def details(run: Run, places: Mapping[str, int], count: int) -> Iterator[list[Entry | None]]:
    """List for each condition an entry for each of `count` items; None where there is no record."""
    for rows in run.parts.values():
        entries: list[Entry | None] = [None] * count
        for record in rows:
            entries[places[record.item]] = _entry(record)
        yield entries


def _entry(record: Record) -> Entry:
    error = None if record.error is None else visible(record.error)
    if isinstance(record, CertifyRecord):
        entry: Entry = [record.prediction, record.votes0, record.votes, record.p_lower, record.abstained, error]
        ladder = None if record.certified is None else _ladder(record)
        if own := own_pixel_words(record):
            return [*entry, ladder, own]
        return [*entry, ladder] if ladder else entry
    chances = None if record.log_probs is None else [round(math.exp(log_prob), 5) for log_prob in record.log_probs]
    linf, l2 = (None if size is None else float(f"{size:.6g}") for size in (record.linf, record.l2))
    entry = [record.prediction, chances, linf, l2, record.steps, _text(record.text), error]
    return [*entry, record.rotations] if record.attack == CIRCULAR else entry


def _ladder(record: CertifyRecord) -> Ladder:
    radii, evidence = record.radii or {}, record.max_log_e or {}
    return Ladder(
        draws=record.stopped_at or 0,
        gold=record.successes or 0,
        stopped=record.stopped,
        radii=[
            (visible(name), radii[name], evidence[name], certified)
            for name, certified in (record.certified or {}).items()
        ],
    )


def _text(text: str | None) -> str | None:
    if text is None or len(text) <= _LONGEST_TEXT:
        return None if text is None else visible(text)
    return f"{visible(text[:_LONGEST_TEXT])}\n[cut here: {len(text):,} characters in all, the rest is in records.jsonl]"


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The images of an item under one attack, as data URIs.

    Attributes:
        factor: by which the change is magnified around mid grey: a power of two that hardly clips it.
        size: width and height of the canvas.
    """

    run: int
    condition: str
    clean: str
    change: str
    attacked: str
    factor: int
    size: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """Kept images that cannot be shown."""

    run: int
    condition: str
    error: str


def images(runs: Sequence[Run], items: Items) -> dict[int, list[Pictures | Unreadable]]:
    """Collect the images of the first items that have any, by number of the item."""
    shown: dict[int, list[Pictures | Unreadable]] = {}
    for number, (run, places) in enumerate(zip(runs, items.places, strict=True)):
        if not run.has_images or run.out is None:
            continue
        for item, place, condition in _attacked(run, places):
            if place not in shown and len(shown) == MOST_IMAGES:
                continue
            try:
                pair = kept(run.out, item, condition)
                picture: Pictures | Unreadable | None = _pictures(number, condition, *pair) if pair else None
            except RunError as error:
                picture = Unreadable(run=number, condition=visible(condition), error=visible(error))
            if picture:
                shown.setdefault(place, []).append(picture)
    return shown


def _attacked(run: Run, places: Mapping[str, int]) -> Iterator[tuple[str, int, str]]:
    attacks = [name for name in run.conditions if name not in UNATTACKED]
    return ((item, place, condition) for item, place in places.items() for condition in attacks)


def _pictures(run: int, condition: str, clean: Pixels, attacked: Pixels) -> Pictures:
    change = attacked - clean
    most = float(np.quantile(np.abs(change), 0.995))
    factor = 2 ** max(0, math.floor(math.log2(0.51 / most))) if most > 0 else 1
    return Pictures(
        run=run,
        condition=visible(condition),
        clean=_encoded(clean, Image.Resampling.LANCZOS),
        change=_encoded(0.5 + factor * change, Image.Resampling.NEAREST),
        attacked=_encoded(attacked, Image.Resampling.LANCZOS),
        factor=factor,
        size=(clean.shape[1], clean.shape[0]),
    )


def _encoded(pixels: Pixels, shrink: Image.Resampling) -> str:
    """Make a data URI: exact where the image is small, else WebP, at most _WIDEST_IMAGE wide and high."""
    image = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
    small, stream = max(image.size) <= _SMALL_IMAGE, io.BytesIO()
    if max(image.size) > _WIDEST_IMAGE:
        scale = _WIDEST_IMAGE / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), shrink)
    kind, options = ("png", {"optimize": True}) if small else ("webp", {"quality": 90})
    image.save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
