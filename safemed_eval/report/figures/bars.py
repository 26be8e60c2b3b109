"""bars: accuracy clean and under attack, of all items and by slice, a row per run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from safemed_eval.report.columns import Column, stems
from safemed_eval.report.conditions import is_control, words
from safemed_eval.report.drawing.shares import percent_axis
from safemed_eval.report.drawing.sheet import below, letters, sheet, wrapped
from safemed_eval.report.drawing.style import GREY, INK, PALE, Look, layout, look, plain
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import chosen, union
from safemed_eval.report.rows import Slicing
from safemed_eval.report.run import Run
from safemed_eval.report.summary import DAGGER, AnsweredBy, EvaluateSummary

ALL = "all"
_MARGIN = 0.6
"""Inches beside the axes."""
_NARROW = 0.6
"""Names of slices stand upright where each has less than this."""
_SHORT = 3
"""At most this many slices, with "all", fit on one column of a paper."""
_FULL = 0.82
"""Share of a slice's room that its bars take."""


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    for suffix, page in grouped.pages(grouped.with_records(runs, "evaluate")):
        for by, stem in stems(page[0].slicings).items():
            if names := grouped.groups(page, by):
                yield f"accuracy-by-{stem}{suffix}", _figure(page, by, names)


def _figure(runs: Sequence[Run], by: Slicing | Column, names: Sequence[str]) -> Figure:
    picked = [chosen(run) for run in runs]
    conditions = union(shown for shown, _ in picked)
    own = {condition: _look(number, condition) for number, condition in enumerate(conditions)}
    groups = [ALL, *names]
    whole = layout().page if len(groups) > _SHORT else layout().column
    margin = layout().inches(_MARGIN)
    room = (whole - margin) / len(groups)
    narrow = room < layout().inches(_NARROW)
    figure = sheet(whole, 0.3 + 1.3 * len(runs) + (0.9 if narrow else 0.2))
    few = False
    panels = figure.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, run in zip(panels, runs, strict=True):
        summary = run.summary
        assert isinstance(summary, EvaluateSummary)
        slices = cast(dict[str, AnsweredBy], run.numbers(by))
        few |= _row(axes, [summary.overall, *(slices.get(name, {}) for name in names)], own)
        axes.set_title(plain(run.name, letters(whole - margin)), loc="left", pad=11)
    width = letters(room - 0.08)
    labels = [plain(name, 24) if narrow else wrapped(name, width) for name in groups]
    panels[-1].set_xticks(range(len(groups)), labels, rotation=90 if narrow else 0)
    percent_axis(panels[-1])
    panels[-1].set_xlim(-0.55, len(groups) - 0.45)
    notes = ["Error bars: 95 % intervals."]
    notes += union(others for _, others in picked)
    notes += [*grouped.few_note(few), *grouped.left_out(runs, by, names), *grouped.notes(runs)]
    legend: dict[str, Artist] = {words(condition): Patch(**_paint(own[condition])) for condition in conditions}
    return below(figure, legend, notes, y_label="accuracy (%)")


def _row(axes: Axes, groups: Sequence[AnsweredBy], own: dict[str, Look]) -> bool:
    """Draw one run's bars, with n above each slice; returns whether a slice has few clusters."""
    width, above = _FULL / len(own), axes.get_xaxis_transform()
    any_few = False
    for place, cells in enumerate(groups):
        for number, condition in enumerate(own):
            x, cell = place + (number - (len(own) - 1) / 2) * width, cells.get(condition)
            if cell is None or cell.share is None or cell.lower is None or cell.upper is None:
                text = cell.text if cell else "n/a"
                axes.text(x, 2, text, rotation=90, ha="center", va="bottom", fontsize=layout().small, color=GREY)
                continue
            share, lower, upper = (100 * value for value in (cell.share, cell.lower, cell.upper))
            axes.bar(x, share, width, **_paint(own[condition]))
            axes.errorbar(x, share, [[share - lower], [upper - share]], color=INK, elinewidth=0.6, capsize=1.2)
        counts = [cell.n for condition, cell in cells.items() if condition in own]
        few = any(cell.few for condition, cell in cells.items() if condition in own)
        text = grouped.sizes(counts).split()[0] if counts else "0"
        axes.text(
            place, 1.02, f"{text}{DAGGER * few}", transform=above, ha="center", va="bottom", fontsize=layout().small
        )
        any_few |= few
    axes.text(-0.6, 1.02, "items", transform=above, ha="right", va="bottom", fontsize=layout().small)
    axes.axvline(0.5, color=PALE, linewidth=0.6)
    axes.grid(visible=False, axis="x")
    axes.tick_params(axis="x", length=0)
    return any_few


def _look(number: int, condition: str) -> Look:
    if is_control(condition):
        return Look(color=PALE, dash="-", marker="", hatch="||||||")
    return look(number)


def _paint(own: Look) -> dict[str, Any]:
    """Matplotlib's options for colour and hatch; the hatch is white on the colour, so that both are seen."""
    return {"facecolor": own.color, "edgecolor": "white", "hatch": own.hatch, "linewidth": 0.0}
