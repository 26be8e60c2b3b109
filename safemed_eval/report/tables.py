"""The tables of a report: the same numbers as Markdown, as LaTeX (booktabs) and, unrounded, as CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import pandas as pd

from safemed_eval.codec import Json
from safemed_eval.core import GROUNDED
from safemed_eval.report._text import latex, markdown, spreadsheet
from safemed_eval.report.corruptions import ABOUT, Grade, corruption_rows, grades_of, others
from safemed_eval.report.findings.finding import BESIDE, of_keys, shared
from safemed_eval.report.findings.reasoning import CHANGES, MEANING, SHARES, Texts, reasoning
from safemed_eval.report.load import SLICES, in_order
from safemed_eval.report.rows import Slicing
from safemed_eval.report.run import Run, at_common_radii
from safemed_eval.report.summary import (
    DAGGER,
    FAILED_ITEMS,
    FEW,
    AnsweredBy,
    Certified,
    CertifySummary,
    Share,
)
from safemed_eval.rounding import floor_to, percent

_ACCURACY = "Accuracy in %, with 95 % intervals on the effective sample size (clusters are patients or images)."
_CERTIFIED = (
    "Certified accuracy in %, the share answered rightly with a certified L2 radius of at least r (s is sigma), and "
    "its 95 % interval on the effective sample size (clusters are patients or images). ACR is the average certified "
    "radius, 0 where wrong or abstained; no radius counts above the ceiling of the sample budget, so that ACR and the "
    "median compare at equal sigma, n and alpha only. Certified values are rounded down."
)
_PARTS = (
    "Attacks made of several: accuracy in % under each part, and under all parts, which is the figure of the attack; "
    "with 95 % intervals. Where an attack tries its parts one after the other, what fell to one is not right under the "
    "next; else every item meets all of them."
)
_REASONING = f"What was written, shares in % and their numbers, changes of rationales as distances. {MEANING}"
_LONGEST_NAME = 80
"""Characters of a run's name in the name of a file."""
_WORDS = ("run", "method", "attack", "corruption", *SLICES.values(), "paper", "what")
"""Columns of text; the others hold figures."""
_KEPT = ("accuracy", "lower", "upper", "correct", "n", "clusters", "few", "failed", "no_answer", "abstained")

PUBLISHED = pd.DataFrame(
    [
        ("SafeMed-R1 (arXiv 2512.19317)", "fine-tuned VLM, clean", "95 %"),
        ("SafeMed-R1 (arXiv 2512.19317)", "fine-tuned VLM under PGD", "about 25 %"),
        ("SafeMed-R1 (arXiv 2512.19317)", "AT-GRPO with randomized smoothing, under PGD", "84.45 %"),
        ("Med-R1 (arXiv 2503.13939)", "over Qwen2-VL-2B, mean of eight modalities", "+29.94 points"),
        ("Med-R1 (arXiv 2503.13939)", "over Qwen2-VL-2B, mean of five question types", "+32.06 points"),
    ],
    columns=["paper", "what", "published"],
)
"""The two papers' headlines. They stand apart: other checkpoints, other data, other attacks."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        shown: text, as Markdown and LaTeX print it.
        values: the numbers behind it, a row each, for CSV.
    """

    name: str
    caption: str
    shown: pd.DataFrame
    values: pd.DataFrame


