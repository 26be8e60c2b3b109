"""What the terminal shows of a run: tables of text, and lines below them. The command line prints both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from safemed_eval.report.findings.finding import ABOVE, Finding, Key, Severity
from safemed_eval.report.findings.reasoning import reasoning, reasoning_sentences
from safemed_eval.report.load import SLICES
from safemed_eval.report.run import ALL, Run
from safemed_eval.report.summary import DAGGER, FEW, Certified
from safemed_eval.report.text_cells import text_cells

_ELSEWHERE: frozenset[Key] = frozenset(
    {
        "silence",  # on stderr, see `warnings`
        "first-error",  # on stderr, see `errors`
        "unfinished",  # in the first line, as the next two
        "skipped",
        "sample",
        "made-images",
        "pseudonyms",
        "few",  # in the legend
        "failed-check",
    }
)
"""Findings that `lines` leaves out."""


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table: the heading of its rows' names, and each row's name and cells by heading."""

    heading: str
    rows: list[tuple[str, dict[str, str]]]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of plain text; it may hold text of models and data."""

    text: str
    severity: Severity = "note"


def tables(run: Run) -> list[TextTable]:
    """Make a table by modality and one by question type, each with a row of all items."""
    summary = run.summary
    everything = (ALL, text_cells(summary.overall))
    return [
        TextTable(
            heading=title,
            rows=[everything, *((name, text_cells(cells)) for name, cells in summary.by(by).items())],
        )
        for by, title in SLICES.items()
    ]


def warnings(run: Run) -> list[str]:
    """What belongs on stderr, whatever is printed: the model hardly answered."""
    return [finding.text for finding in run.findings if finding.key == "silence"]


def errors(run: Run) -> list[str]:
    """What belongs on stderr where nothing was measured: the condition and its first error."""
    return [finding.sentence for finding in run.findings if finding.key == "first-error"]


def lines(run: Run) -> Iterator[Line]:
    """Make the lines below the tables: counts, options, legend, findings, and what was written."""
    summary, shown = run.summary, [finding for finding in run.findings if finding.key not in _ELSEWHERE]
    first = f"{summary.items} of {summary.expected} items"
    first += f" (sample: {summary.sampled})" if summary.sampled else ""
    first += f"; {summary.skipped} bad left out" if summary.skipped else ""
    yield Line(text=first + (f"; {summary.failed} failed and count as wrong" if summary.failed else ""))
    options = {name: value for name, value in summary.asked.items() if value is not None and value is not False}
    yield Line(text="; ".join(f"{name} {value}" for name, value in options.items()))
    if summary.notes.images:
        yield Line(text="Images: " + "; ".join(f"{note}: {count}" for note, count in summary.notes.images.items()))
    above = [finding for finding in shown if finding.key in ABOVE]
    below = [finding for finding in shown if finding.key not in ABOVE]
    yield from map(_line, above)
    yield from (Line(text=sentence) for sentence in _legend(run))
    yield from map(_line, below)
    written = reasoning(run)
    yield from (Line(text=sentence) for sentence in (reasoning_sentences(written) if written else ()))


def _line(finding: Finding) -> Line:
    text = f"{finding.severity} {finding.sentence}" if finding.key == "check" else finding.text
    return Line(text=text, severity=finding.severity)


def _legend(run: Run) -> Iterator[str]:
    overall = run.summary.overall
    if isinstance(overall, Certified):
        yield (
            "r>=x: certified accuracy in %, the share answered rightly with a certified radius of at least x, rounded "
            f"down; 95 % intervals on the effective sample size (clusters: patient or image, here {overall.clusters}; "
            f"{DAGGER} {FEW[:-1]}). Radii are L2 in [0, 1] pixel units over the whole canvas; s is sigma."
        )
        yield (
            "abstain: % without a certificate. ACR: average certified radius, 0 where wrong or abstained. median r: "
            "the largest radius at which half are still certified and right."
        )
        return
    clusters = next(iter(overall.values())).clusters
    yield (
        "Accuracy in %, 95 % Clopper-Pearson intervals on the effective sample size (clusters: patient or image, here "
        f"{clusters}; {DAGGER} {FEW[:-1]})."
    )
