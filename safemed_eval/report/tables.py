"""The tables of a report: the same numbers as Markdown, as LaTeX (booktabs) and, unrounded, as CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from safemed_eval import grammar
from safemed_eval.report._text import latex, markdown, spreadsheet
from safemed_eval.report.breakdown import Summary, breakdown
from safemed_eval.report.findings.reasoning import CHANGES, MEANING, SHARES, reasoning, shown, shown_change
from safemed_eval.report.findings.sampling import SEQUENTIAL_BOUNDS
from safemed_eval.report.load import SLICES, Json, LoadedRun, in_order, radii_of
from safemed_eval.rounding import (
    FAILED_ITEMS,
    accuracy,
    certified,
    floor_to,
    interval,
    percent,
    radius,
    radius_at_least,
    without_failed,
)

_ACCURACY = "Accuracy in %, with 95 % intervals on the effective sample size (clusters are patients or images)."
_CERTIFIED = (
    "Certified accuracy in %, the share answered rightly with a certified L2 radius of at least r (s is sigma), and "
    "its 95 % interval on the effective sample size (clusters are patients or images). ACR is the average certified "
    "radius, 0 where wrong or abstained; no radius counts above the ceiling of the sample budget, so that ACR and the "
    "median compare at equal sigma, n and alpha only. Certified values are rounded down."
)
_PARTS = (
    "Attacks made of several: accuracy in % under each part, and under all parts, which is the figure of the attack; "
    "with 95 % intervals. The parts of suite are met one after the other, and what fell to one is not right under the "
    "next; those of adaptive are met by every item."
)
_REASONING = f"What was written, shares in % and their numbers, changes of rationales as distances. {MEANING}"
_LONGEST_NAME = 80
"""Of a run, in the name of a file."""
_FEW = "\u2020"
_FEW_NOTE = f" {_FEW}: items are of effectively fewer than ten patients or images, too few to trust the interval."
_WORDS = ("run", "method", "attack", *SLICES.values(), "paper", "what")
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


def write_tables(runs: Sequence[LoadedRun], folder: Path, *, radii: str | None) -> list[Path]:
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
    certified = [run for run in runs if run.kind == "certify" and not (run.frame.empty or run.all_failed)]
    names = [re.sub(r"[^\w.=-]+", "-", run.name)[-_LONGEST_NAME:] for run in certified]
    for place, (name, run) in enumerate(zip(names, certified, strict=True)):
        again = names[:place].count(name)
        cohen(run).to_csv(folder / f"certified-{name}{f'-{again + 1}' if again else ''}.tsv", sep="\t", index=False)
    return files


def tables_of(runs: Sequence[LoadedRun], *, radii: str | None) -> Iterator[Table]:
    """Every table that these runs have data for; see `radii_of` for where certified accuracy is read."""
    radii = radii_of(runs, radii)
    evaluated = [(run, breakdown(run)) for run in runs if run.kind == "evaluate"]
    certified = []
    for run in runs:
        if run.kind == "certify":
            certified.append((run, breakdown(run, grammar.radii(radii, run.smoothing.sigma))))
    written = [(run, found) for run, _ in evaluated if (found := reasoning(run))]
    warnings = _warnings(evaluated)
    yield from _broken_down("accuracy", _ACCURACY + warnings, evaluated, _accuracy_rows)
    yield from _broken_down(
        "certified",
        _CERTIFIED + _sampling(certified) + _alphas(certified) + _warnings(certified),
        certified,
        _certified_rows,
    )
    yield from _broken_down("parts", _PARTS + warnings, evaluated, _part_rows)
    yield from _broken_down("reasoning", _REASONING + warnings, written, _reasoning_rows)
    for column, title in SLICES.items():
        if evaluated:
            yield _paper(evaluated, column, f"methods-by-{title.replace(' ', '-')}")
    yield Table(
        name="published",
        caption="Published numbers of the two papers, NOT measured here: other checkpoints, other data, other attacks. "
        "They do not compare with the tables beside this one.",
        shown=PUBLISHED,
        values=PUBLISHED,
    )


Row = dict[str, Any]
"""Column -> a name, or what is shown and the numbers behind it."""


class _BrokenDown(Protocol):
    """A Summary, or a Reasoning."""

    @property
    def overall(self) -> Json: ...
    @property
    def by_modality(self) -> dict[str, Json]: ...
    @property
    def by_question_type(self) -> dict[str, Json]: ...


def _broken_down(
    name: str,
    caption: str,
    studies: Sequence[tuple[LoadedRun, _BrokenDown]],
    rows_of: Callable[[LoadedRun, Json], Iterator[Row]],
) -> Iterator[Table]:
    """The table of all items, and one for each way to slice them; none where there are no rows."""
    whole = [{"run": run.name} | row for run, found in studies for row in rows_of(run, found.overall)]
    if not whole:
        return
    yield _table(name, caption, whole)
    for column, title in SLICES.items():
        rows = [
            {title: slice_, "run": run.name} | row
            for slice_ in _slices(studies, column)
            for run, found in studies
            if slice_ in (group := _group(found, column))
            for row in rows_of(run, group[slice_])
        ]
        yield _table(f"{name}-by-{title.replace(' ', '-')}", caption, rows)


def _accuracy_rows(run: LoadedRun, numbers: Json) -> Iterator[Row]:
    cells = {condition: (_cell(accuracy(cell), cell), _values(cell)) for condition, cell in numbers.items()}
    first = next(iter(numbers.values()))
    yield {"n": (str(first["n"]), {})} | cells


def _certified_rows(run: LoadedRun, numbers: Json) -> Iterator[Row]:
    n = numbers["n"]
    about = {"sigma": run.smoothing.sigma, "alpha": run.smoothing.alpha, "n": n, "clusters": numbers["clusters"]}
    row: Row = {"sigma": (f"{run.smoothing.sigma:g}", {}), "n": (str(n), {})}
    for name, point in numbers["certified"].items():
        row[f"r>={name}"] = (_cell(certified(point), point), about | _flat(point))
    rest = ("abstention", "average_radius", "median_radius", "wrong", "abstained", "no_answer", "failed")
    row["abstain"] = (percent(numbers["abstention"]), {})
    row["ACR"] = (_bound(run, numbers["average_radius"]), about | {key: numbers[key] for key in rest})
    row["median r"] = (_bound(run, numbers["median_radius"]), {})
    yield row


def _bound(run: LoadedRun, value: float | None) -> str:
    return radius_at_least(value) if run.sequential else radius(value)


def _part_rows(run: LoadedRun, numbers: Json) -> Iterator[Row]:
    for condition, cell in numbers.items():
        if cell["parts"]:
            left = {name: (_cell(accuracy(one), one), _flat(one)) for name, one in cell["parts"].items()}
            whole = (_cell(accuracy(cell), cell), _values(cell))
            yield {"attack": condition, "n": (str(cell["n"]), {}), "all parts": whole} | left


def _reasoning_rows(run: LoadedRun, numbers: Json) -> Iterator[Row]:
    for condition, cell in numbers.items():
        words = "n/a" if cell["words"] is None else f"{cell['words']:g}"
        sizes = {"n": (str(cell["n"]), {}), "words": (words, {key: cell[key] for key in ("words", "texts")})}
        shares = {title: (shown(cell[key]), cell[key] or {}) for key, title in SHARES.items()}
        changes = {title: (shown_change(cell[key]), cell[key] or {}) for key, title in CHANGES.items()}
        yield {"attack": condition} | sizes | shares | changes


def _table(name: str, caption: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """From rows whose cells are texts, or texts with numbers, to both faces of a table."""
    shown, values = [], []
    for row in rows:
        labels = {key: cell for key, cell in row.items() if isinstance(cell, str)}
        cells = {key: cell for key, cell in row.items() if not isinstance(cell, str)}
        shown.append(labels | {key: text for key, (text, _) in cells.items()})
        values += [labels | {"column": key} | numbers for key, (_, numbers) in cells.items() if numbers]
    frame = pd.DataFrame(shown).fillna("n/a")
    few = frame.map(lambda text: _FEW in text).to_numpy().any() if len(frame) else False
    return Table(name=name, caption=caption + (_FEW_NOTE if few else ""), shown=frame, values=pd.DataFrame(values))


def _paper(studies: Sequence[tuple[LoadedRun, Summary]], column: str, name: str) -> Table:
    """Methods down, slices across, as the two papers print them; one block per attack."""
    slices = _slices(studies, column)
    conditions = dict.fromkeys(condition for run, _ in studies for condition in run.conditions)
    rows: list[dict[str, Any]] = []
    for condition in conditions:
        for run, summary in studies:
            if condition in summary.overall:
                groups = {"all": summary.overall} | {one: _group(summary, column).get(one) for one in slices}
                cells = {one: numbers and numbers[condition] for one, numbers in groups.items()}
                shares = {one: _share(cell) for one, cell in cells.items()}
                rows.append({"attack": condition, "method": run.name} | shares)
    caption = "Accuracy in % of each method; n/a where a run has no such item."
    return _table(name, caption + _warnings(studies), rows)


def _share(cell: Json | None) -> tuple[str, Json]:
    if cell is None:
        return "n/a", {"accuracy": None, "n": 0}
    rest = without_failed(cell)
    return accuracy(cell) + (f" ({rest})" if rest else ""), _values(cell)


def cohen(run: LoadedRun) -> pd.DataFrame:
    """A certify run as Cohen et al. 2019 (locuslab/smoothing) write it: idx, label, predict, radius, correct, time.

    Abstentions have predict -1 and radius 0, as there. Differs: radii are rounded down, theirs to the nearest. Those of
    sequential certificates are the largest that were asked for and certified.
    """
    frame, certain = run.frame, run.frame["radius"].notna()
    return pd.DataFrame(
        {
            "idx": range(len(frame)),
            "label": frame["label"].astype(int),
            "predict": frame["prediction"].where(certain, -1).astype(int),
            "radius": [f"{floor_to(value, 6):.6f}" for value in frame["radius"].fillna(0.0)],
            "correct": (frame["correct"] & certain).astype(int),
            "time": [
                "n/a" if pd.isna(seconds) else str(timedelta(seconds=float(seconds))) for seconds in frame["seconds"]
            ],
        }
    )


def _cell(share: str, cell: Mapping[str, Any]) -> str:
    bounds, rest = interval(cell["lower"], cell["upper"]), without_failed(cell)
    shown = share + (f" [{bounds}]" if bounds else "") + (_FEW if cell["few"] else "")
    return shown + (f" ({rest})" if rest else "")


def _values(cell: Json) -> Json:
    """The numbers of an accuracy, for CSV."""
    return _flat({key: cell[key] for key in (*_KEPT, "without_failed")})


def _flat(cell: Json) -> Json:
    """The numbers of a cell, with the share of the items that did not fail in a column of its own."""
    rest = cell["without_failed"]
    return {key: value for key, value in cell.items() if key != "without_failed"} | {
        "share_without_failed": rest and rest["share"]
    }


def _group(found: _BrokenDown, column: str) -> dict[str, Json]:
    return found.by_modality if column == "modality" else found.by_question_type


def _slices(studies: Sequence[tuple[LoadedRun, _BrokenDown]], column: str) -> list[str]:
    """All slices of these runs, the known ones first and in their fixed order."""
    names = {name for _, found in studies for name in _group(found, column)}
    return in_order(names)


def _warnings(studies: Sequence[tuple[LoadedRun, Summary]]) -> str:
    """What a table must not be read without, once it is pasted elsewhere."""
    found = []
    for run, _ in studies:
        if run.unfinished:
            found.append(
                f" NOT FINISHED: {run.name} lacks {run.unfinished} records; its columns are of different items."
            )
        found += [f" {run.name}: {text}" for text in run.failures]
        if run.meta["sampled"]:
            found.append(f" {run.name}: a sample, {run.meta['sampled']}.")
    found += [f" {FAILED_ITEMS}"] if any(run.failed for run, _ in studies) else []
    return "".join(dict.fromkeys(found))


def _sampling(studies: Sequence[tuple[LoadedRun, Summary]]) -> str:
    names = [run.name for run, _ in studies if run.sequential]
    return f" {', '.join(names)}: {SEQUENTIAL_BOUNDS}." if names else ""


def _alphas(studies: Sequence[tuple[LoadedRun, Summary]]) -> str:
    own = {run.name: run.spec["smoothing"]["alpha"] for run, _ in studies}
    changed = [f"{run.name} was run for alpha {own[run.name]:g}" for run, _ in studies if run.alpha != own[run.name]]
    return f" Read again from the votes at alpha {studies[0][0].alpha:g}: {'; '.join(changed)}." if changed else ""


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