def write_tables(runs: Sequence[Run], folder: Path, *, radii: str | None) -> list[Path]:
    """Write every table that these runs have data for; returns the Markdown files.

    `certified-RUN.tsv` is a certify run in the format of Cohen et al. 2019, which their plotting code reads.

    Raises:
        SpecError: `radii` cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for table in tables_of(runs, radii=radii):
        files.append(folder / f"{table.name}.md")
        body = table.shown.map(markdown).rename(columns=markdown).to_markdown(index=False, disable_numparse=True)
        files[-1].write_text(f"{markdown(table.caption)}\n\n{body}\n", encoding="utf-8", errors="replace")
        cells = table.values.map(spreadsheet).rename(columns=spreadsheet)
        cells.to_csv(folder / f"{table.name}.csv", index=False, quoting=csv.QUOTE_NONNUMERIC, errors="replace")
        (folder / f"{table.name}.tex").write_text(_latex(table), encoding="utf-8", errors="replace")
    certified = [run for run in runs if run.kind == "certify" and run.records and not run.all_failed]
    names = [re.sub(r"[^\w.=-]+", "-", run.name)[-_LONGEST_NAME:] for run in certified]
    for place, (name, run) in enumerate(zip(names, certified, strict=True)):
        again = names[:place].count(name)
        cohen(run).to_csv(folder / f"certified-{name}{f'-{again + 1}' if again else ''}.tsv", sep="\t", index=False)
    return files


Numbers = TypeVar("Numbers")


@dataclass(frozen=True, kw_only=True)
class _Study(Generic[Numbers]):
    """A run with its numbers, in all and by slice."""

    run: Run
    overall: Numbers
    slices: Mapping[Slicing, Mapping[str, Numbers]]


def tables_of(runs: Sequence[Run], *, radii: str | None) -> Iterator[Table]:
    """Make every table that these runs have data for; see `radii_of` for where certified accuracy is read."""
    evaluated: list[_Study[AnsweredBy]] = []
    certified: list[_Study[Certified]] = []
    written: list[_Study[dict[str, Texts]]] = []
    for run in at_common_radii(runs, radii):
        summary = run.summary
        if isinstance(summary, CertifySummary):
            certified.append(_Study(run=run, overall=summary.overall, slices={by: summary.by(by) for by in SLICES}))
            continue
        evaluated.append(_Study(run=run, overall=summary.overall, slices={by: summary.by(by) for by in SLICES}))
        if texts := reasoning(run):
            slices: dict[Slicing, dict[str, dict[str, Texts]]] = {
                "modality": texts.by_modality,
                "question_type": texts.by_question_type,
            }
            written.append(_Study(run=run, overall=texts.overall, slices=slices))
    grades = grades_of(study.run for study in evaluated)
    yield from _broken_down("accuracy", _ACCURACY, evaluated, partial(_accuracy_rows, grades))
    yield from _broken_down("corruptions", ABOUT, evaluated, partial(_corruption_rows, grades))
    yield from _broken_down("certified", _CERTIFIED, certified, _certified_rows)
    yield from _broken_down("parts", _PARTS, evaluated, _part_rows)
    yield from _broken_down("reasoning", _REASONING, written, _reasoning_rows)
    for by, title in SLICES.items():
        if evaluated:
            yield _methods(evaluated, grades, by, f"methods-by-{title.replace(' ', '-')}")
    yield Table(
        name="published",
        caption="Published numbers of the two papers, NOT measured here: other checkpoints, other data, other attacks. "
        "They do not compare with the tables beside this one.",
        shown=PUBLISHED,
        values=PUBLISHED,
    )


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A cell of figures: what is shown, and the numbers behind it, for CSV."""

    text: str
    numbers: Json | None = None


Row = dict[str, str | _Cell]
"""By column: a name, or figures."""


def _broken_down(
    name: str,
    caption: str,
    studies: Sequence[_Study[Numbers]],
    rows_of: Callable[[Run, Numbers], Iterator[Row]],
) -> Iterator[Table]:
    """Make the table of all items, and one for each way to slice them; none where there are no rows."""
    whole: list[Row] = [
        {"run": study.run.name, **row} for study in studies for row in rows_of(study.run, study.overall)
    ]
    if not whole:
        return
    caption += _caveats(study.run for study in studies)
    yield _table(name, caption, whole)
    for by, title in SLICES.items():
        rows: list[Row] = [
            {title: slice_, "run": study.run.name, **row}
            for slice_ in _names(studies, by)
            for study in studies
            if slice_ in study.slices[by]
            for row in rows_of(study.run, study.slices[by][slice_])
        ]
        yield _table(f"{name}-by-{title.replace(' ', '-')}", caption, rows)


