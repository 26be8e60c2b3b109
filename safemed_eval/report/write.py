"""A whole report: page, figures and tables of some runs in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safemed_eval.errors import RunError
from safemed_eval.report.drawing.style import for_paper
from safemed_eval.report.figures import draw_all
from safemed_eval.report.page import write_page
from safemed_eval.report.run import Run
from safemed_eval.report.tables import tables_of, write_tables

PAGE = "report.html"
FIGURES, TABLES = "figures", "tables"
_OURS = {FIGURES: (".png", ".pdf", ".tex"), TABLES: (".md", ".csv", ".tex", ".tsv")}


@dataclass(frozen=True, kw_only=True)
class Written:
    """The files of a report."""

    page: Path
    figures: list[Path]
    tables: list[Path]


def refuse_foreign(out: Path) -> None:
    """Raise RunError where the folder holds something that is no report: a report replaces its own files only."""
    if out.exists() and not out.is_dir():
        raise RunError(f"--out {out}: is a file, not a folder")
    strange = sorted(file.name for file in out.iterdir()) if out.is_dir() and not (out / PAGE).exists() else []
    if strange:
        raise RunError(f"--out {out}: is no report, it holds {strange[0]}; name a new or empty folder")


def write(
    runs: Sequence[Run], out: Path, *, title: str, radii: str | None, paper: tuple[float, float] | None = None
) -> Written:
    """Write `report.html`, `figures/` and `tables/`; figures and tables of an earlier report there are removed.

    Args:
        paper: width in inches and font size in points of figures for a paper.
    Raises:
        RunError: the folder holds something else.
        SpecError: `radii` cannot be read.
    """
    refuse_foreign(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / PAGE).touch()
    for folder, endings in _OURS.items():
        for file in (out / folder).glob("*"):
            if file.suffix in endings:
                file.unlink()
    made = list(tables_of(runs, radii=radii))
    tables = write_tables(made, runs, out / TABLES)
    figures = draw_all(runs, out / FIGURES, for_paper(*paper) if paper else None)
    write_page(runs, out / PAGE, title=title, radii=radii, tables=made)
    return Written(page=out / PAGE, figures=figures, tables=tables)
