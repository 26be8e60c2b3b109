"""Accuracy under corruptions of several kinds and severities, as one table a set: kinds down, severities across."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from safemed_eval.report.findings.attack_sizes import facts_by_condition
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.summary import DAGGER, Answered, AnsweredBy, Share
from safemed_eval.rounding import percent

ALL_KINDS = "all kinds"
MEAN, WORST = "mean", "worst"
_ABOUT = (
    "Accuracy in % under corruptions, by kind and severity, from 1 (barely visible) to 5 (bad). Mean: of the "
    "severities, and below of the kinds, with equal weight; worst: the lowest of them, and where."
)
_OF_A_SET = (
    "Accuracy in % under the corruptions of {set}, by kind and severity, from 1 to 5. Each item meets the kinds that "
    "the set has for its modality; for the others it is n/a, and not among the n. Mean: of the severities, and below "
    "of the kinds that some item meets, with equal weight; worst: the lowest of them, and where."
)


class Grade(NamedTuple):
    """A corruption of one kind at one severity.

    Attributes:
        set: the set that the kind is of; None: this package's own.
    """

    kind: str
    severity: int
    set: str | None = None


class Figure(NamedTuple):
    """One figure of the table.

    Attributes:
        value: in [0, 1]; None: unknown.
        share: what was measured; None for a mean.
    """

    text: str
    value: float | None
    share: Share | None = None


class CorruptionRow(NamedTuple):
    """One row of the table: a kind, the number of its items, and its figures by severity, mean and worst."""

    kind: str
    n: str
    figures: dict[str, Figure]


def grades_of(runs: Iterable[LoadedRun]) -> dict[str, Grade]:
    """Find the conditions that these tables show, and reports need no column of their own for.

    A single one of a set remains a column, and is not returned.
    """
    grades = {
        condition: Grade(facts.kind, facts.severity, facts.set)
        for run in runs
        for condition, facts in facts_by_condition(run).items()
        if facts.role == "corruption" and facts.kind is not None and facts.severity is not None
    }
    several = {name: some for name, some in by_set(grades).items() if len(some) > 1}
    return {condition: grade for condition, grade in grades.items() if grade.set in several}


def by_set(grades: Mapping[str, Grade]) -> dict[str | None, dict[str, Grade]]:
    """Divide conditions by the sets of their corruptions: each set is a table."""
    sets: dict[str | None, dict[str, Grade]] = {}
    for condition, grade in grades.items():
        sets.setdefault(grade.set, {})[condition] = grade
    return sets


def about(name: str | None) -> str:
    """Say what the table of a set shows."""
    return _OF_A_SET.format(set=name) if name else _ABOUT


def others(numbers: AnsweredBy, grades: Mapping[str, Grade]) -> AnsweredBy:
    """The numbers of the conditions that stay columns; clean is always among them."""
    return {condition: cell for condition, cell in numbers.items() if condition not in grades}


def severities_of(grades: Mapping[str, Grade]) -> list[int]:
    """The severities that the table has columns for."""
    return sorted({grade.severity for grade in grades.values()})


def corruption_rows(numbers: AnsweredBy, grades: Mapping[str, Grade]) -> Iterator[CorruptionRow]:
    """Yield a row for each kind of one set, and the last one for all of them.

    Args:
        numbers: of one run, in all or in a slice. Of kinds that it lacks there is no row.
    """
    known = {grade: numbers[condition] for condition, grade in grades.items() if condition in numbers}
    severities = severities_of(grades)
    kinds = list(dict.fromkeys(grade.kind for grade in known))
    for kind in kinds:
        measured = {str(grade.severity): share for grade, share in known.items() if grade.kind == kind}
        figures = {str(severity): _measured(measured.get(str(severity))) for severity in severities}
        ends = {MEAN: _mean([*measured.values()]), WORST: _worst(measured)}
        yield CorruptionRow(kind, _counted(measured.values()), figures | ends)
    if len(kinds) > 1:
        columns = {
            str(severity): _mean([share for grade, share in known.items() if grade.severity == severity])
            for severity in severities
        }
        named = {f"{grade.kind} {grade.severity}": share for grade, share in known.items()}
        ends = {MEAN: _mean([*named.values()]), WORST: _worst(named)}
        yield CorruptionRow(ALL_KINDS, _counted(known.values()), columns | ends)


def _counted(shares: Iterable[Answered]) -> str:
    """The number of items, and for how many there is no figure: a range where conditions differ."""
    every = [*shares]
    n, unavailable = (_range(sorted(counts)) for counts in ({s.n for s in every}, {s.unavailable for s in every}))
    return n if unavailable == "0" else f"{n} (n/a for {unavailable})"


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _measured(share: Share | None) -> Figure:
    if share is None:
        return Figure("n/a", None)
    return Figure(f"{share.text}{DAGGER * share.few}", share.share, share)


def _met(share: Answered) -> bool:
    """True where some item meets the condition."""
    return bool(share.n or not share.unavailable)


def _mean(shares: Sequence[Answered]) -> Figure:
    """The plain mean of those that some item meets; unknown where there are none, or one of them is unknown."""
    met = [share for share in shares if _met(share)]
    values = [share.share for share in met if share.share is not None]
    mean = sum(values) / len(values) if values and len(values) == len(met) else None
    return Figure(percent(mean), mean)


def _worst(shares: Mapping[str, Answered]) -> Figure:
    """The lowest share, with its name; unknown as in `_mean`."""
    met = {name: share for name, share in shares.items() if _met(share)}
    values = {name: share.share for name, share in met.items() if share.share is not None}
    if not values or len(values) < len(met):
        return Figure("n/a", None)
    name = min(values, key=lambda name: values[name])
    return Figure(f"{percent(values[name])} ({name})", values[name], shares[name])
