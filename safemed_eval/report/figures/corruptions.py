"""corruptions: accuracy against severity, a panel per kind of corruption, a line per run; clean at 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure

from safemed_eval.attacks.corrupt import SEVERITIES
from safemed_eval.report.breakdown import measure_of
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import CLEAN, CORRUPT, union
from safemed_eval.report.figures._curves import Points, line, plot
from safemed_eval.report.figures._sheet import below, label_outer, sheet
from safemed_eval.report.figures._style import DAGGER, ONE_COLUMN, TWO_COLUMNS, Look, looks
from safemed_eval.report.load import LoadedRun

_COLUMNS = 3


def draw(runs: Sequence[LoadedRun]) -> Iterator[tuple[str, Figure]]:
    own = looks(runs)
    for suffix, some in grouped.by_canvas(grouped.with_records(runs, "evaluate")):
        curves = {run.name: found for run in some if (found := _curves(run))}
        if curves:
            yield f"corruptions{suffix}", _figure([run for run in some if run.name in curves], own, curves)


def _curves(run: LoadedRun) -> dict[str, Points]:
    """By kind of corruption, without points that no item has yet."""
    cells = measure_of(run)(run.frame)
    clean = [(0.0, cells[CLEAN])] if CLEAN in cells else []
    found: dict[str, Points] = {}
    for condition, attack in run.spec["attacks"].items():
        if attack["attack"] == CORRUPT:
            found.setdefault(attack["kind"], [*clean]).append((attack["severity"], cells[condition]))
    return {
        kind: sorted(((at, cell) for at, cell in points if cell["accuracy"] is not None), key=lambda point: point[0])
        for kind, points in found.items()
    }


def _figure(runs: Sequence[LoadedRun], own: Mapping[str, Look], curves: Mapping[str, Mapping[str, Points]]) -> Figure:
    kinds = union(curves[run.name] for run in runs)
    columns = min(_COLUMNS, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = sheet(ONE_COLUMN if columns == 1 else TWO_COLUMNS, 0.2 + (1.9 if columns == 1 else 1.4) * rows)
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in grid[len(kinds) :]:
        axes.remove()
    label_outer(grid[: len(kinds)], columns)
    for axes, kind in zip(grid, kinds, strict=False):
        axes.set_title(kind)
        for run in runs:
            if points := curves[run.name].get(kind):
                plot(axes, points, own[run.name])
    grid[0].set_xlim(-0.2, SEVERITIES[-1] + 0.2)
    grid[0].set_xticks([0, *SEVERITIES])
    grid[0].set_ylim(0, 100)
    grid[0].set_yticks([0, 25, 50, 75, 100])
    cells = [cell for of_run in curves.values() for points in of_run.values() for _, cell in points]
    few = any(cell["few"] for cell in cells)
    notes = [
        "Severity 0 is the clean image, 1 barely visible, 5 bad. Bars: 95 % intervals; "
        f"{grouped.sizes(cell['n'] for cell in cells)}{DAGGER * few}."
    ]
    notes += [grouped.FEW] if few else []
    legend = {run.name: line(own[run.name]) for run in runs}
    label = f"severity of the corruption, {grouped.canvas_words(runs[0])}"
    return below(figure, legend, [*notes, *grouped.notes(runs)], x_label=label, y_label="accuracy (%)")
