"""The command `safemed-eval report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from safemed_eval import grammar
from safemed_eval.cli._show import say

EXAMPLE = "Example: safemed-eval report SFT=runs/a AT-GRPO=runs/b runs/c --out report"


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Run folders of evaluate and certify; NAME=FOLDER sets the name to show instead of the model's. Or "
            "one folder of train, complete or not.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the report; existing report.html, figures and tables are replaced.")
    ],
    alpha: Annotated[
        float | None,
        typer.Option(help="Recompute certificates from their votes at this alpha instead of the run's own."),
    ] = None,
    radii: Annotated[
        str | None,
        typer.Option(
            help="Radii at which certified accuracy is shown; the suffix s means times sigma. Sequential runs have "
            "only the radii that they were run with.",
            show_default=f"{grammar.RADII}; of sequential runs their own",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN,...",
            help="Columns of the data to break numbers down by as well, such as age,sex,site; also source. Numbers are "
            "cut into quartiles; the worst group and the gap get intervals that hold for all groups at once.",
        ),
    ] = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Leave out the images stored by evaluate --keep-images.")
    ] = False,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Robustness report",
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Figures for a paper: PNG at 300 dpi, and notes in a LaTeX caption beside each figure instead of "
            "below it.",
        ),
    ] = False,
    width: Annotated[
        float | None,
        typer.Option(
            help="With --paper, width in inches of a figure in one column; above 4.5, the paper has one column only.",
            show_default="3.25",
        ),
    ] = None,
    font: Annotated[float | None, typer.Option(help="With --paper, font size in points.", show_default="8")] = None,
) -> None:
    """Write figures (PDF, PNG), tables (Markdown, LaTeX, CSV) and one interactive page of some runs; loads no model.

    Runs of several models are shown side by side; runs of evaluate and certify may be mixed. The page of a training
    shows its curves, and what the model wrote about clean and attacked images as it learned.
    """
    from safemed_eval.report.make import report as make_report

    written = make_report(
        runs,
        out,
        alpha=alpha,
        radii=radii,
        by=by,
        images=not no_images,
        title=title,
        paper=paper,
        width=width,
        font=font,
    )
    counts = f"{len(written.figures)} figures, {len(written.tables)} tables. " if written.tables else ""
    say(f"{counts}Open:")
    say(escape(str(written.page)))
