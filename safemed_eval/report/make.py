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
        raise SpecError(f"--alpha {alpha:g}: alpha must lie between 0 and 1")
    if training := _training_in(runs, alpha=alpha, radii=radii, by=by):
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
        return write(loaded, place, title=title, radii=radii)


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
