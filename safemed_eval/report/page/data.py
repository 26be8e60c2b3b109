"""What the page shows of whole runs, as plain values: cells of tables, curves of every slice.

All numbers come from `breakdown` and `curves`. All rounding of tables is done here, towards the weaker claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd

from safemed_eval import grammar
from safemed_eval.report.breakdown import Summary, breakdown, grey_levels, measure_of
from safemed_eval.report.curves import curve_of
from safemed_eval.report.findings.attack_sizes import shots
from safemed_eval.report.load import SLICES, Json, LoadedRun, radii_of
from safemed_eval.rounding import (
    accuracy,
    certified,
    floor_to,
    interval,
    percent,
    radius,
    radius_at_least,
    without_failed,
)
from safemed_eval.text import visible

Key = tuple[str | None, str | None]
"""A slice by modality and question type; None is all of them."""


class Cell(NamedTuple):
    """One cell of a table: a figure, lines below it in small type, and whether its interval is in doubt."""

    text: str
    below: str = ""
    few: bool = False


class Column(NamedTuple):
    title: str
    below: str = ""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A run with the numbers of every slice that has items.

    Attributes:
        cells: the table row of each slice, without the run's name; see `columns`.
        curves: for `certify` the certified-accuracy curve, for `evaluate` the accuracy of each condition.
    """

    run: LoadedRun
    style: int
    """Which colour, dash and marker it has in figures; runs of one name have the same."""
    radii: dict[str, float]
    summary: Summary
    cells: dict[Key, list[Cell]]
    curves: dict[Key, Json]


def studies_of(runs: Sequence[LoadedRun], radii: str | None) -> list[Study]:
    """Measure every slice of every run.

    Raises:
        SpecError: `radii` cannot be read.
    """
    text = radii_of(runs, radii)
    points = [grammar.radii(text, run.smoothing.sigma) if run.kind == "certify" else {} for run in runs]
    names = list(dict.fromkeys(run.name for run in runs))
    evaluated = [run for run in runs if run.kind == "evaluate"]
    conditions = list(dict.fromkeys(name for run in evaluated for name in run.conditions))
    values = {tuple(found.values()) for found in points if found}
    found = []
    for run, own in zip(runs, points, strict=True):
        summary, measure = breakdown(run, own), measure_of(run, own)
        cells, curves = {}, {}
        for key, part in slices_of(run.frame):
            numbers = _margin(summary, key) or measure(part)
            if run.kind == "certify":
                curve = curve_of(run, part)
                curves[key] = vars(curve) if curve else {}
                cells[key] = _certify_cells(run, numbers, tell_radius=len(values) > 1)
            else:
                curves[key] = {name: [cell[end] for end in _ENDS] for name, cell in numbers.items()}
                failed = replace(run, frame=part).failed
                cells[key] = _attack_cells(numbers, conditions, failed)
        style = names.index(run.name)
        found.append(Study(run=run, style=style, radii=own, summary=summary, cells=cells, curves=curves))
    return found


_ENDS = ("accuracy", "lower", "upper", "n", "few")


def slices_of(frame: pd.DataFrame) -> Iterator[tuple[Key, pd.DataFrame]]:
    """All rows, and those of each modality, each question type, and each pair of them that occurs."""
    yield (None, None), frame
    if frame.empty:
        return
    modality, question_type = SLICES
    for name, part in frame.groupby(modality):
        yield (str(name), None), part
        for other, both in part.groupby(question_type):
            yield (str(name), str(other)), both
    for name, part in frame.groupby(question_type):
        yield (None, str(name)), part


def _margin(summary: Summary, key: Key) -> Json | None:
    """What the summary says already: all, or one modality, or one question type."""
    modality, question_type = key
    if modality is None:
        return summary.overall if question_type is None else summary.by_question_type[question_type]
    return summary.by_modality[modality] if question_type is None else None


def columns(studies: Sequence[Study]) -> list[Column]:
    """The columns of a table over runs of one kind, as wide as the cells of each."""
    if studies[0].run.kind == "evaluate":
        names = dict.fromkeys(name for study in studies for name in study.run.conditions)
        return [Column("n", "clusters"), *map(condition_column, names), Column("failed")]
    values = {tuple(study.radii.values()) for study in studies}
    radii = studies[0].radii
    return [
        Column("n", "clusters"),
        Column("sigma", "ceiling"),
        *(Column(f"r ≥ {_radius_name(name)}", _known(name, value, len(values))) for name, value in radii.items()),
        Column("certified, wrong", "%"),
        Column("abstained", "%"),
        Column("ACR"),
        Column("median r"),
        Column("failed"),
    ]


