"""Shares of items in percent against a size: lines through points with intervals, and certified curves with bands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from safemed_eval.report.curves import Curve
from safemed_eval.report.drawing.style import GREY, Look
from safemed_eval.report.summary import Share

CEILING = "ceiling of the sample budget"
"""The name of the dotted line in a legend."""
GROUNDED_CURVE = "of which grounded"
"""The name of the dashed line in a legend."""
_GROUNDED = (0, (2.5, 1.5))


class Point(NamedTuple):
    """A share and its 95 % bounds, all in [0, 1], at a place on the x axis."""

    place: float
    share: float
    lower: float
    upper: float


def points_of(shares: Iterable[tuple[float, Share]]) -> list[Point]:
    """Make the points of a line, from left to right, without shares that are not known."""
    points = [
        Point(place, share.share, share.lower, share.upper)
        for place, share in shares
        if share.share is not None and share.lower is not None and share.upper is not None
    ]
    return sorted(points, key=lambda point: point.place)


def plot_points(axes: Axes, points: Sequence[Point], look: Look) -> None:
    """Draw a line through the points, each with its interval."""
    drawn = axes.errorbar(
        [point.place for point in points],
        [100 * point.share for point in points],
        yerr=[
            [100 * (point.share - point.lower) for point in points],
            [100 * (point.upper - point.share) for point in points],
        ],
        color=look.color,
        linestyle=look.dash,
        marker=look.marker,
        elinewidth=0.6,
        capsize=1.5,
        capthick=0.6,
        zorder=3,
    )
    drawn[0].set_clip_on(False)  # markers at 0 and 100 %


def plot_certified(axes: Axes, curve: Curve, look: Look, *, marked: bool = False) -> None:
    """Draw a curve of certified accuracy with its band.

    Args:
        marked: put the marker at its end.
    """
    share, lower, upper = ([100 * value for value in values] for values in (curve.share, curve.lower, curve.upper))
    axes.fill_between(curve.radii, lower, upper, step="pre", color=look.color, alpha=0.15, linewidth=0)
    axes.plot(
        curve.radii,
        share,
        drawstyle="steps-pre",
        color=look.color,
        linestyle=look.dash,
        marker=look.marker if marked else "",
        markevery=[len(share) - 1],
        clip_on=not marked,
        zorder=3,
    )


def plot_grounded(axes: Axes, curve: Curve, look: Look) -> None:
    """Draw the curve of grounded certified accuracy: thin and dashed, in the colour of the run, without a band."""
    share = [100 * value for value in curve.share]
    axes.plot(curve.radii, share, drawstyle="steps-pre", color=look.color, linestyle=_GROUNDED, linewidth=0.9, zorder=3)


def plot_ceiling(axes: Axes, radius: float, color: str = GREY) -> None:
    """Draw a dotted line at the largest radius that the sample budget certifies."""
    axes.axvline(radius, color=color, linestyle=":", linewidth=0.7)


def percent_axis(axes: Axes) -> None:
    """Let the y axis go from 0 to 100 %."""
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100])


def line(look: Look) -> Artist:
    """Make the line that a legend shows for such a look."""
    return Line2D([], [], color=look.color, linestyle=look.dash, marker=look.marker)


def grounded_line() -> Artist:
    """Make the line that a legend shows for `plot_grounded`."""
    return Line2D([], [], color=GREY, linestyle=_GROUNDED, linewidth=0.9)


def ceiling_line() -> Artist:
    """Make the line that a legend shows for `plot_ceiling`."""
    return Line2D([], [], color=GREY, linestyle=":", linewidth=0.7)
