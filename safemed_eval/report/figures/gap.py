"""gap: certified accuracy of a smoothed model, and its accuracy under attack, at the same L2 radii."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from safemed_eval.report.budgets import symbols
from safemed_eval.report.conditions import words
from safemed_eval.report.drawing.shares import (
    CEILING,
    STEP,
    Point,
    ceiling_line,
    line,
    look_of,
    percent_axis,
    plot_ceiling,
    plot_certified,
    plot_points,
)
from safemed_eval.report.drawing.sheet import below, sheet
from safemed_eval.report.drawing.style import layout, look
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.gap import NOTE, Gap, Left, gaps_of
from safemed_eval.report.run import Run
from safemed_eval.report.summary import DAGGER


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    gaps = gaps_of(runs)
    suffixes = [suffix for suffix, _ in grouped.one_by_one([gap.certified for gap in gaps])] if gaps else []
    for suffix, gap in zip(suffixes, gaps, strict=True):
        yield f"gap{suffix}", _figure(gap)


def _figure(gap: Gap[Run]) -> Figure:
    figure = sheet(layout().column, 2.3)
    axes = figure.add_subplot()
    own, legend = look(0), dict[str, Artist]()
    plot_certified(axes, gap.curve, own)
    plot_ceiling(axes, gap.curve.radii[-1])
    legend[f"certified ({grouped.sizes([gap.curve.n])})"] = Line2D([], [], color=own.color, linestyle=own.dash)
    for number, (family, points) in enumerate(gap.families.items(), start=1):
        shift = STEP * (number - (len(gap.families) + 1) / 2)
        plot_points(axes, _points(points), look(number), shift=shift)
        legend[f"under {words(family)}"] = line(look_of(look(number), _points(points)))
    legend[CEILING] = ceiling_line()
    largest = max(point.eps for points in gap.families.values() for point in points)
    axes.set_xlim(0, 1.03 * max(gap.curve.radii[-1], largest))
    percent_axis(axes)
    axes.set_xlabel(f"L2 radius ([0, 1] pixel units, {grouped.canvas_words(gap.certified)})")
    axes.set_ylabel("accuracy of the smoothed model (%)")
    title = f"{gap.title}{DAGGER * gap.few}."
    notes = grouped.notes([gap.certified, gap.attacked])
    heading = ", ".join(symbols(gap.certified.budget))
    return below(figure, legend, [title, NOTE, *grouped.few_note(gap.few), *notes], heading=heading)


def _points(points: Sequence[Left]) -> list[Point]:
    shares = [(point.eps, point.left) for point in points]
    return [
        Point(eps, share.estimate, share.lower, share.upper)
        for eps, share in shares
        if share.estimate is not None and share.lower is not None and share.upper is not None
    ]
