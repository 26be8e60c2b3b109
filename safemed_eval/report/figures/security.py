"""security: accuracy against eps, a curve per attack, clean at 0. L2 and L-infinity are figures of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from safemed_eval.report.breakdown import measure_of
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import CLEAN, is_noise, union, words
from safemed_eval.report.figures._curves import Points, line, plot
from safemed_eval.report.figures._sheet import below, label_outer, letters, sheet, wrapped
from safemed_eval.report.figures._style import DAGGER, GREY, ONE_COLUMN, TWO_COLUMNS, Look, look, looks
from safemed_eval.report.findings.attack_sizes import Shot, shots
from safemed_eval.report.load import Json, LoadedRun

_DOTS = (0, (2, 1.5))
_WIDE = 16
"""Where the largest eps is so many times the smallest, they are drawn at equal steps of their logarithm."""
_MOST_TICKS = 7
_UNITS = {"linf": (255.0, "/255"), "l2": (1.0, "L2 length in [0, 1] pixel units")}


def draw(runs: Sequence[LoadedRun]) -> Iterator[tuple[str, Figure]]:
    own = looks(runs)
    for suffix, some in grouped.by_canvas(grouped.with_records(runs, "evaluate")):
        for norm in sorted({shot.norm for run in some for shot in shots(run)}):
            ours = {
                run.name: [shot for shot in shots(run) if shot.norm == norm and shot.condition not in run.all_failed]
                for run in some
            }
            if not any(ours.values()):
                continue
            yield f"security-{norm}{suffix}", _figure([run for run in some if ours[run.name]], own, ours, norm)


def _figure(
    runs: Sequence[LoadedRun], own: Mapping[str, Look], ours: Mapping[str, Sequence[Shot]], norm: str
) -> Figure:
    """One run: a curve per attack. Several: a panel per attack, a curve per run; noise, in grey, in each."""
    several = len(runs) > 1
    measured = {run.name: measure_of(run)(run.frame) for run in runs}
    families = union([shot.family for shot in ours[run.name]] for run in runs)
    attacks, noises = [name for name in families if not is_noise(name)], [name for name in families if is_noise(name)]
    panels = [[name] for name in attacks] if several and attacks else [attacks]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    figure = sheet(width, 0.2 + (1.9 if columns == 1 else 1.7) * rows)
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in grid[len(panels) :]:
        axes.remove()
    label_outer(grid[: len(panels)], columns)
    looks_here = {name: look(number) for number, name in enumerate([*attacks, *noises])}
    factor, unit = _UNITS.get(norm, (1.0, norm))
    for axes, panel in zip(grid, panels, strict=False):
        if len(panels) > 1:
            axes.set_title(wrapped(words(panel[0]), letters(width / columns - 0.3)))
        for run in runs:
            for family in [*noises, *panel]:
                as_it_is = own[run.name] if several else looks_here[family]
                shown = replace(as_it_is, color=GREY, dash=_DOTS) if is_noise(family) else as_it_is
                if points := _points(ours[run.name], measured[run.name], family, factor):
                    plot(axes, points, shown)
    _axis(grid[0], sorted({factor * shot.eps for run in runs for shot in ours[run.name]}))
    legend = {run.name: line(own[run.name]) for run in runs} if several else {}
    legend |= {} if several else {words(name): line(looks_here[name]) for name in attacks}
    legend |= {f"{words(name)}, the random control": Line2D([], [], color=GREY, linestyle=_DOTS) for name in noises}
    cells = [cell for of_run in measured.values() for cell in of_run.values()]
    few = any(cell["few"] for cell in cells)
    notes = [f"Bars: 95 % intervals; {grouped.sizes(cell['n'] for cell in cells)}{DAGGER * few}."]
    notes += [grouped.FEW] if few else []
    label = f"eps ({unit}), {grouped.canvas_words(runs[0])}"
    return below(figure, legend, [*notes, *grouped.notes(runs)], x_label=label, y_label="accuracy (%)")


def _points(ours: Sequence[Shot], cells: Json, family: str, factor: float) -> Points:
    """One attack's points, clean at 0, without those that no item has yet; none where there is no attack."""
    found = [(factor * shot.eps, cells[shot.condition]) for shot in ours if shot.family == family]
    points = [(0.0, cells[CLEAN]), *found] if found and CLEAN in cells else found
    return sorted(((eps, cell) for eps, cell in points if cell["accuracy"] is not None), key=lambda point: point[0])


def _axis(axes: Axes, steps: Sequence[float]) -> None:
    ticks = [0.0, *steps[:: -(-len(steps) // _MOST_TICKS)]]
    if steps[-1] >= _WIDE * steps[0]:
        axes.set_xscale("symlog", base=2, linthresh=steps[0])
        axes.set_xlim(-0.15 * steps[0], 1.15 * steps[-1])
    else:
        axes.set_xlim(-0.03 * steps[-1], 1.04 * steps[-1])
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100])
