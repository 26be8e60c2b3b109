"""One run as a figure in a notebook; `figures` has those for a paper."""

from __future__ import annotations

from matplotlib.figure import Figure

from safemed_eval.report.curves import Curve
from safemed_eval.report.summary import EvaluateSummary

_COLOR = "#0072b2"


def plot_accuracy(summary: EvaluateSummary, title: str) -> Figure:
    """Draw a bar for the accuracy under each condition, with its 95 % interval."""
    cells = summary.overall
    figure = Figure(figsize=(1.5 + 1.1 * len(cells), 3.2), layout="constrained")
    axes = figure.add_subplot()
    for place, cell in enumerate(cells.values()):
        if cell.share is None or cell.lower is None or cell.upper is None:
            axes.text(place, 2, cell.text, ha="center", va="bottom")
            continue
        share, below, above = (100 * value for value in (cell.share, cell.share - cell.lower, cell.upper - cell.share))
        axes.bar(place, share, color=_COLOR)
        axes.errorbar(place, share, [[below], [above]], color="black", capsize=2)
    labels = [condition.replace(":", "\n").replace(",", "\n") for condition in cells]
    axes.set_xticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(0, 100)
    axes.set_ylabel("accuracy (%), 95 % intervals")
    axes.set_title(title, parse_math=False)
    return figure


def plot_curve(curve: Curve | None, ceiling: float, title: str) -> Figure:
    """Draw certified accuracy against the radius, with its pointwise 95 % band."""
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    if curve is None:
        axes.text(0.5, 0.5, "nothing was measured", ha="center", va="center", transform=axes.transAxes)
    else:
        share, lower, upper = ([100 * value for value in values] for values in (curve.share, curve.lower, curve.upper))
        axes.fill_between(curve.radii, lower, upper, step="pre", color=_COLOR, alpha=0.15, linewidth=0)
        axes.plot(curve.radii, share, drawstyle="steps-pre", color=_COLOR)
    axes.set_xlim(0, 1.03 * ceiling)
    axes.set_ylim(0, 100)
    axes.set_xlabel("certified L2 radius ([0, 1] pixel units)")
    axes.set_ylabel("certified accuracy (%)")
    axes.set_title(title, parse_math=False)
    return figure
