"""The tables of a report: the same numbers as Markdown, as LaTeX (booktabs) and, unrounded, as CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import pandas as pd

from safemed_eval.codec import Json
from safemed_eval.core import GROUNDED
from safemed_eval.report.analyses.tables import analysis_tables
from safemed_eval.report.budgets import settings
from safemed_eval.report.columns import Column
from safemed_eval.report.corruptions import Grade, about, by_set, corruption_rows, grades_of, others
from safemed_eval.report.findings.reasoning import CHANGES, MEANING, SHARES, Texts, reasoning
from safemed_eval.report.load import SLICES
from safemed_eval.report.rows import Slicing
from safemed_eval.report.run import Run, at_common_radii
from safemed_eval.report.summary import (
    AnsweredBy,
    Certified,
    CertifySummary,
    Share,
    answers_measure,
    certificates_measure,
)
from safemed_eval.report.tabular.breakdown import Study, broken_down, caveats, names_of, slices_of
from safemed_eval.report.tabular.table import Cell, Row, Table, items_of, share_cell, share_numbers, table_of
from safemed_eval.rounding import floor_to, percent

_ACCURACY = (
    "Accuracy in %, with 95 % intervals. They are on the effective sample size (clusters are patients or images)."
)
_CERTIFIED = (
    "Certified accuracy in %: the share answered rightly with a certified radius of at least r, with its 95 % "
    "interval, and the average certified radius (ACR). s is sigma; n0 and n are noisy copies of each item. Intervals "
    "are on the effective sample size (clusters are patients or images). ACR counts 0 where wrong or abstained; no "
    "radius counts above the ceiling of the sample budget, so that ACR and the median compare at equal noise, n and "
    "alpha only. Certified values are rounded down."
)
_PARTS = (
    "Attacks made of several: accuracy in % under each part, and under all parts, with 95 % intervals. That under all "
    "parts is the figure of the attack. Where an attack tries its parts one after the other, what fell to one is not "
    "right under the next; else every item meets all of them."
)
_REASONING = f"What was written, shares in % and their numbers, changes of rationales as distances. {MEANING}"
_LONGEST_NAME = 80
"""Characters of a run's name in the name of a file."""
_KEPT = ("accuracy", "lower", "upper", "correct", "items", "clusters", "few", "failed", "no_answer", "abstained")

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


