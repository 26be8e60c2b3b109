"""The data of a run: items that were chosen from a data set and verified, and how they were chosen.

>>> load_data("phantom", limit=192, modality=["CT", "MRI"])
<Data phantom: 192 items, canvas 64x64 stretch, 192 drawn at random from 432>
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from safemed_eval.codec import fitted, typed
from safemed_eval.core import Item, Question
from safemed_eval.data.canvas import DEFAULT_CANVAS, Canvas, Fit, parse_canvas
from safemed_eval.data.dataset import DataSet, listed
from safemed_eval.data.description import count_groups
from safemed_eval.data.kinds import load, spelled
from safemed_eval.data.option_order import shuffled
from safemed_eval.data.records import Builder, refuse_unaskable
from safemed_eval.data.selection import Selection, select
from safemed_eval.data.verification import verify
from safemed_eval.errors import DataError, SpecError, shortened
from safemed_eval.grammar import after
from safemed_eval.progress import Tick, no_progress, progress

_BAD_SHOWN = 1000
_TEXTS = ("modality", "question_type", "source", "patient_id")
_FIELDS: Mapping[str, object] = {
    **{"id": str, "question": Question, "label": int, "image": str, "root": Path, "extra": Mapping},
    **dict.fromkeys(_TEXTS, str | None),
}
"""The types of an item's fields, which records hold."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Data:
    """Items whose images have all been opened, and how they were chosen. Made by `load_data` or `Data.from_items`.

    It has a length, and yields its items. In a notebook it shows their counts.

    Attributes:
        name: what --data said, such as "phantom:split=train".
        set: the items in the order of their options in the data, those that were left out, and notes on images.
        canvas: the pixel grid on which eps, sigma and radius are measured.
        selection: the filters and counts that the items were chosen by.
        shuffle_options: seed of the order in which options are asked; None: as they stand in the data.
    """

    name: str
    set: DataSet
    canvas: Canvas
    selection: Selection = field(default_factory=Selection)
    shuffle_options: int | None = None

    @classmethod
    @typed
    def from_items(
        cls,
        items: Iterable[Item],
        *,
        name: str = "items",
        canvas: Canvas = DEFAULT_CANVAS,
        skip_bad: bool = False,
        shuffle_options: int | None = None,
        progress: Tick = no_progress,
    ) -> Data:
        """Verify items that were built in Python.

        Args:
            name: what runs and reports call this data.
            skip_bad: leave out items that cannot be used, and count them.
            shuffle_options: ask the options of each question in an order drawn by this seed.
        Raises:
            DataError: an item cannot be used, such as one whose image cannot be read.
        """
        builder = Builder()
        for item in map(_typed, items):
            builder.add(item.id, partial(_answerable, item), modality=item.modality, question_type=item.question_type)
        whole = replace(builder.done(), canvas=canvas)
        choice = Choice(name=name, whole=whole, canvas=canvas, skip_bad=skip_bad, shuffle_options=shuffle_options)
        return choice.verified(progress)

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The items as they are asked: with their options shuffled, where that was wanted."""
        if self.shuffle_options is None:
            return self.set.items
        return shuffled(self.set, self.shuffle_options).items

    def __len__(self) -> int:
        return len(self.set.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __repr__(self) -> str:
        bad = f", {len(self.set.bad)} left out" if self.set.bad else ""
        sampled = f", {self.set.sampled}" if self.set.sampled else ""
        return f"<Data {self.name}: {len(self)} items{bad}, canvas {self.canvas}{sampled}>"

    def _repr_html_(self) -> str:
        groups = count_groups(self.set.items)
        counts = {(group.modality, group.question_type): group.n for group in groups}
        types = sorted({group.question_type for group in groups})
        rows = [["", *types]]
        for modality in sorted({group.modality for group in groups}):
            rows.append([modality, *(str(counts.get((modality, kind), "-")) for kind in types)])
        head, *body = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
        table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in body)}</tbody>"
        return f"<p>{escape(repr(self)[1:-1])}</p><table>{table}</table>"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Items that were chosen, and not verified yet: no image has been opened. Made by `choose_data`.

    Attributes:
        whole: the data set that the items are chosen from.
        draw: `select` with its arguments.
        chosen: the items.
    """

    name: str
    whole: DataSet
    canvas: Canvas
    draw: partial[DataSet] = field(default_factory=lambda: partial(select))
    selection: Selection = field(default_factory=Selection)
    skip_bad: bool = False
    shuffle_options: int | None = None
    chosen: DataSet = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chosen", self.draw(self.whole))

    def __len__(self) -> int:
        return len(self.chosen.items)

    def pilot(self, count: int) -> Choice:
        """At most `count` of the same items, whatever their groups; those that cannot be used are replaced."""
        return replace(self, draw=partial(self.draw, per_group=None, limit=count), skip_bad=True)

    def verified(self, progress: Tick = no_progress) -> Data:
        """Open every image; with `skip_bad`, others are drawn for items that cannot be used, as far as there are any.

        Args:
            progress: called with (images done, images in all).
        Raises:
            DataError: an item cannot be used, or with `skip_bad` none can.
        """
        whole, chosen = self.whole, verify(self.chosen, progress)
        while chosen.bad:
            if not self.skip_bad:
                raise DataError(_bad_items(chosen, self.name))
            new = {bad.id for bad in chosen.bad} - {bad.id for bad in whole.bad}
            if not new:
                break
            kept = tuple(item for item in whole.items if item.id not in new)
            whole = replace(whole, items=kept, bad=chosen.bad)
            chosen = verify(self.draw(whole), progress)
        if not chosen.items:
            raise DataError(f"--data {self.name}: none of the {len(chosen.bad)} items can be used: {chosen.bad[0]}")
        return Data(
            name=self.name,
            set=chosen,
            canvas=self.canvas,
            selection=self.selection,
            shuffle_options=self.shuffle_options,
        )


