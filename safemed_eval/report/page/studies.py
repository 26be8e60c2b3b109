"""Runs measured in every slice that has items: the rows of the page's tables and the points of its curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from safemed_eval.report.curves import Curve, curve_of
from safemed_eval.report.page.cells import Cell, accuracy_row, certified_row, conditions_of, points_of, radii_differ
from safemed_eval.report.run import Run, at_common_radii
from safemed_eval.report.summary import (
    AnsweredBy,
    CertifySummary,
    Noted,
    Numbers,
    Part,
    Summary,
    answers_measure,
    certificates_measure,
)

Key = tuple[str | None, str | None]
"""A slice by modality and question type; None is all of them."""


class AccuracyPoint(NamedTuple):
    """A point of a curve of accuracy against eps."""

    accuracy: float | None
    lower: float | None
    upper: float | None
    n: int
    few: bool


AccuracyPoints = dict[str, AccuracyPoint]
"""By condition."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One slice of a run.

    Attributes:
        row: of a table, without the run's name; see `cells.columns`.
        curve: None for a certify run of which nothing was measured.
        grounded: the curve of grounded certified accuracy; None for a run that has none.
    """

    row: list[Cell]
    curve: AccuracyPoints | Curve | None
    grounded: Curve | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """A run with the numbers of every slice that has items.

    Attributes:
        style: which colour, dash and marker it has in figures; runs of one name have the same.
    """

    run: Run
    style: int
    slices: dict[Key, Shown]

    @property
    def few(self) -> bool:
        """True where a cell of any slice has too few clusters."""
        return any(cell.few for shown in self.slices.values() for cell in shown.row)


def studies_of(runs: Sequence[Run], radii: str | None = None) -> list[Study]:
    """Measure every slice of every run.

    Raises:
        SpecError: `radii` cannot be read.
    """
    runs = at_common_radii(runs, radii)
    names, conditions = list(dict.fromkeys(run.name for run in runs)), conditions_of(runs)
    with_radius, points = radii_differ(runs), points_of(runs)
    return [
        Study(
            run=run,
            style=names.index(run.name),
            slices=_certified(run, run.summary, points, with_radius)
            if isinstance(run.summary, CertifySummary)
            else _answered(run, run.summary, conditions),
        )
        for run in runs
    ]


def _answered(run: Run, summary: Summary[AnsweredBy, Noted], conditions: Sequence[str]) -> dict[Key, Shown]:
    measure, slices = answers_measure(run), {}
    for key, part in slices_of(run.answers):
        numbers = _known(summary, key) or measure(part)
        points = {
            name: AccuracyPoint(cell.share, cell.lower, cell.upper, cell.n, cell.few) for name, cell in numbers.items()
        }
        slices[key] = Shown(row=accuracy_row(numbers, conditions, part.failed_items), curve=points)
    return slices


def _certified(run: Run, summary: CertifySummary, points: Iterable[str], with_radius: bool) -> dict[Key, Shown]:
    measure = certificates_measure(run)
    return {
        key: Shown(
            row=certified_row(run, _known(summary, key) or measure(part), points, with_radius=with_radius),
            curve=curve_of(run, part),
            grounded=curve_of(run, part, grounded=True),
        )
        for key, part in slices_of(run.certificates)
    }


def slices_of(rows: Part) -> Iterator[tuple[Key, Part]]:
    """Split rows: all of them, each modality, each question type, and each pair of these that occurs."""
    yield (None, None), rows
    for name, part in rows.split("modality").items():
        yield (name, None), part
        for other, both in part.split("question_type").items():
            yield (name, other), both
    for name, part in rows.split("question_type").items():
        yield (None, name), part


def _known(summary: Summary[Numbers, Noted], key: Key) -> Numbers | None:
    """The numbers of a slice that the summary holds: all, or one modality, or one question type."""
    modality, question_type = key
    if modality is None:
        return summary.overall if question_type is None else summary.by_question_type[question_type]
    return summary.by_modality[modality] if question_type is None else None
