"""A figure of a paper's width, with its legend and its notes below the axes, where they cover nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from safemed_eval.report.drawing.style import GREY, layout, plain
from safemed_eval.report.summary import DAGGER

_POINTS = 72
_LETTER = 0.56
"""Mean width of a letter, in units of the font size."""
_LINE = 1.35
"""Height of a line, likewise."""
_LONGEST = 600
_HANDLE = 5.5
"""Width of a legend's handle and gaps, likewise."""


def width_of(columns: int) -> float:
    """The width of a figure with this many panels side by side."""
    return layout().column if columns == 1 else layout().page


class Sheet(Figure):
    """A figure that a notebook shows, whether or not pyplot is in use.

    Attributes:
        notes: what a caption must say, where the layout has no notes below figures.
    """

    notes: tuple[str, ...] = ()

    def _repr_png_(self) -> bytes:
        image = BytesIO()
        self.savefig(image, format="png", dpi=200)
        return image.getvalue()


def sheet(width: float, height: float) -> Figure:
    """Make an empty figure.

    Args:
        width: in inches.
        height: in inches at the usual font size; it grows with the letters.
    """
    return Sheet(figsize=(width, layout().inches(height)), layout="constrained")


def below(
    figure: Figure,
    legend: Mapping[str, Artist],
    notes: Sequence[str] = (),
    *,
    x_label: str = "",
    y_label: str = "",
    heading: str = "",
) -> Figure:
    """Put below the axes: a label of the x axis that panels share, a legend, and notes in small grey letters.

    The figure grows by what they need. (The layout engine would put a figure's legend and its x label on top of notes.)

    Args:
        legend: names, with the line, patch or bar that stands before each.
        notes: kept for the caption where the layout has none below figures.
        heading: what the legend's entries have in common.
    """
    width, height = figure.get_size_inches()
    size, small_size = layout().size, layout().small
    texts = [plain(note, _LONGEST) for note in notes]
    if isinstance(figure, Sheet) and not layout().notes:
        figure.notes, texts = tuple(texts), []
    lines = [line for text in texts for line in textwrap.wrap(text, letters(width - 0.1, small_size))]
    labels = textwrap.wrap(x_label, letters(width))
    longest = letters(width) - round(_HANDLE / _LETTER)
    names = [textwrap.fill(plain(name, 2 * longest), longest) for name in legend]
    headings = textwrap.wrap(heading, letters(width))
    widest = max((_HANDLE + _LETTER * max(map(len, name.split("\n"))) for name in names), default=1.0) * size / _POINTS
    columns = max(1, min(len(names), int(width / widest)))
    line, small = size * _LINE / _POINTS, small_size * _LINE / _POINTS
    top_of_notes = small * len(lines) + (0.06 if lines else 0.0)
    rows = len(headings) + -(-len(names) // columns) + sum(name.count("\n") for name in names)
    top_of_legend = top_of_notes + 1.08 * line * rows + (0.04 if names else 0.0)
    foot = top_of_legend + line * len(labels)
    whole = height + foot
    figure.set_size_inches(width, whole)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, foot / whole, 1, 1 - foot / whole))
    if y_label:
        figure.supylabel(y_label, y=(1 + foot / whole) / 2, fontsize="medium")
    if names:
        figure.legend(
            list(legend.values()),
            names,
            loc="lower center",
            bbox_to_anchor=(0.5, top_of_notes / whole),
            ncols=columns,
            title="\n".join(headings) or None,
        )
    figure.text(0.5, (top_of_legend + 0.02) / whole, "\n".join(labels), ha="center", va="bottom")
    figure.text(
        0.05 / width, 0.03 / whole, "\n".join(lines), fontsize=small_size, color=GREY, va="bottom", linespacing=1.15
    )
    return figure


def letters(inches: float, size: float | None = None) -> int:
    """The number of letters that fit on a line of this width; of the layout's size unless it is given."""
    return max(8, int(inches * _POINTS / ((size or layout().size) * _LETTER)))


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """Break a name into a few short lines, as a tick shows it."""
    return "\n".join(textwrap.wrap(plain(text, width * lines), width, max_lines=lines, placeholder="\u2026"))


def heading(name: str, count: str, inches: float, *, few: bool = False) -> str:
    """Write a panel's heading on at most two lines: a name, a dagger if clusters are few, and a count of items."""
    width, tail = letters(inches), f"({count})".replace(" ", "\u00a0")  # which textwrap does not break
    short = plain(name, 2 * width - len(tail) - 8)
    return "\n".join(textwrap.wrap(f"{short}{DAGGER * few} {tail}", width))


def nothing(axes: Axes) -> None:
    """Mark a panel as n/a: an empty pair of axes would look like a result."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, "n/a", transform=axes.transAxes, ha="center", va="center", color=GREY)


def panels(figure: Figure, count: int, columns: int) -> list[Axes]:
    """Add panels that share both axes, row by row; call `label_outer` when they are drawn."""
    rows = -(-count // columns)
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    return grid[:count]


def label_outer(panels: Sequence[Axes], columns: int) -> None:
    """Show numbers at the lowest panel of each column and the first of each row, of those that have axes."""
    shown = {number for number, axes in enumerate(panels) if axes.axison}
    for number in shown:
        under = range(number + columns, len(panels), columns)
        before = range(number - number % columns, number)
        panels[number].tick_params(labelbottom=shown.isdisjoint(under), labelleft=shown.isdisjoint(before))
