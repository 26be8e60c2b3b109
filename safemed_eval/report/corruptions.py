"""Accuracy under corruptions of several kinds and severities, as one table: kinds down, severities across."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from safemed_eval.report.findings.attack_sizes import facts_by_condition
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.summary import DAGGER, AnsweredBy, Share
from safemed_eval.rounding import percent

ALL_KINDS = "all kinds"
MEAN, WORST = "mean", "worst"
ABOUT = (
    "Accuracy in % under corruptions, by kind and severity, from 1 (barely visible) to 5 (bad). Mean: of the "
    "severities, and below of the kinds, with equal weight; worst: the lowest of them, and where."
)


class Grade(NamedTuple):
    """A corruption of one kind at one severity."""

    kind: str
    severity: int


class Figure(NamedTuple):
    """One figure of the table.

    Attributes:
        value: in [0, 1]; None: unknown.
        share: what was measured; None for a mean.
    """

    text: str
    value: float | None
    share: Share | None = None


def grades_of(runs: Iterable[LoadedRun]) -> dict[str, Grade]:
    """Find the conditions that this table shows, and reports need no column of their own for.

    A single one remains a column, and nothing is returned.
    """
    grades = {
        condition: Grade(facts.kind, facts.severity)
        for run in runs
        for condition, facts in facts_by_condition(run).items()
        if facts.role == "corruption" and facts.kind is not None and facts.severity is not None
    }
    return grades if len(grades) > 1 else {}


def others(numbers: AnsweredBy, grades: Mapping[str, Grade]) -> AnsweredBy:
    """The numbers of the conditions that stay columns; clean is always among them."""
    return {condition: cell for condition, cell in numbers.items() if condition not in grades}


def severities_of(grades: Mapping[str, Grade]) -> list[int]:
    """The severities that the table has columns for."""
    return sorted({grade.severity for grade in grades.values()})


def corruption_rows(numbers: AnsweredBy, grades: Mapping[str, Grade]) -> Iterator[tuple[str, dict[str, Figure]]]:
    """Yield a row for each kind, and the last one for all of them: figures by severity, mean and worst.

    Args:
        numbers: of one run, in all or in a slice. Of kinds that it lacks there is no row.
    """
    known = {grade: numbers[condition] for condition, grade in grades.items() if condition in numbers}
    severities = severities_of(grades)
    kinds = list(dict.fromkeys(grade.kind for grade in known))
    for kind in kinds:
        shares = {severity: known.get(Grade(kind, severity)) for severity in severities}
        measured = {str(severity): share for severity, share in shares.items() if share}
        yield (
            kind,
            {str(severity): _measured(share) for severity, share in shares.items()}
            | {MEAN: _mean([*measured.values()]), WORST: _worst(measured)},
        )
    if len(kinds) > 1:
        columns = {
            str(severity): _mean([share for grade, share in known.items() if grade.severity == severity])
            for severity in severities
        }
        named = {f"{grade.kind} {grade.severity}": share for grade, share in known.items()}
        yield ALL_KINDS, columns | {MEAN: _mean([*named.values()]), WORST: _worst(named)}


def _measured(share: Share | None) -> Figure:
    if share is None:
        return Figure("n/a", None)
    return Figure(f"{share.text}{DAGGER * share.few}", share.share, share)


def _mean(shares: Sequence[Share]) -> Figure:
    """The plain mean; unknown where there is nothing, or one of them is unknown."""
    values = [share.share for share in shares if share.share is not None]
    mean = sum(values) / len(values) if values and len(values) == len(shares) else None
    return Figure(percent(mean), mean)


def _worst(shares: Mapping[str, Share]) -> Figure:
    """The lowest share, with its name; unknown where one of them is unknown."""
    values = {name: share.share for name, share in shares.items() if share.share is not None}
    if not values or len(values) < len(shares):
        return Figure("n/a", None)
    name = min(values, key=lambda name: values[name])
    return Figure(f"{percent(values[name])} ({name})", values[name], shares[name])