@typed
def choose_data(
    spec: str,
    *,
    root: str | Path | None = None,
    per_group: int | None = None,
    limit: int | None = None,
    modality: str | Sequence[str] = (),
    question_type: str | Sequence[str] = (),
    canvas: str | None = None,
    fit: Fit = "stretch",
    skip_bad: bool = False,
    shuffle_options: int | None = None,
    seed: int = 0,
) -> Choice:
    """Read the questions of a data set and choose from them. Cheap: no image is opened before `Choice.verified`.

    Args:
        spec: "phantom", or KIND:PATH, such as "omnimedvqa:DIR", "medr1:FILE_OR_DIR" or "table:FILE.csv".
        root: folder that image paths are relative to, where it is not the data's own.
        per_group: take this many items of each modality x question type, drawn by `seed`.
        limit: take at most this many items, drawn by `seed`.
        modality: only this one, or these, such as "CT".
        question_type: only this one, or these, such as "Disease Diagnosis".
        canvas: "HxW" or "native", the pixel grid on which eps, sigma and radius are measured; None: the data's own.
        fit: "stretch" to the canvas, or "pad": keep the aspect ratio, with black around.
        skip_bad: leave out items that cannot be used, and count them.
        shuffle_options: ask the options of each question in an order drawn by this seed.
        seed: of samples.
    Raises:
        As `load_data`, of all but the images.
    """
    spec = spelled(spec)
    whole = load(spec, None if root is None else Path(root))
    modalities, question_types = _several(modality), _several(question_type)
    return Choice(
        name=spec,
        whole=whole,
        canvas=parse_canvas(canvas, fit, whole.canvas),
        draw=partial(
            select, seed=seed, per_group=per_group, limit=limit, modalities=modalities, question_types=question_types
        ),
        selection=Selection(modality=modalities, question_type=question_types, per_group=per_group, limit=limit),
        skip_bad=skip_bad,
        shuffle_options=shuffle_options,
    )


@after(choose_data)
def load_data(choice: Choice) -> Data:
    """Choose items of a data set, and open every image, with a progress bar; arguments as in `choose_data`.

    >>> import safemed_eval as se
    >>> se.load_data("phantom", limit=8)
    <Data phantom: 8 items, canvas 64x64 stretch, 8 drawn at random from 1728>

    Raises:
        SpecError: an argument names nothing that is there.
        DataError: nothing readable at the path, or an item that cannot be used.
    """
    with progress("reading images", transient=True) as tick:
        return choice.verified(tick)


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _typed(item: Item) -> Item:
    """The item with numbers of Python in place of NumPy's; raise SpecError where a field is of another type."""
    fields: dict[str, Any] = {name: fitted(getattr(item, name), kind, name) for name, kind in _FIELDS.items()}
    fitted(item.question.options, tuple, "options")
    fitted([*item.extra, *item.extra.values()], Sequence[str], "extra")
    return replace(item, **fields)


def _answerable(item: Item) -> Item:
    refuse_unaskable(item.question.text, item.question.options)
    if not 0 <= item.label < len(item.question.options):
        raise DataError(f"label {item.label} is not the index of one of its {len(item.question.options)} options")
    return item


def _bad_items(chosen: DataSet, name: str) -> str:
    return (
        f"--data {name}: {len(chosen.bad)} of {len(chosen.bad) + len(chosen.items)} items cannot be used; fix them, "
        "or pass --skip-bad to run without them and have them counted:\n" + listed(chosen.bad, _BAD_SHOWN)
    )


AnyData = Data | Choice | str | Callable[[], Choice]
"""Chosen data, what `load_data` takes, or a call of `choose_data` that is still to be made."""
D = TypeVar("D", bound=Data | Choice)


def choice_of(data: D | str | Callable[[], Choice]) -> D | Choice:
    """Choose the items, unless that is done."""
    if isinstance(data, str):
        return choose_data(data)
    chosen = data if isinstance(data, (Data, Choice)) else data()
    if not isinstance(chosen, (Data, Choice)):
        raise SpecError(f"data: the function must return what choose_data returns, got {shortened(repr(chosen), 80)}")
    return chosen
