"""Tables of what the models wrote, by run and condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safemed_eval.report.findings.reasoning import CHANGES, SHARES, Texts, TextShare, reasoning
from safemed_eval.report.load import SLICES, in_order
from safemed_eval.report.page.cells import Cell, Column, condition_column
from safemed_eval.report.run import Run
from safemed_eval.rounding import percent

COLUMNS = [
    Column("items", "texts"),
    Column("words", "median"),
    *(Column(title, "%, of how many") for title in SHARES.values()),
    *(Column(title, "distance, how many") for title in CHANGES.values()),
]

Row = tuple[Column, list[Cell]]
"""A condition, and its cells; see `COLUMNS`."""
Group = tuple[str | None, list[tuple[str, list[Row]]]]
"""A slice, None for all items, and the rows of each run that has texts of it."""


@dataclass(frozen=True, kw_only=True)
class TextTables:
    """The tables of all runs that have texts: of all items, and by what the slices are called."""

    overall: list[Group]
    slices: dict[str, list[Group]]


def texts_of(runs: Sequence[Run]) -> TextTables | None:
    """Make the tables; None where no run has texts."""
    written = [(run.name, read) for run in runs if (read := reasoning(run))]
    if not written:
        return None
    slices: dict[str, list[Group]] = {}
    for by, title in SLICES.items():
        parts = [(name, read.by_modality if by == "modality" else read.by_question_type) for name, read in written]
        slices[title] = [
            (slice_, [(name, _rows(part[slice_])) for name, part in parts if slice_ in part])
            for slice_ in in_order({slice_ for _, part in parts for slice_ in part})
        ]
    return TextTables(overall=[(None, [(name, _rows(read.overall)) for name, read in written])], slices=slices)


def _rows(conditions: Mapping[str, Texts]) -> list[Row]:
    return [(condition_column(name), _cells(texts)) for name, texts in conditions.items()]


def _cells(texts: Texts) -> list[Cell]:
    shares = [_cell(share, percent(share.share) if share else "") for share in texts.shares.values()]
    changes = [_cell(change, change.distance_words if change else "") for change in texts.changes.values()]
    return [Cell(f"{texts.n:,}", f"{texts.texts:,}"), Cell(texts.words_text), *shares, *changes]


def _cell(share: TextShare | None, text: str) -> Cell:
    return Cell(text, f"{share.count:,} of {share.n:,}") if share and share.n else Cell("n/a")
