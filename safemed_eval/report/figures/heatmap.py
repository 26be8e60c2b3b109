"""heatmap: modality x question type. Accuracy clean and under the strongest attack, or certified accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from safemed_eval.core import CLEAN
from safemed_eval.report.budgets import symbols
from safemed_eval.report.conditions import strongest, words
from safemed_eval.report.drawing.matrix import Cell, cell_of, matrix, scale
from safemed_eval.report.drawing.sheet import below, sheet
from safemed_eval.report.drawing.style import layout, plain
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.rows import Slicing
from safemed_eval.report.run import Run
from safemed_eval.report.summary import EvaluateSummary, Part, answers_measure, certificates_measure
from safemed_eval.rounding import floor_to
from safemed_eval.smoothing import Exhaustive, Sequential

_MOST_COLUMNS = 12
_SIDE_BY_SIDE = 6
"""With more columns than this, two matrices stand one above the other."""
_SIGMAS = (1.0, 0.5, 0.25)
"""The second radius is the first of these, in sigmas, that the sample budget can certify."""

Panels = dict[str, list[list[Cell]]]
"""Matrices by heading."""


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    for kind, stem in (("evaluate", "accuracy-heatmap"), ("certify", "certified-heatmap")):
        for suffix, run in grouped.one_by_one(grouped.with_records(runs, kind)):
            rows, columns = grouped.groups([run], "modality"), grouped.groups([run], "question_type", _MOST_COLUMNS)
            if rows and columns:
                panels = _accuracies(run, rows, columns) if kind == "evaluate" else _certified(run, rows, columns)
                yield f"{stem}{suffix}", _figure(run, rows, columns, panels)


def _accuracies(run: Run, rows: Sequence[str], columns: Sequence[str]) -> Panels:
    measure = answers_measure(run)
    measured = [[measure(part) for part in row] for row in _parts(run.answers, rows, columns)]
    assert isinstance(run.summary, EvaluateSummary)
    worst = strongest(run, run.summary.overall)
    titles = {CLEAN: CLEAN} | ({worst: f"strongest attack: {words(worst)}"} if worst else {})
    return {title: [[cell_of(part[name]) for part in row] for row in measured] for name, title in titles.items()}


def _certified(run: Run, rows: Sequence[str], columns: Sequence[str]) -> Panels:
    points = _points(run)
    measure = certificates_measure(run, points)
    measured = [[measure(part) for part in row] for row in _parts(run.certificates, rows, columns)]
    return {name: [[cell_of(part.points[name]) for part in row] for row in measured] for name in points}


def _points(run: Run) -> dict[str, float]:
    """Two radii by what to call them: 0, and one further out; of a sequential run those that it knows."""
    budget, ceiling = run.budget, run.ceiling
    if isinstance(budget, Exhaustive):
        sizes = (0, min(budget.kind.size, int(ceiling)))
        return {f"at size {size}": float(size) for size in sizes}
    sigma = budget.sigma
    if isinstance(budget, Sequential):
        known = [radius for radius in budget.ladder.values() if radius <= ceiling]
        first, further = known[0], [times for times in _SIGMAS if budget.asked(times * sigma) in known]
    else:
        first, further = 0.0, [times for times in _SIGMAS if times * sigma <= ceiling]
    other, length = (further[0] * sigma, f"{further[0]:g} sigma") if further else (ceiling, "the ceiling")
    points = {f"at radius {first:g}": first, f"at radius {other:g} ({length})": other}
    return {name: radius for name, radius in points.items() if first < other or length in name}


def _parts(every: Part, modalities: Sequence[str], question_types: Sequence[str]) -> list[list[Part]]:
    """The rows of each modality, by question type."""
    nothing, by_modality = every[:0], every.split("modality")
    split = [by_modality.get(name, nothing).split("question_type") for name in modalities]
    return [[parts.get(name, nothing) for name in question_types] for parts in split]


def _figure(run: Run, rows: Sequence[str], columns: Sequence[str], panels: Panels) -> Figure:
    beside = len(columns) <= _SIDE_BY_SIDE
    height = 0.2 + 0.31 * len(rows)
    figure = sheet(layout().page, 0.95 + height * (1 if beside else len(panels)))
    shape = (1, len(panels)) if beside else (len(panels), 1)
    grid = list(figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).flat)
    certified = run.kind == "certify"
    for axes, (title, cells) in zip(grid, panels.items(), strict=True):
        image = matrix(axes, cells, rows, columns)
        axes.set_title(title)
    scale(figure, image, grid, "certified accuracy (%)" if certified else "accuracy (%)")
    notes = [f"{plain(run.name, 60)}, {grouped.canvas_words(run)}."]
    if certified:
        ceiling = floor_to(run.ceiling, 4)
        notes[0] = f"{notes[0][:-1]}, {', '.join(symbols(run.budget))}; no radius above {ceiling} can be certified."
    notes += grouped.few_note(any(cell.few for cells in panels.values() for row in cells for cell in row))
    shown: dict[Slicing, Sequence[str]] = {"modality": rows, "question_type": columns}
    for by, names in shown.items():
        notes += grouped.left_out([run], by, names)
    return below(figure, {}, [*notes, *grouped.notes([run])])
