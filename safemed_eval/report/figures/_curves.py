"""A line of shares over rising sizes, each point with its interval."""

from __future__ import annotations

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from safemed_eval.report.figures._style import Look
from safemed_eval.report.load import Json

Points = list[tuple[float, Json]]
"""(place on the axis, numbers of `breakdown`), rising."""


def plot(axes: Axes, points: Points, own: Look) -> None:
    """Draw them in percent."""
    share = [100 * cell["accuracy"] for _, cell in points]
    drawn = axes.errorbar(
        [place for place, _ in points],
        share,
        yerr=[
            [100 * (cell["accuracy"] - cell["lower"]) for _, cell in points],
            [100 * (cell["upper"] - cell["accuracy"]) for _, cell in points],
        ],
        color=own.color,
        linestyle=own.dash,
        marker=own.marker,
        elinewidth=0.6,
        capsize=1.5,
        capthick=0.6,
        zorder=3,
    )
    drawn[0].set_clip_on(False)  # markers at 0 and 100 %


def line(own: Look) -> Artist:
    """What a legend shows of such a line."""
    return Line2D([], [], color=own.color, linestyle=own.dash, marker=own.marker)
