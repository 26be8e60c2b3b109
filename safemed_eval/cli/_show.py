"""Everything that the terminal shows: progress on stderr, tables or JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from safemed_eval.data import overlap_sentences
from safemed_eval.progress import err
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
from safemed_eval.text import on_one_line, visible

if TYPE_CHECKING:
    from safemed_eval.report import Summary

_STYLES = {"warn": "yellow", "fail": "red"}
_FILE_WIDTH = 160
_NARROWEST = 60
JSON_SCHEMA = 1
"""Version of what --json says, see docs/json.md; it grows when a field is renamed, dropped, or means something else."""
_LONGEST_NAME = 40

_measured = sys.stdout.isatty() or "COLUMNS" in os.environ
out = Console(width=None if _measured else _FILE_WIDTH, highlight=False)
out.width = max(out.width, _NARROWEST)


def as_json(facts: Mapping[str, Any]) -> str:
    """What --json says: these facts below the version of their schema, in ASCII, which every terminal can show."""
    return json.dumps({"schema": JSON_SCHEMA, **facts}, indent=2, allow_nan=False)


def say(line: str, style: str | None = None) -> None:
    """Text with rich's markup, wrapped by words in a terminal and whole in a file."""
    out.print(visible(line), style=style, soft_wrap=not out.is_terminal)


