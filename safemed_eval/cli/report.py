"""safemed-eval report."""

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
            metavar="RUN...", help="Run folders of evaluate and certify; NAME=FOLDER calls one so, not after its model."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the report; report.html, figures and tables in it are replaced.")
    ],
    alpha: Annotated[
        float | None,
        typer.Option(help="Read certificates again, from their votes, at this alpha instead of the run's own."),
    ] = None,
    radii: Annotated[
        str | None,
        typer.Option(
            help="Where certified accuracy is shown; the suffix s counts in sigma. Sequential runs know the radii only "
            "that they were asked for.",
            show_default=f"{grammar.RADII}; of sequential runs their own",
        ),
    ] = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Leave out the images that evaluate --keep-images has kept.")
    ] = False,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Robustness report",
) -> None:
    """Figures (PDF, PNG), tables (Markdown, LaTeX, CSV) and one interactive page of some runs; no model is loaded.

    Runs of several models stand side by side; those of evaluate and of certify may be mixed.
    """
    from safemed_eval.report.make import report as make_report

    written = make_report(runs, out, alpha=alpha, radii=radii, images=not no_images, title=title)
    say(f"{len(written.figures)} figures, {len(written.tables)} tables. Open:")
    say(escape(str(written.page)))
