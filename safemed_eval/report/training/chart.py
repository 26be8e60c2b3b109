"""Line charts as the places of their marks in an SVG, which the page's template draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480, 254
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40
_MOST_POINTS = 500
_MOST_MARKS = 60
_TICKS = 5
Points = Sequence[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A tick at a place of an axis."""

    place: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point, with what it says when it is pointed at."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve: its style, its path, and its points unless they are many."""

    name: str
    style: int
    path: str
    marks: Sequence[Mark]
    last: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of one or more curves.

    Attributes:
        best: the place on the x axis of the step that is marked; None: none is.
        every: each curve shows one point in so many.
    """

    title: str
    lines: Sequence[Line]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    best: Mark | None
    every: int

    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
    width, height = WIDTH, HEIGHT


def chart_of(title: str, series: Mapping[str, Points], *, share: bool, best: int | None = None) -> Chart:
    """Lay out a chart.

    Args:
        share: values are in [0, 1], shown in percent on an axis from 0 to 100.
        best: the step to mark.
    """
    every = max(-(-len(points) // _MOST_POINTS) for points in series.values())
    thinned = {name: _thinned(points, every) for name, points in series.items()}
    steps = [step for points in thinned.values() for step, _ in points]
    values = [value for points in thinned.values() for _, value in points]
    first, last = min(steps), max(steps)
    if first == last:
        first, last = first - 1, last + 1
    low, high = (0.0, 1.0) if share else _range(min(values), max(values))

    def x(step: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (step - first) / (last - first)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)

    def shown(value: float) -> str:
        return f"{100 * value:.1f} %" if share else f"{value:.4g}"

    lines = [
        Line(
            name=name,
            style=number,
            path=" ".join(f"{'L' if place else 'M'}{x(s):.1f} {y(v):.1f}" for place, (s, v) in enumerate(points)),
            marks=[Mark(x=round(x(s), 1), y=round(y(v), 1), label=f"{name}, step {s:,}: {shown(v)}") for s, v in points]
            if len(points) <= _MOST_MARKS
            else [],
            last=shown(points[-1][1]),
        )
        for number, (name, points) in enumerate(thinned.items())
    ]
    return Chart(
        title=title[0].upper() + title[1:],
        lines=lines,
        x_ticks=[Tick(place=round(x(at), 1), label=f"{at:,.0f}") for at in ticks(first, last, whole=True)],
        y_ticks=[
            Tick(place=round(y(at), 1), label=f"{100 * at:.0f} %" if share else f"{at:.4g}") for at in ticks(low, high)
        ],
        best=None if best is None else Mark(x=round(x(best), 1), y=_TOP, label=f"best: step {best:,}"),
        every=every,
    )


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return round numbers, about five, from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    step = max(1.0, step) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _range(low: float, high: float) -> tuple[float, float]:
    """Widen the range of values a little; a range that nearly begins at 0 begins there."""
    if low == high:
        return low - abs(low or 1.0) / 2, high + abs(high or 1.0) / 2
    spread = 0.05 * (high - low)
    return 0.0 if 0 <= low < 0.5 * high else low - spread, high + spread


def _thinned(points: Points, every: int) -> Points:
    """Every so many points, and the last one."""
    kept = list(points[::every])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]
