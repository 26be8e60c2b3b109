"""A finding: one fact that a reader of a run must know beside its numbers, in one wording for every report."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

Severity = Literal["note", "warn", "fail"]
Key = Literal[
    "made-images",
    "trained-on",
    "degenerate",
    "silence",
    "pseudonyms",
    "unfinished",
    "failed",
    "failed-items",
    "first-error",
    "skipped",
    "sample",
    "lost-images",
    "alpha",
    "unsound",
    "failed-check",
    "canvas-cost",
    "shrunk-canvas",
    "few",
    "smoothed",
    "abstained",
    "no-answer",
    "steps",
    "parts",
    "region",
    "attacked-files",
    "image-blind",
    "letter-only",
    "letters",
    "circular",
    "grounding",
    "check",
    "checks",
    "ceiling",
    "sequential",
    "draws",
    "ended-wrong",
    "random-order",
    "own-pixels",
    "by-chance",
    "population",
    "falsified",
    "at-ceiling",
    "refuted",
    "different-items",
    "different-order",
    "different-sampling",
    "different-canvas",
    "different-noise",
    "radius-words",
    "floating-point",
]

Run = TypeVar("Run")

ABOVE: frozenset[Key] = frozenset(
    {
        "made-images",
        "trained-on",
        "degenerate",
        "silence",
        "pseudonyms",
        "unfinished",
        "failed",
        "failed-items",
        "first-error",
        "skipped",
        "sample",
        "alpha",
        "unsound",
        "failed-check",
        "canvas-cost",
        "shrunk-canvas",
    }
)
"""Findings that must be known before any number is read."""
BELOW: frozenset[Key] = frozenset(
    {
        "ceiling",
        "own-pixels",
        "sequential",
        "draws",
        "ended-wrong",
        "random-order",
        "population",
        "falsified",
        "at-ceiling",
        "radius-words",
        "floating-point",
        "steps",
        "parts",
        "region",
        "attacked-files",
        "image-blind",
        "letter-only",
        "letters",
        "circular",
        "grounding",
    }
)
"""Findings that belong below a table of the run's numbers."""
AT_READING: frozenset[Key] = frozenset({"lost-images", "alpha", "unfinished"})
"""Findings to log while a report is written."""
BESIDE: frozenset[Key] = frozenset({"failed", "unfinished", "sample", "alpha", "sequential"})
"""Findings without which a table or figure must not be pasted elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact about a run.

    Attributes:
        sentence: plain text that may follow the run's name and a colon; it may hold text of models and data, which
            whoever shows it escapes.
    """

    key: Key
    severity: Severity
    sentence: str

    @property
    def text(self) -> str:
        """The sentence on its own, with a capital letter."""
        return f"{self.sentence[:1].upper()}{self.sentence[1:]}"

    def __str__(self) -> str:
        return self.text


def note(key: Key, sentence: str) -> Finding:
    return Finding(key=key, severity="note", sentence=sentence)


def warning(key: Key, sentence: str) -> Finding:
    return Finding(key=key, severity="warn", sentence=sentence)


def failure(key: Key, sentence: str) -> Finding:
    return Finding(key=key, severity="fail", sentence=sentence)


def of_keys(findings: Iterable[Finding], keys: Collection[Key]) -> list[Finding]:
    """The findings with one of these keys, in their order."""
    return [finding for finding in findings if finding.key in keys]


def shared(findings: Iterable[tuple[Run, Finding]]) -> dict[Finding, list[Run]]:
    """The runs of which each finding holds: reports name these together, and say it once."""
    runs: dict[Finding, list[Run]] = {}
    for run, finding in findings:
        runs.setdefault(finding, []).append(run)
    return runs


def counted(count: int, noun: str) -> str:
    """ "1 item", "2,000 items"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
