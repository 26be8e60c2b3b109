"""The findings that the page shows as sentences: above all numbers, and below the tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from safemed_eval.report.findings.between import findings_between
from safemed_eval.report.findings.finding import ABOVE, BELOW, Key, of_keys, shared
from safemed_eval.report.run import Run


class Remark(NamedTuple):
    """A sentence, and the runs of which it holds."""

    names: str
    text: str


def notices_of(runs: Sequence[Run]) -> list[Remark]:
    """Collect what must be known before any number is read."""
    findings = shared((run, finding) for run in runs for finding in of_keys(run.findings, ABOVE))
    notices = [Remark(_named(some, runs), finding.text) for finding, some in findings.items()]
    for kind in ("evaluate", "certify"):
        some = [run for run in runs if run.kind == kind]
        notices += [Remark(_named(some, runs), finding.text) for finding in findings_between(some)]
    return notices


def remarks_of(runs: Sequence[Run], keys: frozenset[Key] = BELOW) -> list[Remark]:
    """Collect what stands below the tables of these runs; runs of which the same holds are named together."""
    findings = shared((run.name, finding) for run in runs for finding in of_keys(run.findings, keys))
    return [Remark(", ".join(names), finding.sentence) for finding, names in findings.items()]


def _named(runs: Sequence[Run], every: Iterable[Run]) -> str:
    """The names of some runs, each once, and their command if it is one; "All" where that is shorter."""
    kinds, every = {run.kind for run in runs}, list(every)
    if len(runs) > 1 and len(runs) == sum(run.kind in kinds for run in every):
        return "All runs" if len(runs) == len(every) else f"All runs of {runs[0].kind}"
    names = ", ".join(dict.fromkeys(run.name for run in runs))
    return f"{names} ({runs[0].kind})" if len(kinds) == 1 else names