def _accuracy_rows(grades: Mapping[str, Grade], run: Run, cells: AnsweredBy) -> Iterator[Row]:
    shown = others(cells, grades)
    first = next(iter(shown.values()))
    yield {"n": _Cell(text=str(first.n)), **{condition: _share(cell, _KEPT) for condition, cell in shown.items()}}


def _corruption_rows(grades: Mapping[str, Grade], run: Run, cells: AnsweredBy) -> Iterator[Row]:
    n = _Cell(text=str(next(iter(cells.values())).n))
    for kind, figures in corruption_rows(cells, grades):
        numbers = {
            name: _numbers(figure.share, _KEPT) if figure.share else {"accuracy": figure.value}
            for name, figure in figures.items()
        }
        yield {
            "corruption": kind,
            "n": n,
            **{name: _Cell(text=figure.text, numbers=numbers[name]) for name, figure in figures.items()},
        }


def _certified_rows(run: Run, numbers: Certified) -> Iterator[Row]:
    sigma, n = run.budget.sigma, numbers.n
    about: Json = {"sigma": sigma, "alpha": run.budget.alpha, "n": n, "clusters": numbers.clusters}
    points = {f"r>={name}": _share(point, None, about) for name, point in numbers.points.items()}
    points |= {f"{GROUNDED}, r>={name}": _share(point, None, about) for name, point in numbers.grounded.items()}
    measured = numbers.to_json()
    rest = ("abstention", "average_radius", "median_radius", "wrong", "abstained", "no_answer", "failed")
    yield {
        "sigma": _Cell(text=f"{sigma:g}"),
        "n": _Cell(text=str(n)),
        **points,
        "abstain": _Cell(text=percent(numbers.abstention)),
        "ACR": _Cell(
            text=numbers.radius_text(numbers.average_radius), numbers=about | {key: measured[key] for key in rest}
        ),
        "median r": _Cell(text=numbers.radius_text(numbers.median_radius)),
    }


def _part_rows(run: Run, cells: AnsweredBy) -> Iterator[Row]:
    for condition, cell in cells.items():
        if cell.parts:
            left = {name: _share(share, None) for name, share in cell.parts.items()}
            yield {"attack": condition, "n": _Cell(text=str(cell.n)), "all parts": _share(cell, _KEPT), **left}


def _reasoning_rows(run: Run, cells: dict[str, Texts]) -> Iterator[Row]:
    for condition, cell in cells.items():
        words = _Cell(text=cell.words_text, numbers={"words": cell.words, "texts": cell.texts})
        shares = {
            title: _Cell(text="n/a" if share is None else str(share), numbers=vars(share) if share else None)
            for names, values in ((SHARES, cell.shares), (CHANGES, cell.changes))
            for title, share in zip(names.values(), values.values(), strict=True)
        }
        yield {"attack": condition, "n": _Cell(text=str(cell.n)), "words": words, **shares}


def _table(name: str, caption: str, rows: Sequence[Row]) -> Table:
    """Make both faces of a table."""
    shown, values = [], []
    for row in rows:
        labels = {key: cell for key, cell in row.items() if isinstance(cell, str)}
        cells = {key: cell for key, cell in row.items() if isinstance(cell, _Cell)}
        shown.append(labels | {key: cell.text for key, cell in cells.items()})
        values += [labels | {"column": key} | cell.numbers for key, cell in cells.items() if cell.numbers]
    frame = pd.DataFrame(shown).fillna("n/a")
    few = frame.map(lambda text: DAGGER in text).to_numpy().any() if len(frame) else False
    note = f" {DAGGER} {FEW}" if few else ""
    return Table(name=name, caption=caption + note, shown=frame, values=pd.DataFrame(values))


