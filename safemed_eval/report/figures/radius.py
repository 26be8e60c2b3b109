"""radius: a histogram of certified radii, right and wrong ones, and the number of items without a certificate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from safemed_eval.report.budgets import shared
from safemed_eval.report.drawing.sheet import below, sheet
from safemed_eval.report.drawing.style import BLUE, GREY, VERMILLION, layout, plain
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.run import Run
from safemed_eval.smoothing import NO_ANSWER

BINS = 20
_NONE = "no certificate"
_PAINT: dict[str, dict[str, Any]] = {
    "certified, right": {"facecolor": BLUE, "edgecolor": "white", "linewidth": 0.3},
    "certified, wrong": {"facecolor": VERMILLION, "edgecolor": "white", "linewidth": 0.3, "hatch": "//////"},
    _NONE: {"facecolor": GREY, "edgecolor": "white", "linewidth": 0.3, "hatch": "......"},
}


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    for suffix, some in grouped.by_scale(grouped.with_records(runs, "certify")):
        for page, few in grouped.pages(some):
            yield f"radius-histogram{suffix}{page}", _figure(few)


def _figure(runs: Sequence[Run]) -> Figure:
    figure = sheet(layout().column, 0.4 + 1.25 * len(runs))
    grid = figure.subplots(len(runs), 2, squeeze=False, sharex="col", sharey="row", width_ratios=[3.2, 1])
    for (left, right), run in zip(grid, runs, strict=True):
        _certificates(left, run)
        _without(right, run)
        left.set_title(f"{plain(run.name, 28)} ({grouped.sizes([len(run.certificates)])})", loc="left")
        left.margins(y=0.12)
    grid[0, 0].set_xlim(0, 1.02 * max(run.ceiling for run in runs))
    grid[-1, 0].set_xlabel("certified " + runs[0].scale.replace(" (", "\n(", 1))
    legend: dict[str, Artist] = {name: Patch(**paint) for name, paint in _PAINT.items() if name != _NONE}
    legend["ceiling of the sample budget"] = Line2D([], [], color=GREY, linestyle=":", linewidth=0.8)
    notes = grouped.notes(runs)
    return below(figure, legend, notes, y_label="items", heading=shared([run.budget for run in runs])[0])


def _certificates(axes: Axes, run: Run) -> None:
    rows, ceiling = run.certificates, run.ceiling
    # The radius of unanimous votes is the ceiling, up to the last bit.
    radii = np.minimum(rows.radii, ceiling)
    edges = np.linspace(0.0, ceiling, BINS + 1)
    bottom = np.zeros(BINS)
    for name, part in (("certified, right", rows.correct), ("certified, wrong", ~rows.correct)):
        counts, _ = np.histogram(radii[part & ~np.isnan(radii)], edges)
        axes.bar(edges[:-1], counts, np.diff(edges), bottom, align="edge", label=name, **_PAINT[name])
        bottom += counts
    axes.axvline(ceiling, color=GREY, linestyle=":", linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(visible=False, axis="x")


def _without(axes: Axes, run: Run) -> None:
    counts = dict.fromkeys(("abstained", NO_ANSWER, "failed"), 0)
    for record in run.certificates:
        if record.failed:
            counts["failed"] += 1
        elif record.abstained is not None:
            counts[NO_ANSWER if record.abstained == NO_ANSWER else "abstained"] += 1
    bars = axes.bar(range(len(counts)), list(counts.values()), 0.75, **_PAINT[_NONE])
    axes.bar_label(bars, fontsize=layout().small, padding=1)
    axes.set_xticks(range(len(counts)), list(counts), rotation=60, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="y", labelleft=False, length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="x")
