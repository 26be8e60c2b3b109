"""Figures for a paper: each module here whose name has no underscore is one kind of figure, with one function

    draw(runs) -> Iterator[tuple[str, Figure]]

that yields (file stem, figure), and nothing where the runs hold no data for it. It is called, and its figures are
saved, inside `style()`: matplotlib's settings are never changed for anyone else, and pyplot is not used.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from safemed_eval.report.figures._style import save, style
from safemed_eval.report.load import LoadedRun

__all__ = ["draw_all", "kinds", "style"]


def kinds() -> list[str]:
    """The names of all kinds of figures, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def draw_all(runs: Sequence[LoadedRun], folder: Path) -> list[Path]:
    """Write every figure that these runs have data for, as PDF and as PNG; the same runs give the same bytes.

    Returns:
        The PNG files, in order; each has a PDF of the same stem beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        return [
            save(figure, folder / stem)
            for kind in kinds()
            for stem, figure in import_module(f"{__name__}.{kind}").draw(runs)
        ]