def _methods(studies: Sequence[_Study[AnsweredBy]], grades: Mapping[str, Grade], by: Slicing, name: str) -> Table:
    """Methods down, slices across, as the two papers print them; one block per attack."""
    rows: list[Row] = []
    measures = dict.fromkeys(measure for study in studies for measure in study.run.measures)
    for condition in (measure for measure in measures if measure not in grades):
        for study in studies:
            if condition in study.overall:
                row: Row = {"attack": condition, "method": study.run.name, "all": _accuracy(study.overall[condition])}
                for slice_ in _names(studies, by):
                    cells = study.slices[by].get(slice_)
                    row[slice_] = _accuracy(cells[condition] if cells else None)
                rows.append(row)
    caption = "Accuracy in % of each method; n/a where a run has no such item."
    return _table(name, caption + _caveats(study.run for study in studies), rows)


def cohen(run: Run) -> pd.DataFrame:
    """A certify run as Cohen et al. 2019 (locuslab/smoothing) write it: idx, label, predict, radius, correct, time.

    Abstentions have predict -1 and radius 0, as there. Differs: radii are rounded down, theirs to the nearest. Those of
    sequential certificates are the largest that were asked for and certified.
    """
    rows = []
    for place, record in enumerate(run.certificates):
        certain, seconds = record.radius is not None, record.seconds
        rows.append(
            {
                "idx": place,
                "label": record.label,
                "predict": record.prediction if certain else -1,
                "radius": f"{floor_to(record.radius or 0.0, 6):.6f}",
                "correct": int(record.correct and certain),
                "time": "n/a" if seconds is None else str(timedelta(seconds=seconds)),
            }
        )
    return pd.DataFrame(rows)


def _accuracy(cell: Share | None) -> _Cell:
    """An accuracy without its interval."""
    if cell is None:
        return _Cell(text="n/a", numbers={"accuracy": None, "n": 0})
    rest = f" ({cell.rest_text})" if cell.rest_text else ""
    return _Cell(text=cell.text + rest, numbers=_numbers(cell, _KEPT))


def _share(share: Share, keys: Sequence[str] | None, about: Mapping[str, object] | None = None) -> _Cell:
    """A share with its interval in brackets; see `_numbers` for the keys."""
    bounds = f" [{share.bounds_text}]" if share.bounds_text else ""
    rest = f" ({share.rest_text})" if share.rest_text else ""
    return _Cell(
        text=f"{share.text}{bounds}{DAGGER * share.few}{rest}", numbers=dict(about or {}) | _numbers(share, keys)
    )


def _numbers(share: Share, keys: Sequence[str] | None) -> Json:
    """The numbers of a share with these keys of its JSON, by default all; and the share without failed items."""
    rest, measured = share.without_failed, share.to_json()
    kept = [key for key in keys or measured if key != "without_failed"]
    return {key: measured[key] for key in kept} | {"share_without_failed": rest.share if rest else None}


def _names(studies: Sequence[_Study[Numbers]], by: Slicing) -> list[str]:
    """All slices of these runs, the known ones first and in their fixed order."""
    return in_order({name for study in studies for name in study.slices[by]})


def _caveats(runs: Iterable[Run]) -> str:
    """The findings without which a table must not be pasted elsewhere."""
    findings = [(run.name, finding) for run in runs for finding in of_keys(run.findings, BESIDE)]
    texts = [f" {', '.join(names)}: {finding.sentence}" for finding, names in shared(findings).items()]
    texts += [f" {FAILED_ITEMS}"] * any(finding.key == "failed" for _, finding in findings)
    return "".join(texts)


def _latex(table: Table) -> str:
    """A table environment for booktabs."""
    words = sum(column in _WORDS for column in table.shown)
    body = (
        table.shown.map(latex)
        .rename(columns=latex)
        .to_latex(
            index=False,
            escape=False,
            column_format="l" * words + "r" * (len(table.shown.columns) - words),
            caption=latex(table.caption),
            label=f"tab:{table.name}",
        )
    )
    return f"% \\usepackage{{booktabs}}\n{body}"
