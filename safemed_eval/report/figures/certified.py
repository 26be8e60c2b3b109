"""certified: certified accuracy against radius, of all items and by slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from safemed_eval.report.budgets import shared
from safemed_eval.report.columns import Column, stems
from safemed_eval.report.curves import Curve, curve_of
from safemed_eval.report.drawing.shares import (
    CEILING,
    GROUNDED_CURVE,
    ceiling_line,
    grounded_line,
    line,
    percent_axis,
    plot_ceiling,
    plot_certified,
    plot_grounded,
)
from safemed_eval.report.drawing.sheet import below, heading, label_outer, nothing, panels, sheet, width_of
from safemed_eval.report.drawing.style import Look, layout, looks, together
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.findings.canvas import grey_levels
from safemed_eval.report.rows import Slicing
from safemed_eval.report.run import Run
from safemed_eval.report.summary import DAGGER
from safemed_eval.rounding import floor_to

FEWEST = 5
"""With fewer items even a unanimous group has a 95 % interval of more than 60 points: such a curve says nothing."""

_LONGEST_LABEL = 62
"""Characters of an axis's label that fit below a figure of one column."""
_BANDS = "Bands: pointwise 95 % intervals. A curve ends at the largest radius that its sample budget can certify."


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    own = looks(runs)
    for suffix, some in grouped.by_scale(grouped.with_records(runs, "certify")):
        if all(run.all_failed for run in some):
            continue
        here = together(own, some)
        yield f"certified{suffix}", _all(some, here)
        for by, stem in stems(some[0].slicings).items():
            if names := grouped.groups(some, by):
                yield f"certified-by-{stem}{suffix}", _by(some, here, by, names)


def _all(runs: Sequence[Run], own: Mapping[str, Look]) -> Figure:
    figure = sheet(layout().column, 2.3)
    axes = figure.add_subplot()
    curves = {run.name: curve for run in runs if (curve := curve_of(run))}
    for name, curve in curves.items():
        _plot(axes, curve, own[name])
    for run in runs:
        if grounded := curve_of(run, grounded=True):
            plot_grounded(axes, grounded, own[run.name])
    _limits(axes, runs)
    label = f"certified {runs[0].scale}"
    axes.set_xlabel(label if len(label) <= _LONGEST_LABEL else label.replace(" (", "\n(", 1))
    axes.set_ylabel("certified accuracy (%)")
    if levels := grey_levels(runs[0]):
        there, back = lambda radius: radius * levels, lambda grey: grey / levels
        top = axes.secondary_xaxis("top", functions=(there, back))
        top.set_xlabel("the same change in RMS grey levels")
    elif factor := runs[0].budget.kind.factor:
        top = axes.secondary_xaxis("top", functions=(np.exp, lambda value: np.log(np.maximum(value, 1e-9))))
        top.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        top.set_xlabel(f"{factor} up to this, and down to its inverse")
    marks = grouped.few_note(any(curve.few for curve in curves.values()))
    common, apart = shared([run.budget for run in runs])
    names = {}
    for run, own_budget in zip(runs, apart, strict=True):
        if curve := curves.get(run.name):
            about = ", ".join(filter(None, [grouped.sizes([curve.n]), own_budget]))
            names[run.name] = f"{run.name} ({about}){DAGGER * curve.few}"
    notes = [_BANDS, *marks, *grouped.notes(runs)]
    return below(figure, _legend(own, names, runs), notes, heading=common)


def _by(runs: Sequence[Run], own: Mapping[str, Look], by: Slicing | Column, names: Sequence[str]) -> Figure:
    columns = min(4, len(names)) if len(names) != 5 else 3
    rows = -(-len(names) // columns)
    width = width_of(1 if columns < 3 else columns)
    figure = sheet(width, 0.2 + 1.2 * rows)
    grid = panels(figure, len(names), columns)
    marks: dict[str, None] = {}
    slices = [run.certificates.split(by) for run in runs]
    for axes, name in zip(grid, names, strict=True):
        parts = [split.get(name, run.certificates[:0]) for run, split in zip(runs, slices, strict=True)]
        curves = {
            run.name: curve for run, part in zip(runs, parts, strict=True) if (curve := curve_of(run, part)) is not None
        }
        few = any(curve.few for curve in curves.values())
        count = grouped.sizes(len(part) for part in parts if len(part))
        axes.set_title(heading(name, count, width / columns - 0.15, few=few))
        shown = {run: curve for run, curve in curves.items() if curve.n >= FEWEST}
        for run, part in zip(runs, parts, strict=True):
            if run.name in shown:
                _plot(axes, shown[run.name], own[run.name])
                if grounded := curve_of(run, part, grounded=True):
                    plot_grounded(axes, grounded, own[run.name])
        if not shown:
            nothing(axes)
            marks[f"n/a: fewer than {FEWEST} items, or all failed."] = None
        marks |= dict.fromkeys(grouped.few_note(few))
    _limits(grid[0], runs)
    label_outer(grid, columns)
    levels = grey_levels(runs[0])
    worth = f"; 0.1 is {floor_to(0.1 * levels, 2)} grey levels RMS" if levels else ""
    label = f"certified {runs[0].scale[:-1]}{worth})"
    common, apart = shared([run.budget for run in runs])
    every = {
        run.name: f"{run.name} ({budget})" if budget else run.name for run, budget in zip(runs, apart, strict=True)
    }
    notes = [_BANDS, *marks, *grouped.left_out(runs, by, names), *grouped.notes(runs)]
    return below(
        figure, _legend(own, every, runs), notes, x_label=label, y_label="certified accuracy (%)", heading=common
    )


def _plot(axes: Axes, curve: Curve, own: Look) -> None:
    """Draw one curve with its band, a marker at its end, and a dotted line where the sample budget ends."""
    plot_certified(axes, curve, own, marked=True)
    plot_ceiling(axes, curve.radii[-1], own.color)


def _limits(axes: Axes, runs: Sequence[Run]) -> None:
    axes.set_xlim(0, 1.03 * max(run.ceiling for run in runs))
    percent_axis(axes)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _legend(own: Mapping[str, Look], names: Mapping[str, str], runs: Sequence[Run]) -> dict[str, Artist]:
    lines = {text: line(own[name]) for name, text in names.items()}
    grounded = {GROUNDED_CURVE: grounded_line()} if any(run.donor_vote for run in runs) else {}
    return {**lines, **grounded, CEILING: ceiling_line()}
