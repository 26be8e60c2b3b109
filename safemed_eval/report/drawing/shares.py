"""Shares of items in percent against a size: lines through points with intervals, and certified curves with bands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from safemed_eval.report.curves import Curve
from safemed_eval.report.drawing.style import GREY, Look
from safemed_eval.report.summary import Share

CEILING = "ceiling of the sample budget"
"""The name of the dotted line in a legend."""
GROUNDED_CURVE = "of which grounded"
"""The name of the thin line in a legend."""
_THIN = 0.5
FEWEST = 3
"""Fewer sizes of an attack than this are points; more are a curve."""
STEP = 4.0
"""Points of length between the markers of two series at one place."""


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


def look_of(look: Look, *series: Sequence[Point]) -> Look:
    """The look of such series of points: without a line where none has a place for it.

    A line through fewer than `FEWEST` places above 0 would suggest a curve that nobody measured.
    """
    most = max((len({point.place for point in points if point.place > 0}) for points in series), default=0)
    return look if most >= FEWEST else replace(look, dash="none")


def plot_points(axes: Axes, points: Sequence[Point], look: Look, *, shift: float = 0.0) -> None:
    """Draw points with their intervals, and a line through them where they are a curve; see `look_of`.

    Args:
        shift: how far to the right, in points of length, markers without a line stand of those of other series.
    """
    look = look_of(look, points)
    aside = shift if look.dash == "none" else 0.0
    figure = axes.get_figure(root=True)
    assert figure is not None
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
        transform=axes.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans),
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
    """Draw the curve of grounded certified accuracy: a thin line in the colour and dash of the run, without a band."""
    share = [100 * value for value in curve.share]
    axes.plot(curve.radii, share, drawstyle="steps-pre", color=look.color, linestyle=look.dash, linewidth=_THIN)


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
    return Line2D([], [], color=GREY, linewidth=_THIN)


def ceiling_line() -> Artist:
    """Make the line that a legend shows for `plot_ceiling`."""
    return Line2D([], [], color=GREY, linestyle=":", linewidth=0.7)
