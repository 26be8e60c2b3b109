"""What the page shows of written answers, as plain values: cells of tables by run and condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safemed_eval.report.findings.reasoning import CHANGES, SHARES, reasoning
from safemed_eval.report.load import SLICES, Json, in_order
from safemed_eval.report.page.data import Cell, Column, Study, condition_column
from safemed_eval.rounding import percent
from safemed_eval.text import visible

COLUMNS = [
    Column("n", "texts"),
    Column("words", "median"),
    *(Column(title, "%, of how many") for title in SHARES.values()),
    *(Column(title, "distance, how many") for title in CHANGES.values()),
]


Row = tuple[Column, list[Cell]]
"""What heads it, a condition, and its cells; see `COLUMNS`."""
Group = tuple[str | None, list[tuple[str, list[Row]]]]
"""A slice, None for all items, and the rows of each run that has texts of it."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The tables of all runs that have texts."""

    overall: list[Group]
    slices: dict[str, list[Group]]
    """By what the slices are called."""


def texts_of(studies: Sequence[Study]) -> Texts | None:
    """None where no run has texts."""
    found = [(visible(study.run.name), read) for study in studies if (read := reasoning(study.run))]
    if not found:
        return None
    slices: dict[str, list[Group]] = {}
    for column, noun in SLICES.items():
        parts = [(name, read.by_modality if column == "modality" else read.by_question_type) for name, read in found]
        names = in_order({one for _, part in parts for one in part})
        slices[noun] = [
            (visible(one), [(name, _rows(part[one])) for name, part in parts if one in part]) for one in names
        ]
    return Texts(overall=[(None, [(name, _rows(read.overall)) for name, read in found])], slices=slices)


def _rows(numbers: Json) -> list[Row]:
    return [(condition_column(name), _cells(cell)) for name, cell in numbers.items()]


def _cells(cell: Json) -> list[Cell]:
    length = "n/a" if cell["words"] is None else f"{cell['words']:g}"
    sizes = [Cell(f"{cell['n']:,}", f"{cell['texts']:,}"), Cell(length)]
    return [*sizes, *(_share(cell[key]) for key in SHARES), *(_change(cell[key]) for key in CHANGES)]


def _share(share: Json | None) -> Cell:
    if not share or not share["n"]:
        return Cell("n/a")
    return Cell(percent(share["share"]), f"{share['count']:,} of {share['n']:,}")


def _change(change: Json | None) -> Cell:
    if not change or not change["n"]:
        return Cell("n/a")
    mean = "n/a" if change["distance"] is None else f"{change['distance']:.2f}"
    return Cell(mean, f"{change['count']:,} of {change['n']:,}")
