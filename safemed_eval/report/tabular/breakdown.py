"""Numbers of runs, in all and by slice, as tables that list them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from safemed_eval.report.columns import Column, stems
from safemed_eval.report.findings.finding import BESIDE, of_keys, shared
from safemed_eval.report.load import in_order
from safemed_eval.report.rows import Slicing
from safemed_eval.report.run import Run
from safemed_eval.report.summary import FAILED_ITEMS, Part
from safemed_eval.report.tabular.table import Row, Table, heading_of, table_of

Numbers = TypeVar("Numbers")


@dataclass(frozen=True, kw_only=True)
class Study(Generic[Numbers]):
    """A run with its numbers, in all and by slice."""

    run: Run
    overall: Numbers
    slices: Mapping[Slicing | Column, Mapping[str, Numbers]]


def broken_down(
    name: str,
    caption: str,
    studies: Sequence[Study[Numbers]],
    rows_of: Callable[[Run, Numbers], Iterator[Row]],
) -> Iterator[Table]:
    """Make the table of all items, and one for each way to slice them; none where there are no rows."""
    whole: list[Row] = [
        {"run": study.run.name, **row} for study in studies for row in rows_of(study.run, study.overall)
    ]
    if not whole:
        return
    beside = caveats(study.run for study in studies)
    yield table_of(name, caption, whole, beside)
    slicings = {by: title for by, title in studies[0].run.slicings.items() if names_of(studies, by)}
    for by, stem in stems(slicings).items():
        title = heading_of(slicings[by], whole)
        rows: list[Row] = [
            {title: slice_, "run": study.run.name, **row}
            for slice_ in names_of(studies, by)
            for study in studies
            if slice_ in study.slices[by]
            for row in rows_of(study.run, study.slices[by][slice_])
        ]
        yield table_of(f"{name}-by-{stem}", caption, rows, beside)


def slices_of(
    run: Run, rows: Part, known: Mapping[Slicing | Column, dict[str, Numbers]], measure: Callable[[Part], Numbers]
) -> dict[Slicing | Column, dict[str, Numbers]]:
    """The numbers of each slice, which are known, and of each group of the user's columns."""
    others = [by for by in run.slicings if isinstance(by, Column)]
    return {**known} | {by: {name: measure(part) for name, part in rows.split(by).items()} for by in others}


def names_of(studies: Sequence[Study[Numbers]], by: Slicing | Column) -> list[str]:
    """All slices of these runs, the known ones first and in their fixed order; none where they were not measured."""
    return in_order({name for study in studies for name in study.slices.get(by, {})})


def caveats(runs: Iterable[Run]) -> str:
    """The findings without which a table must not be pasted elsewhere."""
    findings = [(run.name, finding) for run in runs for finding in of_keys(run.findings, BESIDE)]
    texts = [f" {', '.join(names)}: {finding.sentence}" for finding, names in shared(findings).items()]
    texts += [f" {FAILED_ITEMS}"] * any(finding.key == "failed" for _, finding in findings)
    return "".join(texts)
