"""The tables of a report that the page shows as they are: calibration, selective answers, groups, odds ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safemed_eval.report.columns import Column, stems
from safemed_eval.report.page.cells import Cell
from safemed_eval.report.run import Run
from safemed_eval.report.summary import DAGGER
from safemed_eval.report.tabular.table import Table

GROUPS = "Groups"
_TITLES = {
    "calibration": "Calibration",
    "selective": "Selective answers",
    "accuracy": GROUPS,
    "certified": GROUPS,
    "worst-groups": GROUPS,
    "odds": "What goes with falling under attack",
}
"""Titles by the name of a table, without what it is broken down by."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """A title, tables that are shown, and tables that are folded below them, each with a line to open it."""

    title: str
    shown: list[Table]
    folded: list[tuple[str, Table]]


def cell_of(text: str) -> Cell:
    """A cell of a table, with its interval below the figure."""
    figure, bracket, rest = text.partition(" [")
    bounds, _, after = rest.partition("]")
    few = DAGGER in after
    return Cell(figure, f"{bounds}{after.replace(DAGGER, '')}" if bracket else "", few)


def analyses_of(runs: Sequence[Run], tables: Sequence[Table]) -> list[Analysis]:
    """Choose the tables that the page does not have elsewhere."""
    own = {stem for by, stem in stems(runs[0].slicings).items() if isinstance(by, Column)} if runs else set()
    found = {title: Analysis(title=title, shown=[], folded=[]) for title in _TITLES.values()}
    for table in tables:
        name, by, stem = table.name.partition("-by-")
        if name not in _TITLES or (name in ("accuracy", "certified") and stem not in own):
            continue
        analysis = found[_TITLES[name]]
        if by:
            analysis.folded.append((f"{name.capitalize()} by {table.shown.columns[0]}", table))
        else:
            analysis.shown.append(table)
    return [analysis for analysis in found.values() if analysis.shown or analysis.folded]
