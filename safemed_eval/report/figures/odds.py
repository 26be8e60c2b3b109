"""odds: which groups go with falling under an attack: odds ratios of a regression, a figure per attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from safemed_eval.report._text import slug
from safemed_eval.report.analyses.falling import REFERENCE, Falling, falling
from safemed_eval.report.conditions import words
from safemed_eval.report.drawing.sheet import below, sheet
from safemed_eval.report.drawing.style import BLUE, GREY, INK, layout, plain
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import chosen, union
from safemed_eval.report.run import Run

_LINE = 0.135
"""Inches of one row."""
_LONGEST = 26
_TICKS = tuple(float(f"{digit}e{power}") for power in range(-3, 4) for digit in (1, 2, 5))
_WIDE = 50
"""Where the largest ratio is at least this many times the smallest, only powers of ten are ticks."""


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    shown = set(union(chosen(run)[0] for run in grouped.with_records(runs, "evaluate")))
    for found in falling(runs):
        if found.condition in shown and not found.reason:
            yield f"odds-{slug(found.condition)}", _figure(runs, found)


def _figure(runs: Sequence[Run], found: Falling) -> Figure:
    columns = [(column, list(odds)) for column, odds in groupby(found.odds, key=lambda odds: odds.column)]
    rows = sum(len(odds) + 1 for _, odds in columns)
    figure = sheet(layout().column, 0.4 + _LINE * rows)
    axes = figure.add_subplot()
    names, place, beside = dict[float, str](), 0.0, axes.get_yaxis_transform()
    axes.set_xscale("log")
    axes.axvline(1, color=GREY, linewidth=0.7)
    known = [end for odds in found.odds if odds.lower and odds.upper for end in (odds.lower, odds.upper)]
    axes.set_xlim(min([0.5, *known]) / 1.15, max([2.0, *known]) * 1.15)
    for column, levels in columns:
        names[place] = plain(column, _LONGEST)
        for odds in levels:
            place += 1
            names[place] = f"{plain(odds.level, _LONGEST - 8)} ({odds.fallen}/{odds.n})"
            if odds.ratio is not None and odds.lower is not None and odds.upper is not None:
                ends = [[odds.ratio - odds.lower], [odds.upper - odds.ratio]]
                axes.errorbar(odds.ratio, place, xerr=ends, color=BLUE, marker="o", elinewidth=0.8, capsize=1.5)
            else:
                text = REFERENCE if odds.reason == REFERENCE else f"n/a: {odds.reason}"
                axes.text(0.02, place, plain(text), transform=beside, va="center", fontsize=layout().small, color=GREY)
        place += 1
    axes.set_yticks(list(names), list(names.values()))
    headings = {plain(column, _LONGEST) for column, _ in columns}
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in headings else "normal")
        label.set_color(INK)
    axes.set_ylim(place - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    left, right = axes.get_xlim()
    ticks = _TICKS if right / left < _WIDE else _TICKS[::3]
    axes.set_xticks([tick for tick in ticks if left <= tick <= right])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    notes = [
        f"Above 1: falls more often than the reference level of its column. {found.n:,} items that were right when "
        f"clean, {found.fallen:,} of them fell (in brackets: fallen/items), {found.clusters:,} patients or images. "
        "Logistic regression on all columns at once (GEE); bars: 95 % intervals by cluster. What goes together need "
        "not cause it."
    ]
    notes += [f"{found.failed:,} items failed under the attack and are left out."] if found.failed else []
    notes += grouped.notes(grouped.with_records(runs, "evaluate"))
    return below(figure, {}, notes, x_label=f"odds ratio of falling under {words(found.condition)}")
