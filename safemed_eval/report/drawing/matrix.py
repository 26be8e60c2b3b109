"""A matrix of shares: each cell with its number, its items, and a colour on one scale from 0 to 100 %."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from safemed_eval.report.drawing.sheet import wrapped
from safemed_eval.report.drawing.style import GREY, INK, PALE, layout
from safemed_eval.report.summary import DAGGER, Share

MAP = "cividis"
"""Evenly rising in lightness, so that it reads in grey, and the same to the colour-blind."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A share in [0, 1], or None: unknown, and its text. `n` is None where it is no share of items."""

    share: float | None
    text: str
    n: int | None = None
    few: bool = False


def cell_of(share: Share | None) -> Cell:
    """Make the cell of a share; None: there is no such item."""
    return Cell(share=share.share, text=share.text, n=share.n, few=share.few) if share else Cell(share=None, text="n/a")


def matrix(
    axes: Axes,
    cells: Sequence[Sequence[Cell]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    upright: bool = False,
) -> AxesImage:
    """Draw the cells, in the order given, with names around them.

    Args:
        upright: turn the names of columns by a right angle, where cells are narrow.
    """
    shares = np.array([[np.nan if cell.share is None else 100 * cell.share for cell in row] for row in cells])
    image = axes.imshow(np.ma.masked_invalid(shares), cmap=MAP, vmin=0, vmax=100, aspect="auto")
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            _write(axes, x, y, cell)
    names = [wrapped(name, 16, 2) for name in columns]
    if upright:
        axes.set_xticks(range(len(columns)), names, rotation=90)
    else:
        axes.set_xticks(range(len(columns)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [wrapped(name, 16, 2) for name in rows])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    return image


def scale(figure: Figure, image: AxesImage, axes: Sequence[Axes], label: str) -> None:
    """Draw the scale of colours beside the matrices."""
    bar = figure.colorbar(image, ax=list(axes), label=label, ticks=[0, 25, 50, 75, 100], aspect=25, pad=0.01)
    bar.outline.set_visible(False)


def _write(axes: Axes, x: int, y: int, cell: Cell) -> None:
    if cell.share is None:
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="white", edgecolor=PALE, hatch="/////", linewidth=0)
        )
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axes.text(x, y, cell.text, ha="center", va="center", fontsize=layout().small, color=GREY, bbox=box)
        return
    color = _ink(colormaps[MAP](cell.share)[:3])
    number = f"{cell.text}{DAGGER * cell.few}"
    if cell.n is None:
        axes.text(x, y, number, ha="center", va="center", fontsize=layout().size, color=color)
        return
    axes.text(x, y - 0.02, number, ha="center", va="bottom", fontsize=layout().size, color=color)
    axes.text(x, y + 0.06, f"of {cell.n:,}", ha="center", va="top", fontsize=layout().small - 0.5, color=color)


def _ink(background: Sequence[float]) -> str:
    """Black or white, whichever contrasts more (WCAG 2's relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"
