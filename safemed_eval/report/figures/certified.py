"""certified: certified accuracy against radius, of all items and by slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from safemed_eval.report.breakdown import grey_levels
from safemed_eval.report.curves import Curve, curve_of
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._sheet import below, heading, label_outer, nothing, sheet
from safemed_eval.report.figures._style import DAGGER, GREY, ONE_COLUMN, TWO_COLUMNS, Look, looks
from safemed_eval.report.load import SLICES, LoadedRun
from safemed_eval.rounding import floor_to

FEWEST = 5
"""With fewer items even a unanimous group has a 95 % interval of more than 60 points: such a curve says nothing."""

_BANDS = "Bands: pointwise 95 % intervals. A curve ends at the largest radius that its sample budget can certify."


def draw(runs: Sequence[LoadedRun]) -> Iterator[tuple[str, Figure]]:
    own = looks(runs)
    for suffix, some in grouped.by_canvas(grouped.with_records(runs, "certify")):
        if all(run.all_failed for run in some):
            continue
        yield f"certified{suffix}", _all(some, own)
        for column, title in SLICES.items():
            if names := grouped.groups(some, column):
                yield f"certified-by-{grouped.slug(title)}{suffix}", _by(some, own, column, names)


def _all(runs: Sequence[LoadedRun], own: Mapping[str, Look]) -> Figure:
    figure = sheet(ONE_COLUMN, 2.3)
    axes = figure.add_subplot()
    curves = {run.name: curve for run in runs if (curve := curve_of(run))}
    for name, curve in curves.items():
        _plot(axes, curve, own[name])
    _limits(axes, runs)
    axes.set_xlabel(f"certified L2 radius ([0, 1] pixel units, {grouped.canvas_words(runs[0])})")
    axes.set_ylabel("certified accuracy (%)")
    if levels := grey_levels(runs[0].spec["canvas"]):
        there, back = lambda radius: radius * levels, lambda grey: grey / levels
        top = axes.secondary_xaxis("top", functions=(there, back))
        top.set_xlabel("the same change in RMS grey levels")
    marks = [grouped.FEW] if any(curve.few for curve in curves.values()) else []
    names = {name: f"{name} ({grouped.sizes([curve.n])}){DAGGER * curve.few}" for name, curve in curves.items()}
    return below(figure, _legend(own, names), [_BANDS, *marks, *grouped.notes(runs)])


def _by(runs: Sequence[LoadedRun], own: Mapping[str, Look], column: str, names: Sequence[str]) -> Figure:
    columns = min(4, len(names)) if len(names) != 5 else 3
    rows = -(-len(names) // columns)
    width = ONE_COLUMN if columns < 3 else TWO_COLUMNS
    figure = sheet(width, 0.2 + 1.2 * rows)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels[len(names) :]:
        axes.remove()
    marks: dict[str, None] = {}
    for axes, name in zip(panels, names, strict=False):
        parts = [run.frame[run.frame[column] == name] for run in runs]
        curves = {run.name: curve_of(run, part) for run, part in zip(runs, parts, strict=True)}
        found = {run: curve for run, curve in curves.items() if curve}
        few = any(curve.few for curve in found.values())
        count = grouped.sizes(len(part) for part in parts if len(part))
        axes.set_title(heading(name, count, width / columns - 0.15, few=few))
        shown = {run: curve for run, curve in found.items() if curve.n >= FEWEST}
        for run, curve in shown.items():
            _plot(axes, curve, own[run])
        if not shown:
            nothing(axes)
            marks[f"n/a: fewer than {FEWEST} items, or all failed."] = None
        if few:
            marks[grouped.FEW] = None
    _limits(panels[0], runs)
    label_outer(panels[: len(names)], columns)
    levels = grey_levels(runs[0].spec["canvas"])
    worth = f"; 0.1 is {floor_to(0.1 * levels, 2)} grey levels RMS" if levels else ""
    label = f"certified L2 radius ([0, 1] pixel units, {grouped.canvas_words(runs[0])}{worth})"
    every = {run.name: run.name for run in runs}
    notes = [_BANDS, *marks, *grouped.left_out(runs, column, names), *grouped.notes(runs)]
    return below(figure, _legend(own, every), notes, x_label=label, y_label="certified accuracy (%)")


def _plot(axes: Axes, curve: Curve, own: Look) -> None:
    """One curve with its band, a marker at its end, and a dotted line where the sample budget ends."""
    share, lower, upper = ([100 * value for value in values] for values in (curve.share, curve.lower, curve.upper))
    axes.fill_between(curve.radii, lower, upper, step="pre", color=own.color, alpha=0.15, linewidth=0)
    axes.plot(
        curve.radii,
        share,
        drawstyle="steps-pre",
        color=own.color,
        linestyle=own.dash,
        marker=own.marker,
        markevery=[len(share) - 1],
        clip_on=False,
        zorder=3,
    )
    axes.axvline(curve.radii[-1], color=own.color, linestyle=":", linewidth=0.7)


def _limits(axes: Axes, runs: Sequence[LoadedRun]) -> None:
    axes.set_xlim(0, 1.03 * max(run.smoothing.ceiling or 0.0 for run in runs))
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _legend(own: Mapping[str, Look], names: Mapping[str, str]) -> dict[str, Artist]:
    lines: dict[str, Artist] = {
        text: Line2D([], [], color=own[name].color, linestyle=own[name].dash, marker=own[name].marker)
        for name, text in names.items()
    }
    return lines | {"ceiling of the sample budget": Line2D([], [], color=GREY, linestyle=":", linewidth=0.7)}
