"""One run as a figure in a notebook, in the look of a report's figures."""

from __future__ import annotations

from matplotlib.figure import Figure

from safemed_eval.report.curves import Curve
from safemed_eval.report.drawing.shares import percent_axis, plot_ceiling, plot_certified
from safemed_eval.report.drawing.sheet import below, nothing, sheet, wrapped
from safemed_eval.report.drawing.style import GREY, INK, layout, look, plain, style
from safemed_eval.report.summary import DAGGER, FEW, EvaluateSummary

_PANEL = 2.3
"""Height in inches, as that of a report's panels in one column."""
_BAR = 0.62
"""Inches for each bar."""


def plot_accuracy(summary: EvaluateSummary, title: str) -> Figure:
    """Draw a bar for the accuracy under each condition, with its 95 % interval."""
    cells, own = summary.overall, look(0)
    with style():
        figure = sheet(max(layout().column, 0.6 + _BAR * len(cells)), _PANEL)
        axes = figure.add_subplot()
        for place, cell in enumerate(cells.values()):
            if cell.share is None or cell.lower is None or cell.upper is None:
                axes.text(place, 2, cell.text, ha="center", va="bottom", fontsize=layout().small, color=GREY)
                continue
            share, down, up = (100 * value for value in (cell.share, cell.share - cell.lower, cell.upper - cell.share))
            axes.bar(place, share, color=own.color)
            axes.errorbar(place, share, [[down], [up]], color=INK, elinewidth=0.6, capsize=1.2)
        axes.set_xticks(range(len(cells)), [wrapped(name.replace(",", ", "), 13, 4) for name in cells])
        axes.grid(visible=False, axis="x")
        percent_axis(axes)
        axes.set_ylabel("accuracy (%)")
        axes.set_title(plain(title))
        few = any(cell.few for cell in cells.values())
        return below(figure, {}, [f"Bars: 95 % intervals{DAGGER * few}.", *[f"{DAGGER} {FEW}"] * few])


def plot_curve(curve: Curve | None, ceiling: float, scale: str, title: str) -> Figure:
    """Draw certified accuracy against the radius, with its pointwise 95 % band and the ceiling of the sample budget."""
    with style():
        figure = sheet(layout().column, _PANEL)
        axes = figure.add_subplot()
        if curve is None:
            nothing(axes)
            return below(figure, {}, [f"{plain(title)}: nothing was measured."])
        plot_certified(axes, curve, look(0))
        plot_ceiling(axes, ceiling)
        axes.set_xlim(0, 1.03 * ceiling)
        percent_axis(axes)
        axes.set_xlabel(f"certified {scale}")
        axes.set_ylabel("certified accuracy (%)")
        axes.set_title(plain(title))
        notes = [
            f"Band: pointwise 95 % intervals{DAGGER * curve.few}; {curve.n:,} items. Dotted: the ceiling of the budget."
        ]
        return below(figure, {}, [*notes, *[f"{DAGGER} {FEW}"] * curve.few])
