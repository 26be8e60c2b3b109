"""calibration: accuracy against confidence, a row per run, a panel per condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from safemed_eval.report.analyses.calibration import BINS, Calibration, calibration
from safemed_eval.report.conditions import is_control, words
from safemed_eval.report.drawing.shares import Point, line, percent_axis, plot_points
from safemed_eval.report.drawing.sheet import below, heading, label_outer, letters, nothing, sheet, width_of
from safemed_eval.report.drawing.style import GREY, PALE, layout, look, plain
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import chosen, union
from safemed_eval.report.run import Run
from safemed_eval.rounding import interval, percent

_NOTE = (
    "Points: items in one of 15 equally wide bins of confidence, with 95 % intervals; on the line a model is "
    "calibrated, below it overconfident. ECE: expected calibration error in points, with its 95 % interval; in "
    "brackets that of a calibrated model by chance."
)
PERFECT, SHARE_OF_ITEMS = "calibrated", "share of items"


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    measured = {run: found for run in grouped.with_records(runs, "evaluate") if (found := _measured(run))}
    for suffix, page in grouped.pages(list(measured)):
        yield f"calibration{suffix}", _figure(page, [measured[run] for run in page])


def _measured(run: Run) -> dict[str, Calibration]:
    """The calibration under each condition that is shown and has probabilities."""
    shown = [name for name in chosen(run)[0] if not is_control(name)]
    found = {name: calibration(run, run.answers.under(name)) for name in shown}
    return {name: cell for name, cell in found.items() if cell.n}


def _figure(runs: Sequence[Run], measured: Sequence[dict[str, Calibration]]) -> Figure:
    conditions = union(measured)
    columns = len(conditions)
    width = width_of(columns)
    figure = sheet(width, 0.3 + 1.75 * len(runs))
    grid = figure.subplots(len(runs), columns, sharex=True, sharey=True, squeeze=False)
    few = False
    for row, run, cells in zip(grid, runs, measured, strict=True):
        for axes, condition in zip(row, conditions, strict=True):
            cell = cells.get(condition)
            if cell is None or cell.ece is None:
                nothing(axes)
                continue
            few |= cell.few
            _panel(axes, cell)
            axes.set_title(heading(words(condition), grouped.sizes([cell.n]), width / columns - 0.2, few=cell.few))
        row[0].set_ylabel(plain(run.name, letters(1.6)))
    percent_axis(grid[0, 0])
    grid[0, 0].set_xlim(0, 100)
    grid[0, 0].set_xticks([0, 25, 50, 75, 100])
    label_outer(list(grid.flat), columns)
    legend: dict[str, Artist] = {
        "accuracy": line(look(0)),
        PERFECT: Line2D([], [], color=GREY, linestyle=":", linewidth=0.7),
        SHARE_OF_ITEMS: Patch(color=PALE, linewidth=0),
    }
    notes = [_NOTE, *grouped.few_note(few), *_left_out(measured), *grouped.notes(runs)]
    return below(
        figure, legend, notes, x_label="confidence: probability of the likeliest option (%)", y_label="accuracy (%)"
    )


def _panel(axes: Axes, cell: Calibration) -> None:
    assert cell.ece is not None
    axes.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=0.7)
    places = [100 * found.confidence for found in cell.bins]
    axes.bar(
        places, [100 * found.accuracy.n / cell.n for found in cell.bins], 0.8 * 100 / BINS, color=PALE, linewidth=0
    )
    points = [
        Point(found.confidence * 100, share.estimate, share.lower, share.upper)
        for found in cell.bins
        for share in [found.accuracy]
        if share.estimate is not None and share.lower is not None and share.upper is not None
    ]
    plot_points(axes, points, look(0))
    ends = interval(cell.ece.lower, cell.ece.upper).replace("-", "\u2013")
    text = f"ECE {percent(cell.ece.value)}\n{ends}\n({percent(cell.by_chance)})"
    axes.text(3, 97, text, ha="left", va="top", fontsize=layout().small)


def _left_out(measured: Sequence[dict[str, Calibration]]) -> list[str]:
    """A note on items that have no probabilities."""
    count = sum(sum(cell.without.values()) for cells in measured for cell in cells.values())
    return [f"{count:,} answers without probabilities, failed ones among them, are left out."] if count else []
