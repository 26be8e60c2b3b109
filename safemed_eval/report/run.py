"""The run: what `evaluate` and `certify` return, and what reports and comparisons read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd

from safemed_eval.codec import Json, typed
from safemed_eval.core import GROUNDED, UNKNOWN
from safemed_eval.errors import SpecError
from safemed_eval.report.columns import Column, columns_of
from safemed_eval.report.corruptions import grades_of
from safemed_eval.report.curves import curve_of
from safemed_eval.report.findings.collect import findings_of
from safemed_eval.report.findings.finding import Finding
from safemed_eval.report.load import SLICES, LoadedRun, in_order, radii_of
from safemed_eval.report.rows import Certificates, Slicing
from safemed_eval.report.summary import (
    AnsweredBy,
    AnySummary,
    Certified,
    CertifySummary,
    answers_measure,
    certificates_measure,
    summarize,
)
from safemed_eval.report.text_cells import corruption_cells, text_cells
from safemed_eval.runs.record import CertifyRecord, Record
from safemed_eval.smoothing import SEQUENTIAL, Exhaustive
from safemed_eval.text import on_one_line, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL = "all"
"""The row of all items in a table."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Run(LoadedRun):
    """A run of evaluate or certify, in a folder or in memory.

    >>> run = Run.read("runs/a")
    >>> table = run.accuracy(by="modality")  # a certify run has certified accuracy at its radii
    >>> records = run.frame()                # one row per record
    >>> figure = run.plot()                  # of matplotlib
    >>> lines = [str(finding) for finding in run.findings]  # what a reader must know beside the numbers
    """

    @cached_property
    def summary(self) -> AnySummary:
        """The numbers, in all and by slice; `summary.to_json()` is what --json prints."""
        return summarize(self)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Facts that a reader must know beside the numbers, each with a severity and a sentence."""
        return findings_of(self, self.summary)

    @property
    def sound(self) -> bool:
        """False where attacks within certified radii proved more certificates false than chance allows."""
        return all(finding.key != "unsound" for finding in self.findings)

    @typed
    def accuracy(self, by: str | None = None) -> pd.DataFrame:
        """Return accuracy under each condition, or of a certify run certified accuracy at each radius.

        >>> share = run.accuracy(by="modality").loc["CT", "clean"]

        Args:
            by: "modality", "question_type", "source" or another column of the data, whose numbers are cut into
                quartiles; None: one row, "all".
        Returns:
            A row per slice. Columns: a share in [0, 1] for each condition, or each radius as "r>=0.5s" (s is sigma),
            then `n`, the number of items. NaN is unknown: every item failed, or no such radius can be certified.
            Failed items count as wrong. Shares are as measured; reports round certified ones down.
        Raises:
            SpecError: `by` is something else.
        """
        rows = {name: _accuracy_row(numbers) for name, numbers in self.numbers(self._slicing(by)).items()}
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(index=by)
        return table.astype({column: float for column in table if column != "n"})

    def frame(self) -> pd.DataFrame:
        """Return one row per record, with the fields of records.jsonl, and `cluster`: the patient, or else the image.

        A modality or question type that is not known is "unknown". The certificates of a certify run are those at
        `alpha`. Where they are about the file, `canvas_radius` is their radius on the canvas, and `stored_radius` that
        in stored values of DICOM files with a linear window.
        """
        table = pd.DataFrame([_row(record) for record in self.records])
        floats = [name for name in ("radius", "p_lower", "canvas_radius", "stored_radius") if name in table]
        known = {name: table[name].fillna(UNKNOWN) for name in SLICES if name in table}
        return table.astype(dict.fromkeys(floats, float)).assign(**known)

    @typed
    def curve(self, by: Slicing | None = None, *, grounded: bool = False) -> pd.DataFrame:
        """Return certified accuracy at rising radii, up to the largest that the sample budget certifies.

        A step function: a share holds for all radii above that of the row before, up to its own.

        Args:
            by: "modality" or "question_type"; None: all items.
            grounded: count only certificates that depend on the image; no rows where the run did not ask.
        Returns:
            Columns `radius`, `certified_accuracy`, `lower` and `upper`, shares in [0, 1] with pointwise 95 % bounds;
            and with `by` that column. No rows where every item failed.
        Raises:
            SpecError: this is a run of evaluate, or `by` is something else.
        """
        if self.kind != "certify":
            raise SpecError(f"{self.name}: a run of evaluate has no certified curve; use accuracy() or plot()")
        if by is not None and by not in SLICES:
            raise SpecError(f"by={by!r}: write one of {', '.join(map(repr, SLICES))}, or leave it out")
        parts: dict[str, Certificates] = {ALL: self.certificates} if by is None else self.certificates.split(by)
        tables = []
        for name in in_order(parts):
            curve = curve_of(self, parts[name], grounded=grounded)
            if curve:
                columns = {
                    "radius": curve.radii,
                    "certified_accuracy": curve.share,
                    "lower": curve.lower,
                    "upper": curve.upper,
                }
                tables.append(pd.DataFrame(columns if by is None else {by: name, **columns}))
        names = [*([by] if by else []), "radius", "certified_accuracy", "lower", "upper"]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)

    def plot(self) -> Figure:
        """Draw accuracy under each condition as bars, or the certified curve of a certify run.

        Notebooks show the figure; `run.plot().savefig("run.pdf")` writes it.
        """
        from safemed_eval.report.drawing.one_run import plot_accuracy, plot_curve

        if isinstance(self.summary, CertifySummary):
            return plot_curve(curve_of(self), self.ceiling, self.scale, visible(self.name))
        return plot_accuracy(self.summary, visible(self.name))

    def numbers(self, by: Slicing | Column | None) -> dict[str, AnsweredBy | Certified]:
        """The numbers of each slice, in order; None: of all items, by the name "all"."""
        slices: Mapping[str, AnsweredBy | Certified]
        if by is None:
            slices = {ALL: self.summary.overall}
        elif not isinstance(by, Column):
            slices = self.summary.by(by)
        elif self.kind == "certify":
            slices = {name: certificates_measure(self)(part) for name, part in self.certificates.split(by).items()}
        else:
            slices = {name: answers_measure(self)(part) for name, part in self.answers.split(by).items()}
        return {name: slices[name] for name in in_order(slices)}

    @typed
    def grouped(self, by: str | None) -> Run:
        """The same run broken down by these columns of its data, too, such as "age,sex".

        Raises:
            SpecError: no such column, or no item has a value in it.
        """
        return replace(self, by=columns_of(self.records, by) if by else ())

    def _slicing(self, by: str | None) -> Slicing | Column | None:
        """Find a column by its name.

        Raises:
            SpecError: there is none, or several are named.
        """
        if by is None or by in SLICES:
            return by
        columns = columns_of(self.records, by)
        if len(columns) > 1:
            raise SpecError(f"by={by!r}: name one column, or use grouped() and report()")
        return columns[0]

    def __str__(self) -> str:
        sentence = f"{self.kind} run {self.name}: {self.summary.items} of {self.summary.expected} items, {self.where}"
        return on_one_line(sentence)

    def __repr__(self) -> str:
        return f"<{self}>"

    def _repr_html_(self) -> str:
        """Show a notebook the numbers and findings; all text of models and data is escaped."""
        grades = grades_of([self])
        rows = {ALL: text_cells(self.summary.overall, grades)}
        for by, title in SLICES.items():
            rows |= {f"{title}: {name}": text_cells(numbers, grades) for name, numbers in self.numbers(by).items()}
        tables = [rows, *map(dict, corruption_cells(self.summary.overall, grades).values())]
        frames = [pd.DataFrame.from_dict(table, orient="index").map(visible) for table in tables]
        html = "".join(frame.rename(index=visible, columns=visible).to_html(escape=True) for frame in frames)
        colors = {"note": "inherit", "warn": "#b36b00", "fail": "#c00000"}
        items = "".join(
            f'<li style="color: {colors[finding.severity]}">{escape(visible(finding.text))}</li>'
            for finding in self.findings
        )
        return f"<p>{escape(str(self))}</p>{html}<ul>{items}</ul>"


def _accuracy_row(numbers: AnsweredBy | Certified) -> dict[str, float | int | None]:
    if isinstance(numbers, Certified):
        points = {f"r>={name}": point.share for name, point in numbers.points.items()}
        points |= {f"{GROUNDED}, r>={name}": point.share for name, point in numbers.grounded.items()}
        return points | {"n": numbers.n}
    return {name: cell.share for name, cell in numbers.items()} | {"n": next(iter(numbers.values())).n}


def read_all(runs: Sequence[str | Path | Run], *, alpha: float | None = None, images: bool = True) -> list[Run]:
    """Read several runs, and tell those of one name apart.

    Args:
        runs: folders, or NAME=FOLDER to call one so; or runs that are read already.
        alpha: read certificates at this one instead of each run's own.
        images: whether a report of them may show kept images.
    Raises:
        SpecError: a folder is given twice, or two runs are given one name.
    """
    loaded, given = list[Run](), list[tuple[str, str]]()
    for asked in runs:
        if isinstance(asked, Run):
            run, named = asked if alpha is None else asked.at_alpha(alpha), False
        else:
            name, equals, folder = str(asked).partition("=")
            named = bool(equals) and not Path(asked).exists()
            if named and not (name and folder):
                raise SpecError(f"{asked}: write NAME=FOLDER, or the folder alone")
            run = Run.read(folder if named else asked, alpha=alpha, name=name if named else None)
        loaded.append(run if images or not run.with_images else replace(run, with_images=False))
        given += [(run.name, run.kind)] if named else []
    places = Counter(run.out.resolve() if run.out else run for run in loaded)
    twice = [str(place) for place, count in places.items() if count > 1]
    twice += [name for (name, _), count in Counter(given).items() if count > 1]
    if twice:
        raise SpecError(f"{twice[0]}: is given twice")
    for word in _TELLING:
        counts = Counter((run.name, run.kind) for run in loaded)
        loaded = [
            replace(run, name=f"{run.name}, {word(run)}")
            if counts[run.name, run.kind] > 1 and word(run) and (run.name, run.kind) not in given
            else run
            for run in loaded
        ]
    return _numbered(loaded)


def _numbered(runs: Sequence[Run]) -> list[Run]:
    """Number those that still share a name: runs in memory."""
    counts, seen = Counter((run.name, run.kind) for run in runs), Counter[tuple[str, str]]()
    named = []
    for run in runs:
        key = (run.name, run.kind)
        seen[key] += 1
        named.append(replace(run, name=f"{run.name} {seen[key]}") if counts[key] > 1 else run)
    return named


def at_common_radii(runs: Sequence[Run], radii: str | None) -> list[Run]:
    """Show the certified accuracy of these runs at the same radii, or sizes of patches; see `radii_of`.

    Raises:
        SpecError: `radii` cannot be read.
    """
    of_patches = [run for run in runs if run.kind == "certify" and isinstance(run.own_budget, Exhaustive)]
    common, sizes = radii_of([run for run in runs if run not in of_patches], radii), radii_of(of_patches, radii)

    def shown(run: Run) -> Run:
        asked = sizes if run in of_patches else common
        return run if run.kind == "evaluate" or run.radii == asked else run.at(asked)

    return [shown(run) for run in runs]


def with_columns(runs: Sequence[Run], by: str | None) -> list[Run]:
    """Break these runs down by columns of their data, with the same groups in all; see `columns_of`.

    Args:
        by: None: the columns that any of these runs is broken down by already.
    Raises:
        SpecError: no run has such a column, or no item has a value in it.
    """
    if by is None:
        known = dict.fromkeys(column.name for run in runs for column in run.by)
        if not known:
            return [*runs]
        by = ",".join(known)
    columns = columns_of([record for run in runs for record in run.records], by)
    return [replace(run, by=columns) for run in runs]


def _row(record: Record) -> Json:
    row = record.to_json() | {"cluster": record.cluster}
    if isinstance(record, CertifyRecord) and record.view and record.view.file:
        radius, view = record.radius, record.view
        row["canvas_radius"] = math.nan if radius is None else view.on_canvas(radius)
        row["stored_radius"] = None if radius is None else view.in_stored_values(radius)
    return row


_TELLING: tuple[Callable[[Run], str], ...] = (
    lambda run: run.budget.kind.title if run.kind == "certify" else "",
    lambda run: SEQUENTIAL if run.sequential else "",
    lambda run: "random option order" if run.random_order else "",
    lambda run: run.out.name if run.out else "",
    lambda run: run.where,
)
"""Additions to the names of runs of one name, tried in this order until they differ."""
