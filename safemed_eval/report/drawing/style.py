"""The look of every figure, and its files. Settings hold inside `style()` only."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font

from safemed_eval.report.load import LoadedRun

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType  # new in matplotlib 3.11

FONT = "DejaVu Sans"
"""Comes with matplotlib, so that text is as wide on every machine."""
SIZE = 7.0
"""Font size in points, unless figures are for a paper."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How large figures and their letters are, and what stands below them.

    Attributes:
        column, page: widths in inches of a figure in one column, and of one across the page.
        size: font size in points.
        notes: put the notes of a figure below it; False: its LaTeX file has them as a caption.
        dpi: pixels per inch of PNG files.
    """

    column: float = 3.35
    page: float = 7.0
    size: float = SIZE
    notes: bool = True
    dpi: int = 200

    @property
    def small(self) -> float:
        """The font size of notes and counts."""
        return self.size - 1

    def inches(self, length: float) -> float:
        """A length that was chosen for letters of `SIZE`, at this font size."""
        return length * self.size / SIZE


def for_paper(width: float, size: float) -> Layout:
    """The layout of figures for a paper.

    Args:
        width: of a column, in inches. Two columns wider than `_WIDEST` fit on no sheet: such a paper has one.
        size: of the letters, in points.
    """
    page = 2 * width + _GAP if width <= _WIDEST else width
    return Layout(column=width, page=page, size=size, notes=False, dpi=300)


_WIDEST = 4.5
_GAP = 0.25
"""Between columns, in inches."""
_SCREEN = Layout()
_layout = ContextVar("_layout", default=_SCREEN)


def layout() -> Layout:
    """The layout of the figures that are drawn now; see `style`."""
    return _layout.get()


INK, GREY, PALE = "#000000", "#666666", "#bbbbbb"

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK)
"""Told apart by the colour-blind (Okabe and Ito), without their yellow, which is faint on white."""
Dash = Literal["-", "none"] | tuple[float, tuple[float, ...]]
"""A line style of matplotlib; "none": markers alone."""
DASHES: tuple[Dash, ...] = ("-", (0, (4, 1.5)), (0, (4, 1.2, 1, 1.2)), (0, (1.5, 1.2)), (0, (6, 1.2, 1, 1.2, 1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
HATCHES = ("", "//////", "xxxxxx", "......", "\\\\\\\\\\\\", "++++++", "oooo", "------")

_SIZED: tuple[RcKeyType, ...] = (
    "font.size",
    "axes.titlesize",
    "axes.labelsize",
    "xtick.labelsize",
    "ytick.labelsize",
    "legend.fontsize",
    "legend.title_fontsize",
    "figure.titlesize",
)
_SETTINGS: dict[RcKeyType, Any] = {
    "font.family": [FONT],
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
def style(chosen: Layout | None = None) -> Iterator[None]:
    """Use matplotlib's own defaults, the settings above and this layout until the end, whatever matplotlibrc says."""
    token = _layout.set(chosen or _SCREEN)
    try:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_SETTINGS)
            matplotlib.rcParams.update(dict.fromkeys(_SIZED, layout().size))
            yield
    finally:
        _layout.reset(token)


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


def together(own: Mapping[str, Look], runs: Sequence[LoadedRun]) -> dict[str, Look]:
    """The looks of the runs of one figure: the first is drawn solid, and dashes tell the others from it."""
    names = dict.fromkeys(run.name for run in runs)
    return {name: replace(own[name], dash=look(number).dash) for number, name in enumerate(names)}


def plain(text: str, most: int = 40) -> str:
    """Put text of data on one line of at most `most` characters; what the font cannot show becomes U+FFFD."""
    line = " ".join(unicodedata.normalize("NFC", text).split())
    short = line if len(line) <= most else f"{line[: most - 1].rstrip()}\u2026"
    return "".join(c if c.isprintable() and _font().get_char_index(ord(c)) else "\ufffd" for c in short)


@lru_cache(maxsize=1)
def _font() -> FT2Font:
    return get_font(findfont(FontProperties(family=[FONT])))