def name_cell(name: str) -> str:
    """A name of a slice as a table shows it: on one line, not too long, without markup."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\u2026"
    return on_one_line(short)


def show_run(folder: Path, *, json: bool, radii: Mapping[str, float] | None = None) -> Summary:
    """The summary of a run folder as tables, or as JSON; and the summary itself. On stderr where it hardly answered."""
    from safemed_eval.report.breakdown import breakdown
    from safemed_eval.report.findings.reasoning import reasoning, reasoning_sentences
    from safemed_eval.report.findings.silence import silence_sentences
    from safemed_eval.report.load import load

    run = load(folder)
    summary, written = breakdown(run, radii), reasoning(run)
    for sentence in silence_sentences(summary.notes["silence"]):
        err.print(f"[yellow]warning: {escape(on_one_line(sentence))}[/]", soft_wrap=True)
    if json:
        typer.echo(as_json(summary.to_json() | ({"reasoning": written.to_json()} if written else {})))
        return summary
    columns: Callable[[Mapping[str, Any]], Cells] = _attack_columns
    if summary.kind == "certify":
        columns = partial(_certify_columns, sequential=run.sequential)
    tables = {"modality": summary.by_modality, "question type": summary.by_question_type}
    longest = max(len(name) for heading, groups in tables.items() for name in (heading, *map(name_cell, groups)))
    for heading, groups in tables.items():
        rows = [("all", columns(summary.overall)), *((name, columns(row)) for name, row in groups.items())]
        print_table(f"{heading:<{longest}}", rows)
    for line in (*_footer(summary), *map(escape, reasoning_sentences(written) if written else ())):
        say(line)
    say(escape(summary.out), "dim")
    return summary


_FEW = "\u2020"
Cells = Mapping[str, str]
"""Column heading -> figure with its interval."""


def print_table(heading: str, rows: Sequence[tuple[str, Cells]]) -> None:
    """One table, or where the terminal is narrow several below each other, each with the rows' names and sizes.

    Args:
        heading: of the names, as wide as the widest of them.
    """
    first, *others = rows[0][1]
    widths = {title: 2 + max(len(title), *(len(row[title]) for _, row in rows)) for title in (first, *others)}
    room = out.width - len(heading) - widths[first]
    for titles in _blocks(others, widths, room):
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(heading, no_wrap=True)
        for title in (first, *titles):
            table.add_column(escape(title), justify="right", no_wrap=True)
        for name, row in rows:
            table.add_row(escape(name_cell(name)), *(row[title] for title in (first, *titles)))
        out.print(table)
        out.print()


def _blocks(titles: Sequence[str], widths: Mapping[str, int], room: int) -> Iterator[list[str]]:
    """The columns, cut into runs that fit side by side; each run has at least one."""
    block: list[str] = []
    for title in titles:
        if block and sum(widths[one] for one in (*block, title)) > room:
            yield block
            block = []
        block.append(title)
    yield block


def _attack_columns(row: Mapping[str, Any]) -> Cells:
    return {"n": str(next(iter(row.values()))["n"])} | {
        condition: _share_cell(accuracy(cell), cell) for condition, cell in row.items()
    }


def _certify_columns(row: Mapping[str, Any], *, sequential: bool) -> Cells:
    cells = {"n": str(row["n"])}
    for name, point in row["certified"].items():
        cells[f"r>={name}"] = _share_cell(certified(point), point)
    shown = radius_at_least if sequential else radius
    return cells | {
        "abstain": percent(row["abstention"]),
        "ACR": shown(row["average_radius"]),
        "median r": shown(row["median_radius"]),
    }


def _share_cell(share: str, cell: Mapping[str, Any]) -> str:
    rest = without_failed(cell)
    few = _FEW * bool(cell["few"])
    return f"{share} {interval(cell['lower'], cell['upper'])}{few}{f' ({rest})' if rest else ''}".strip()


def end_where_nothing_was_measured(summary: Summary) -> None:
    """Exit code 3 where every item failed under a condition, each named on stderr with its first error."""
    for condition, error in summary.all_failed.items():
        line = on_one_line(f"{condition}: failed, nothing was measured; the first error: {error}")
        err.print(f"[red]{escape(line)}[/]", soft_wrap=True)
    if summary.all_failed:
        raise typer.Exit(3)


def _footer(summary: Summary) -> Iterator[str]:
    line = f"{summary.items} of {summary.expected} items"
    if summary.sampled:
        line += f" (sample: {summary.sampled})"
    line += f"; {summary.skipped} bad left out" if summary.skipped else ""
    line += f"; {summary.failed} failed and count as wrong" if summary.failed else ""
    yield line
    if summary.failed:
        yield f"[yellow]Failed: {escape(' '.join(summary.notes['failures']))} {FAILED_ITEMS}[/]"
    asked = {name: value for name, value in summary.asked.items() if value is not None and value is not False}
    yield escape("; ".join(f"{name} {value}" for name, value in asked.items()))
    if summary.notes["images"]:
        yield "Images: " + "; ".join(f"{note}: {count}" for note, count in summary.notes["images"].items())
    for sentence in (*overlap_sentences(summary.notes["overlap"]), *summary.notes["degenerate"]):
        yield f"[yellow]{escape(sentence)}[/]"
    yield from _certify_footer(summary) if summary.kind == "certify" else _attack_footer(summary)


def _attack_footer(summary: Summary) -> Iterator[str]:
    from safemed_eval.report.breakdown import CANVAS_COST, LETTER_ONLY
    from safemed_eval.report.findings.order import order_sentences

    clusters = summary.overall["clean"]["clusters"]
    yield (
        "Accuracy in %, 95 % Clopper-Pearson intervals on the effective sample size "
        f"(clusters: patient or image, here {clusters}; {_FEW} effectively fewer than ten: do not trust it)."
    )
    if summary.asked["smooth"]:
        abstained = ", ".join(f"{cell['abstained']} ({name})" for name, cell in summary.overall.items())
        yield f"Answers of the smoothed model, by vote: {summary.asked['smooth']}."
        yield f"Abstained, counted as wrong: {abstained}"
    silent = {name: cell["no_answer"] for name, cell in summary.overall.items() if cell["no_answer"]}
    if silent:
        yield "No answer, counted as wrong: " + ", ".join(f"{count} ({name})" for name, count in silent.items())
    steps = {name: cell["median_steps"] for name, cell in summary.overall.items() if cell["median_steps"]}
    if steps:
        yield "Median steps to a flip: " + ", ".join(f"{count:g} ({name})" for name, count in steps.items())
    for name, cell in summary.overall.items():
        if cell["parts"]:
            left = ", ".join(f"{part} {accuracy(one)}" for part, one in cell["parts"].items())
            yield f"{name}: left right by each part, in %: {escape(left)}; its own figure is what all leave right"
        if cell["image_blind"]:
            yield f"{name}: {cell['image_blind']} of {cell['n']} never flipped: image-blind, or the attack is broken"
    if summary.notes["letter_only"]:
        yield f"{LETTER_ONLY[0].upper()}{LETTER_ONLY[1:]}."
    yield from map(escape, order_sentences(summary.notes, summary.overall))
    yield from _checklist(summary.notes["checklist"])
    cost = summary.notes.get("canvas_cost")
    if cost is not None and cost > CANVAS_COST:
        yield f"[yellow]The canvas costs {100 * cost:.1f} points of accuracy against the official path.[/]"


def _checklist(checks: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """What speaks against the attacks; the rest is counted, and the page lists all."""
    for check in checks:
        if check["status"] in _STYLES:
            yield f"[{_STYLES[check['status']]}]{check['status']}[/] {check['name']}: {escape(check['detail'])}"
    counts = Counter(check["status"] for check in checks)
    if counts:
        rest = ", ".join(f"{counts[status]} {status}" for status in ("pass", "warn", "fail", "n/a") if counts[status])
        yield f"Can these attacks be believed? Of {len(checks)} checks {rest}; `safemed-eval report` lists them."


def _certify_footer(summary: Summary) -> Iterator[str]:
    from safemed_eval.report.findings.sampling import ENDED_WRONG, SEQUENTIAL_BOUNDS, draws_sentence

    ceiling, grey = summary.notes["ceiling"], summary.notes["grey_levels_per_radius"]
    draws, ended = summary.notes["draws"], summary.notes["ended_wrong"]
    yield (
        "r>=x: certified accuracy in %, the share answered rightly with a certified radius of at least x, rounded "
        "down; 95 % intervals on the effective sample size (clusters: patient or image, here "
        f"{summary.overall['clusters']}; {_FEW} effectively fewer than ten: do not trust it). Radii are L2 in \\[0, 1] "
        "pixel units over the whole canvas; s is sigma."
    )
    if summary.asked["readout"] in ("generate", "think-choice") and not draws:
        yield f"'No answer' won the vote for {summary.overall['no_answer']} items; they are abstentions."
    yield (
        "abstain: % without a certificate. ACR: average certified radius, 0 where wrong or abstained. median r: the "
        "largest radius at which half are still certified and right."
    )
    if draws:
        yield f"{SEQUENTIAL_BOUNDS[0].upper()}{SEQUENTIAL_BOUNDS[1:]} (>=). {draws_sentence(draws)}"
    if ended:
        yield f"{ended} of the items without a certificate: {ENDED_WRONG}."
    levels = f" ({floor_to(ceiling * grey, 3)} grey levels RMS)" if grey else ""
    yield f"Ceiling: this sample budget certifies no radius above {floor_to(ceiling, 4)}{levels}, whatever the model."
    at_most = summary.notes["false_certificates_at_most_95"]
    yield (
        f"A certificate may be false by chance: with 95 % confidence at most {at_most} of these {summary.items} are."
        if summary.items
        else "No certificate yet."
    )
    if summary.notes["falsified"]:
        yield from _falsified(summary.notes["falsified"], summary.out)


def _falsified(found: Mapping[str, Any], folder: str) -> Iterator[str]:
    yield (
        f"{found['certificates']} certificates were attacked within their radius: {found['items']} proved false; "
        f"chance gives a sound tool at most {found['allowed']}."
    )
    if found["remark"]:
        yield found["remark"]
    for one in found["refuted"]:
        yield escape(
            f"  {on_one_line(one['item'])}: at {one['share']:g} of its radius (L2 {one['length']:.6g}) option "
            f"{one['prediction']} gets {one['votes']} of {one['n']} votes, a probability of at most "
            f"{one['upper']:.4g}; the certificate says at least {one['claimed']:.4g}"
        )
    if found["refuted"]:
        yield escape(f"  The canvases where these votes were counted: {folder}/falsified, (3, H, W) float32.")
    if not found["sound"]:
        yield "[red]More certificates are false than chance explains: do not trust this run, and report it.[/]"
