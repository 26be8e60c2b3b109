"""Figures for a paper: each module here whose name has no underscore is one kind of figure, with one function

    draw(runs) -> Iterator[tuple[str, Figure]]

that yields (file stem, figure), and nothing where the runs hold no data for it. It is called, and its figures are
saved, inside `style()`: matplotlib's settings are never changed for anyone else, and pyplot is not used.

Other packages add kinds through the entry points `safemed_eval.figures`, each naming such a function:

>>> from safemed_eval.report.figures import slug
>>> def draw(runs):
...     for run in runs:
...         if run.kind == "evaluate":
...             figure = Figure(figsize=(3.35, 2.3), layout="constrained")
...             figure.add_subplot().bar(*zip(*run.accuracy().drop(columns="n").loc["all"].items()))
...             yield f"overview-{slug(run.name)}", figure
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from matplotlib.figure import Figure

from safemed_eval.errors import SpecError
from safemed_eval.plugins import load_plugin, plugins
from safemed_eval.report._text import slug
from safemed_eval.report.drawing.files import save
from safemed_eval.report.drawing.style import Layout, style
from safemed_eval.report.run import Run

__all__ = ["draw_all", "kinds", "slug"]

Draw = Callable[[Sequence[Run]], Iterator[tuple[str, Figure]]]


def kinds() -> list[str]:
    """The names of all kinds of figures, those of plug-ins included, sorted."""
    return sorted({*_built_in(), *plugins("figures")})


def draw_all(runs: Sequence[Run], folder: Path, layout: Layout | None = None) -> list[Path]:
    """Write every figure that these runs have data for, as PDF and as PNG; the same runs give the same bytes.

    Args:
        layout: without notes below figures, each gets a LaTeX file, which has them as its caption.
    Returns:
        The PNG files, in order; each has a PDF of the same stem beside it.
    Raises:
        SpecError: a plug-in cannot be imported, or is no function that draws.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with style(layout):
        return [save(figure, folder / stem) for kind in kinds() for stem, figure in drawer(kind)(runs)]


def drawer(kind: str) -> Draw:
    """The function that draws one kind of figure.

    Raises:
        SpecError: as `draw_all`.
    """
    if kind in _built_in():
        return cast(Draw, import_module(f"{__name__}.{kind}").draw)
    loaded = load_plugin("figures", kind)
    if not callable(loaded):
        raise SpecError(f"the plug-in {kind} of safemed_eval.figures is no function draw(runs)")
    return cast(Draw, loaded)


def _built_in() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