def write_tables(tables: Iterable[Table], runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write the tables of these runs, see `tables_of`; returns the Markdown files.

    `certified-RUN.tsv` is a certify run in the format of Cohen et al. 2019, which their plotting code reads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [table.write(folder) for table in tables]
    certified = [run for run in runs if run.kind == "certify" and run.records and not run.all_failed]
    names = [re.sub(r"[^\w.=-]+", "-", run.name)[-_LONGEST_NAME:] for run in certified]
    for place, (name, run) in enumerate(zip(names, certified, strict=True)):
        again = names[:place].count(name)
        cohen(run).to_csv(folder / f"certified-{name}{f'-{again + 1}' if again else ''}.tsv", sep="\t", index=False)
    return files


def tables_of(runs: Sequence[Run], *, radii: str | None) -> Iterator[Table]:
    """Make every table that these runs have data for; see `radii_of` for where certified accuracy is read.

    Raises:
        SpecError: `radii` cannot be read.
    """
    evaluated: list[Study[AnsweredBy]] = []
    certified: list[Study[Certified]] = []
    written: list[Study[dict[str, Texts]]] = []
    runs = at_common_radii(runs, radii)
    for run in runs:
        summary = run.summary
        if isinstance(summary, CertifySummary):
            proved = slices_of(run, run.certificates, {by: summary.by(by) for by in SLICES}, certificates_measure(run))
            certified.append(Study(run=run, overall=summary.overall, slices=proved))
            continue
        answered = slices_of(run, run.answers, {by: summary.by(by) for by in SLICES}, answers_measure(run))
        evaluated.append(Study(run=run, overall=summary.overall, slices=answered))
        if texts := reasoning(run):
            slices: dict[Slicing | Column, dict[str, dict[str, Texts]]] = {
                "modality": texts.by_modality,
                "question_type": texts.by_question_type,
            }
            written.append(Study(run=run, overall=texts.overall, slices=slices))
    grades = grades_of(study.run for study in evaluated)
    yield from broken_down("accuracy", _ACCURACY, evaluated, partial(_accuracy_rows, grades))
    for name, some in by_set(grades).items():
        stem = f"corruptions-{name}" if name else "corruptions"
        yield from broken_down(stem, about(name), evaluated, partial(_corruption_rows, some))
    yield from broken_down("certified", _CERTIFIED, certified, _certified_rows)
    yield from broken_down("parts", _PARTS, evaluated, _part_rows)
    yield from broken_down("reasoning", _REASONING, written, _reasoning_rows)
    yield from analysis_tables(runs)
    for by, title in SLICES.items():
        if evaluated:
            yield _methods(evaluated, grades, by, f"methods-by-{title.replace(' ', '-')}")
    yield Table(
        name="published",
        about="Published numbers of the two papers, NOT measured here: other checkpoints, other data, other attacks. "
        "They do not compare with the tables beside this one.",
        shown=PUBLISHED,
        values=PUBLISHED,
        words=2,
    )


def _accuracy_rows(grades: Mapping[str, Grade], run: Run, cells: AnsweredBy) -> Iterator[Row]:
    shown = others(cells, grades)
    first = next(iter(shown.values()))
    yield {
        "items": Cell(text=str(first.n)),
        **{condition: share_cell(cell, _KEPT) for condition, cell in shown.items()},
    }


def _corruption_rows(grades: Mapping[str, Grade], run: Run, cells: AnsweredBy) -> Iterator[Row]:
    for kind, n, figures in corruption_rows(cells, grades):
        numbers = {
            name: share_numbers(figure.share, _KEPT) if figure.share else {"accuracy": figure.value}
            for name, figure in figures.items()
        }
        yield {
            "corruption": kind,
            "items": Cell(text=n),
            **{name: Cell(text=figure.text, numbers=numbers[name]) for name, figure in figures.items()},
        }


def _certified_rows(run: Run, numbers: Certified) -> Iterator[Row]:
    sigma, n, known = run.budget.sigma, numbers.n, settings(run.budget)
    about: Json = {
        "noise": run.budget.noise,
        "sigma": sigma,
        "radius_unit": run.budget.kind.scale,
        "alpha": run.budget.alpha,
        "items": n,
        "clusters": numbers.clusters,
    }
    points = {f"r>={name}": share_cell(point, None, about) for name, point in numbers.points.items()}
    points |= {f"{GROUNDED}, r>={name}": share_cell(point, None, about) for name, point in numbers.grounded.items()}
    measured = numbers.to_json()
    rest = ("abstention", "average_radius", "median_radius", "wrong", "abstained", "no_answer", "failed")
    yield {
        **{name: Cell(text=known.get(name, "n/a")) for name in ("noise", "n0", "n", "alpha")},
        "items": Cell(text=str(n)),
        **points,
        "abstain": Cell(text=percent(numbers.abstention)),
        "ACR": Cell(
            text=numbers.radius_text(numbers.average_radius), numbers=about | {key: measured[key] for key in rest}
        ),
        "median r": Cell(text=numbers.radius_text(numbers.median_radius)),
    }


def _part_rows(run: Run, cells: AnsweredBy) -> Iterator[Row]:
    for condition, cell in cells.items():
        if cell.parts:
            left = {name: share_cell(share, None) for name, share in cell.parts.items()}
            yield {"attack": condition, "items": Cell(text=str(cell.n)), "all parts": share_cell(cell, _KEPT), **left}


def _reasoning_rows(run: Run, cells: dict[str, Texts]) -> Iterator[Row]:
    for condition, cell in cells.items():
        words = Cell(text=cell.words_text, numbers={"words": cell.words, "texts": cell.texts})
        shares = {
            title: Cell(text="n/a" if share is None else str(share), numbers=items_of(vars(share)) if share else None)
            for names, values in ((SHARES, cell.shares), (CHANGES, cell.changes))
            for title, share in zip(names.values(), values.values(), strict=True)
        }
        yield {"attack": condition, "items": Cell(text=str(cell.n)), "words": words, **shares}


def _methods(studies: Sequence[Study[AnsweredBy]], grades: Mapping[str, Grade], by: Slicing, name: str) -> Table:
    """Methods down, slices across, as the two papers print them; one block per attack."""
    rows: list[Row] = []
    measures = dict.fromkeys(measure for study in studies for measure in study.run.measures)
    for condition in (measure for measure in measures if measure not in grades):
        for study in studies:
            if condition in study.overall:
                row: Row = {"attack": condition, "method": study.run.name, "all": _accuracy(study.overall[condition])}
                for slice_ in names_of(studies, by):
                    cells = study.slices[by].get(slice_)
                    row[slice_] = _accuracy(cells[condition] if cells else None)
                rows.append(row)
    caption = "Accuracy in % of each method; n/a where a run has no such item."
    return table_of(name, caption, rows, caveats(study.run for study in studies))


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


def _accuracy(cell: Share | None) -> Cell:
    """An accuracy without its interval."""
    if cell is None:
        return Cell(text="n/a", numbers={"accuracy": None, "items": 0})
    rest = f" ({cell.rest_text})" if cell.rest_text else ""
    return Cell(text=cell.text + rest, numbers=share_numbers(cell, _KEPT))
