"""report: figures, tables and a page of runs. No model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safemed_eval import grammar
from safemed_eval.codec import typed
from safemed_eval.errors import SpecError
from safemed_eval.progress import status
from safemed_eval.report.run import Run, at_common_radii, read_all, with_columns

if TYPE_CHECKING:
    from safemed_eval.report.training.read import Training
    from safemed_eval.report.write import Written

TITLE = "Robustness report"
WIDTH, WIDTHS = 3.25, (2.0, 12.0)
"""Width in inches of a figure for a column of a paper, and what can be asked for."""
FONT, FONTS = 8.0, (5.0, 14.0)
"""Size in points of its letters, likewise."""
_log = logging.getLogger("safemed_eval")


@typed
def report(
    runs: Sequence[Run | str | Path],
    out: str | Path,
    *,
    alpha: float | None = None,
    radii: str | None = None,
    by: str | None = None,
    images: bool = True,
    title: str = TITLE,
    paper: bool = False,
    width: float | None = None,
    font: float | None = None,
) -> Written:
    """Write figures (PDF, PNG), tables (Markdown, LaTeX, CSV) and one interactive page of some runs.

    Runs of several models stand side by side; those of `evaluate` and of `certify` may be mixed.

    >>> import safemed_eval as se
    >>> se.report(["SFT=runs/a", "runs/b"], "report").page  # doctest: +SKIP

    The folder of one training gets a page of its own kind: curves, samples and adversarial images over time.

    Args:
        runs: runs, or run folders; "NAME=FOLDER" calls one so, not after its model. Or one folder of a training.
        out: a new or empty folder, or one of an earlier report, which is replaced.
        alpha: read certificates again, from their votes, at this alpha instead of the run's own.
        radii: where certified accuracy is shown, such as "0,0.5s,1s"; the suffix s counts in sigma.
        by: columns of the data to break numbers down by as well, such as "age,sex"; numbers are cut into quartiles.
        images: show the images that `evaluate(keep_images=...)` has kept.
        title: of the page.
        paper: make figures for a paper: PNG at 300 dpi, and notes in a LaTeX file beside each figure, as its caption,
            instead of below it.
        width: with `paper`, of a figure in one column, in inches; by default 3.25. Figures across the page are as wide
            as two columns and the gap of 0.25 between them; above 4.5 the paper has one column, and all are this wide.
        font: with `paper`, size of the letters in points; by default 8.
    Returns:
        The files: `page`, `figures`, `tables`.
    Raises:
        RunError: a folder is no run, or `out` holds something else. SpecError: an option cannot be read.
    """
    from safemed_eval.report.findings.finding import AT_READING, of_keys
    from safemed_eval.report.write import refuse_foreign, write

    place = Path(out)
    if not runs:
        raise SpecError("report: name at least one run")
    if alpha is not None and not 0 < alpha < 1:
        raise SpecError(f"--alpha {alpha}: alpha must lie between 0 and 1, got {alpha:g}")
    sizes = paper_sizes(paper, width, font)
    if training := _training_in(runs, alpha=alpha, radii=radii, by=by, paper=paper or None):
        from safemed_eval.report.training import write_training

        named = f"Training of {training.name}" if title == TITLE else title
        with status("writing the report"):
            return write_training(training, place, title=named, images=images)
    grammar.radii(radii or grammar.RADII, 1.0)  # refuse wrong radii before anything is read or written
    refuse_foreign(place)
    loaded = with_columns(at_common_radii(read_all(runs, alpha=alpha, images=images), radii), by)
    if alpha is not None and all(run.kind != "certify" for run in loaded):
        _log.warning("--alpha: has no effect, none of these runs is of certify")
    for run in loaded:
        for finding in of_keys(run.findings, AT_READING):
            _log.warning("%s: %s", run.name, finding.sentence)
    with status("writing the report"):
        return write(loaded, place, title=title, radii=radii, paper=sizes)


def paper_sizes(paper: bool, width: float | None, font: float | None) -> tuple[float, float] | None:
    """The width and font size of figures for a paper; None: they are for the screen.

    Raises:
        SpecError: one of them is given without `paper`, or cannot be.
    """
    asked = {"--width": (width, WIDTH, WIDTHS), "--font": (font, FONT, FONTS)}
    for option, (value, _, (least, most)) in asked.items():
        if value is not None and not paper:
            raise SpecError(f"{option}: has an effect with --paper only")
        if value is not None and not least <= value <= most:
            raise SpecError(f"{option} {value:g}: must lie between {least:g} and {most:g}")
    return (width or WIDTH, font or FONT) if paper else None


def _training_in(runs: Sequence[Run | str | Path], **for_runs: object) -> Training | None:
    """Read the training that is asked for; None if runs are.

    Raises:
        SpecError: a training stands beside something else, or an option is given that only runs have.
    """
    from safemed_eval.report.training.read import read_training

    found = {str(run): read for run in runs if isinstance(run, (str, Path)) and (read := read_training(run))}
    if not found:
        return None
    name, training = next(iter(found.items()))
    if len(runs) > 1:
        raise SpecError(f"{name}: is a training; its report is of nothing else")
    for option in (option for option, value in for_runs.items() if value is not None):
        raise SpecError(f"--{option}: has no effect on {name}, which is a training")
    return training
