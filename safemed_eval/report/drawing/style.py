"""The look of every figure, and its files. Settings hold inside `style()` only."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font

from safemed_eval.report.load import LoadedRun

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType  # new in matplotlib 3.11

ONE_COLUMN = 3.35
TWO_COLUMNS = 7.0
"""Widths of a figure in a two-column paper, in inches."""

FONT = "DejaVu Sans"
"""Comes with matplotlib, so that text is as wide on every machine."""
SIZE = 7.0
SMALL = 6.0
INK, GREY, PALE = "#000000", "#666666", "#bbbbbb"

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK)
"""Told apart by the colour-blind (Okabe and Ito), without their yellow, which is faint on white."""
Dash = Literal["-"] | tuple[float, tuple[float, ...]]
"""A line style of matplotlib."""
DASHES: tuple[Dash, ...] = ("-", (0, (4, 1.5)), (0, (4, 1.2, 1, 1.2)), (0, (1.5, 1.2)), (0, (6, 1.2, 1, 1.2, 1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
HATCHES = ("", "//////", "xxxxxx", "......", "\\\\\\\\\\\\", "++++++", "oooo", "------")

_SETTINGS: dict[RcKeyType, Any] = {
    "font.family": [FONT],
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.labelsize": SIZE,
    "xtick.labelsize": SIZE,
    "ytick.labelsize": SIZE,
    "legend.fontsize": SIZE,
    "figure.titlesize": SIZE,
    "axes.titlepad": 3.0,
    "axes.labelpad": 2.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "patch.linewidth": 0.5,
    "hatch.linewidth": 0.4,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.4,
    "legend.borderpad": 0.0,
    "legend.borderaxespad": 0.2,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    # Text stays text in the PDF, and a dollar sign in a question is a dollar sign.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "text.parse_math": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Use matplotlib's own defaults and the settings above, whatever the user's matplotlibrc says, until the end."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def save(figure: Figure, stem: Path) -> Path:
    """Write STEM.pdf and STEM.png without dates in them; returns the PNG."""
    # Not with_suffix: a stem may hold a dot.
    figure.savefig(stem.parent / f"{stem.name}.pdf", dpi=300, metadata={"CreationDate": None})
    png = stem.parent / f"{stem.name}.png"
    figure.savefig(png, dpi=200, metadata={"Software": None})
    return png


@dataclass(frozen=True, kw_only=True)
class Look:
    """Colour, dash, marker and hatch that tell one run, or one attack, from another, in black and white too."""

    color: str
    dash: Dash
    marker: str
    hatch: str


def look(number: int) -> Look:
    """The look of the n-th of several; lists of different length, so that pairs repeat late."""
    return Look(
        color=COLORS[number % len(COLORS)],
        dash=DASHES[number % len(DASHES)],
        marker=MARKERS[number % len(MARKERS)],
        hatch=HATCHES[number % len(HATCHES)],
    )


def looks(runs: Sequence[LoadedRun]) -> dict[str, Look]:
    """One look per name of a run: a model's attacked and certified runs look the same in all figures."""
    return {name: look(number) for number, name in enumerate(dict.fromkeys(run.name for run in runs))}


def plain(text: str, most: int = 40) -> str:
    """Put text of data on one line of at most `most` characters; what the font cannot show becomes U+FFFD."""
    line = " ".join(unicodedata.normalize("NFC", text).split())
    short = line if len(line) <= most else f"{line[: most - 1].rstrip()}\u2026"
    return "".join(c if c.isprintable() and _font().get_char_index(ord(c)) else "\ufffd" for c in short)


@lru_cache(maxsize=1)
def _font() -> FT2Font:
    return get_font(findfont(FontProperties(family=[FONT])))
