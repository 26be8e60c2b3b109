"""heatmap: modality x question type. Accuracy clean and under the strongest attack, or certified accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from safemed_eval.report.breakdown import measure_of
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import CLEAN, is_search, words
from safemed_eval.report.figures._cells import Cell, accuracy_cell, matrix, scale
from safemed_eval.report.figures._sheet import below, sheet
from safemed_eval.report.figures._style import TWO_COLUMNS, plain
from safemed_eval.report.findings.attack_sizes import shots
from safemed_eval.report.load import Json, LoadedRun
from safemed_eval.rounding import floor_to
from safemed_eval.smoothing import Sequential

_MOST_COLUMNS = 12
_SIDE_BY_SIDE = 6
"""With more columns than this, two matrices stand one above the other."""
_SIGMAS = (1.0, 0.5, 0.25)
"""The second radius is the first of these, in sigmas, that the sample budget can certify."""

Panels = dict[str, list[list[Cell]]]
"""Matrices by heading."""


def draw(runs: Sequence[LoadedRun]) -> Iterator[tuple[str, Figure]]:
    for kind, stem in (("evaluate", "accuracy-heatmap"), ("certify", "certified-heatmap")):
        for suffix, run in grouped.one_by_one(grouped.with_records(runs, kind)):
            rows, columns = grouped.groups([run], "modality"), grouped.groups([run], "question_type", _MOST_COLUMNS)
            if rows and columns:
                panels = _accuracies(run, rows, columns) if kind == "evaluate" else _certified(run, rows, columns)
                yield f"{stem}{suffix}", _figure(run, rows, columns, panels)


def _accuracies(run: LoadedRun, rows: Sequence[str], columns: Sequence[str]) -> Panels:
    cells = _measured(run, rows, columns, None)
    shown = [CLEAN, *([strongest] if (strongest := _strongest(run)) else [])]
    title = {CLEAN: "clean"} | {name: f"strongest attack: {words(name)}" for name in shown[1:]}
    return {title[name]: [[accuracy_cell(one[name]) for one in row] for row in cells] for name in shown}


def _strongest(run: LoadedRun) -> str | None:
    """The attack that leaves the lowest accuracy, failed items aside; one of huge eps only where there is no other."""
    overall = measure_of(run)(run.frame)
    found = {
        name: rest["share"] if (rest := overall[name]["without_failed"]) else overall[name]["accuracy"]
        for name in run.conditions
        if is_search(name) and overall[name]["accuracy"] is not None
    }
    huge = {shot.condition for shot in shots(run) if shot.is_huge}
    return min(found.keys() - huge or found, key=lambda name: (found[name], name), default=None)


def _certified(run: LoadedRun, rows: Sequence[str], columns: Sequence[str]) -> Panels:
    points = _points(run)
    cells = _measured(run, rows, columns, points)
    return {
        name: [
            [
                Cell(
                    share=one["certified"][name]["certified_accuracy"],
                    n=one["n"],
                    few=one["certified"][name]["few"],
                    failed=one["certified"][name]["all_failed"],
                )
                for one in row
            ]
            for row in cells
        ]
        for name in points
    }


def _points(run: LoadedRun) -> dict[str, float]:
    """Two radii by what to call them: 0, and one further out; of a sequential run those that it knows."""
    budget = run.smoothing
    sigma, ceiling = budget.sigma, budget.ceiling or 0.0
    if isinstance(budget, Sequential):
        known = [radius for radius in budget.ladder.values() if radius <= ceiling]
        first, further = known[0], [times for times in _SIGMAS if budget.asked(times * sigma) in known]
    else:
        first, further = 0.0, [times for times in _SIGMAS if times * sigma <= ceiling]
    other = further[0] * sigma if further else ceiling
    words_of = f"{further[0]:g} sigma" if further else "the ceiling"
    found = {f"at radius {first:g}": first, f"at radius {other:g} ({words_of})": other}
    return {name: radius for name, radius in found.items() if first < other or words_of in name}


def _measured(
    run: LoadedRun, rows: Sequence[str], columns: Sequence[str], points: dict[str, float] | None
) -> list[list[Json]]:
    measure, frame = measure_of(run, points), run.frame
    return [
        [measure(frame[(frame["modality"] == row) & (frame["question_type"] == column)]) for column in columns]
        for row in rows
    ]


def _figure(run: LoadedRun, rows: Sequence[str], columns: Sequence[str], panels: Panels) -> Figure:
    beside = len(columns) <= _SIDE_BY_SIDE
    height = 0.2 + 0.31 * len(rows)
    figure = sheet(TWO_COLUMNS, 0.95 + height * (1 if beside else len(panels)))
    shape = (1, len(panels)) if beside else (len(panels), 1)
    grid = list(figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).flat)
    certified = run.kind == "certify"
    for axes, (title, cells) in zip(grid, panels.items(), strict=True):
        image = matrix(axes, cells, rows, columns, down=certified)
        axes.set_title(title)
    scale(figure, image, grid, "certified accuracy (%)" if certified else "accuracy (%)")
    notes = [f"{plain(run.name, 60)}, {grouped.canvas_words(run)}."]
    if certified:
        ceiling = floor_to(run.smoothing.ceiling or 0.0, 4)
        notes[0] = f"{notes[0][:-1]}, sigma {run.smoothing.sigma:g}; no radius above {ceiling} can be certified."
    if any(cell.few for cells in panels.values() for row in cells for cell in row):
        notes.append(grouped.FEW)
    for column, shown in (("modality", rows), ("question_type", columns)):
        notes += grouped.left_out([run], column, shown)
    return below(figure, {}, [*notes, *grouped.notes([run])])