def condition_column(name: str) -> Column:
    """The attack above its options."""
    kind, _, options = visible(name).partition(":")
    return Column(kind, options.replace(",", ", "))


def _radius_name(name: str) -> str:
    return f"{name[:-1]} sigma" if name.endswith("s") else name


def _known(name: str, value: float, sigmas: int) -> str:
    """A radius in figures below one in sigmas, where that is the same for all runs."""
    return f"{value:.6g}" if name.endswith("s") and sigmas == 1 else ""


def _attack_cells(numbers: Json, conditions: Sequence[str], failed: int) -> list[Cell]:
    first = next(iter(numbers.values()))
    cells = [Cell(f"{max(cell['n'] for cell in numbers.values()):,}", f"{first['clusters']:,}")]
    for name in conditions:
        cell = numbers.get(name)
        if cell is None:
            cells.append(Cell("n/a"))
            continue
        silent = f"\n{cell['no_answer']:,} no answer" if cell["no_answer"] else ""
        unclear = f"\n{cell['abstained']:,} abstained" if cell["abstained"] else ""
        parts = "".join(f"\n{visible(part)} {accuracy(one)}" for part, one in (cell["parts"] or {}).items())
        cells.append(Cell(accuracy(cell), _bounds(cell) + _rest(cell) + unclear + silent + parts, cell["few"]))
    return [*cells, Cell(f"{failed:,}")]


def _certify_cells(run: LoadedRun, numbers: Json, *, tell_radius: bool) -> list[Cell]:
    ceiling, n = run.smoothing.ceiling, numbers["n"]
    cells = [
        Cell(f"{n:,}", f"{numbers['clusters']:,}"),
        Cell(f"{run.smoothing.sigma:g}", "n/a" if ceiling is None else f"{floor_to(ceiling, 4):g}"),
    ]
    for name, point in numbers["certified"].items():
        at = f"r \u2265 {point['radius']:.6g}" if tell_radius and name.endswith("s") else ""
        below = "\n".join(filter(None, (_bounds(point) + _rest(point), at)))
        cells.append(Cell(certified(point), below, point["few"]))
    shown = radius_at_least if run.sequential else radius
    silent = f"{numbers['no_answer']:,} no answer" if numbers["no_answer"] else ""
    return [
        *cells,
        Cell(percent(numbers["wrong"] / n if n and numbers["wrong"] is not None else None)),
        Cell(percent(numbers["abstention"]), silent),
        Cell(shown(numbers["average_radius"]).replace(">=", "\u2265")),
        Cell(shown(numbers["median_radius"]).replace(">=", "\u2265")),
        Cell(f"{numbers['failed']:,}"),
    ]


def _bounds(cell: Mapping[str, Any]) -> str:
    return interval(cell["lower"], cell["upper"]).replace("-", "\u2013")


def _rest(cell: Mapping[str, Any]) -> str:
    """A line of its own on the items that did not fail, where some did."""
    rest = without_failed(cell).replace("-", "\u2013")
    return f"\n{rest}" if rest else ""


def families(run: LoadedRun) -> list[Json]:
    """The attacks of a run that differ in nothing but eps, each with its points; clean is the point at eps 0.

    Without an eps so large that it tests the attack and not the model, unless there is no other.
    """
    found: dict[tuple[str, str], Json] = {}
    every = shots(run)
    for shot in [shot for shot in every if not shot.is_huge] or every:
        family: Json = {"name": visible(shot.family), "norm": shot.norm, "points": [[0.0, "clean"]]}
        found.setdefault((shot.norm, shot.family), family)["points"].append([shot.eps, shot.condition])
    for family in found.values():
        family["points"].sort()
    return list(found.values())


def hides_huge(run: LoadedRun) -> bool:
    """Whether `families` leaves an eps out."""
    drawn = {name for family in families(run) for _, name in family["points"]}
    return any(shot.condition not in drawn for shot in shots(run))


def grey(run: LoadedRun) -> float | None:
    """Grey levels RMS of a change of L2 length 1 on the run's canvas."""
    return grey_levels(run.spec["canvas"])
