"""Terminal output: tables or JSON on stdout, warnings on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from safemed_eval.progress import err
from safemed_eval.text import on_one_line, visible

if TYPE_CHECKING:
    from safemed_eval.report.run import Run
    from safemed_eval.report.summary import AnySummary

_STYLES = {"warn": "yellow", "fail": "red"}
_FILE_WIDTH = 160
_NARROWEST = 60
JSON_SCHEMA = 1
"""Schema version of --json, see docs/json.md; incremented when a field is renamed, dropped, or changes its meaning."""
_LONGEST_NAME = 40

_measured = sys.stdout.isatty() or "COLUMNS" in os.environ
out = Console(width=None if _measured else _FILE_WIDTH, highlight=False)
out.width = max(out.width, _NARROWEST)


def as_json(facts: Mapping[str, object]) -> str:
    """Format facts for --json: after the schema version, in ASCII, which every terminal can show."""
    return json.dumps({"schema": JSON_SCHEMA, **facts}, indent=2, allow_nan=False)


def say(line: str, style: str | None = None) -> None:
    """Print text with rich's markup, wrapped at words in a terminal and unwrapped in a file."""
    out.print(visible(line), style=style, soft_wrap=not out.is_terminal)


def name_cell(name: str) -> str:
    """Format the name of a slice for a table: on one line, and shortened if long."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\u2026"
    return on_one_line(short)


def show_run(run: Run, *, json: bool) -> None:
    """Print a run as tables with its findings below, or as JSON; warn on stderr if the model hardly answered."""
    from safemed_eval.report.corruptions import about, grades_of
    from safemed_eval.report.findings.reasoning import reasoning, reasoning_sentences
    from safemed_eval.report.load import SLICES
    from safemed_eval.report.text_cells import corruption_cells, text_cells

    summary, written = run.summary, reasoning(run)
    for finding in run.findings:
        if finding.key == "silence":
            err.print(f"[yellow]warning: {escape(on_one_line(finding.text))}[/]", soft_wrap=True)
    if json:
        typer.echo(as_json(summary.to_json() | ({"reasoning": written.to_json()} if written else {})))
        return
    tables = {title: summary.by(column) for column, title in SLICES.items()}
    grades = grades_of([run])
    corrupted = corruption_cells(summary.overall, grades)
    longest = max(len(name) for heading, groups in tables.items() for name in (heading, *map(name_cell, groups)))
    for heading, groups in tables.items():
        rows = [("all", summary.overall), *groups.items()]
        print_table(f"{heading:<{longest}}", [(name, text_cells(row, grades)) for name, row in rows])
    for name, cells in corrupted.items():
        print_table(f"{name or 'corruption':<{longest}}", cells)
    for line in (*_about(summary, run.scale), *map(about, corrupted)):
        say(escape(line))
    for finding in run.findings:
        if finding.key not in ("silence", "first-error"):
            say(escape(on_one_line(finding.text)), _STYLES.get(finding.severity))
    for sentence in reasoning_sentences(written) if written else ():
        say(escape(sentence))
    say(escape(summary.out), "dim")


def _about(summary: AnySummary, scale: str) -> Iterator[str]:
    """Yield lines that say what was measured, and how to read the table."""
    from safemed_eval.report.summary import DAGGER

    line = f"{summary.items} of {summary.expected} items"
    line += f" (sample: {summary.sampled})" if summary.sampled else ""
    line += f"; {summary.skipped} bad left out" if summary.skipped else ""
    yield line + (f"; {summary.failed} failed and count as wrong" if summary.failed else "")
    asked = {name: value for name, value in summary.asked.items() if value is not None and value is not False}
    yield "; ".join(f"{name} {value}" for name, value in asked.items())
    if summary.notes.images:
        yield "Images: " + "; ".join(f"{note}: {count}" for note, count in summary.notes.images.items())
    if isinstance(summary.overall, Mapping):
        clusters = next(iter(summary.overall.values())).clusters
        yield (
            "Accuracy in %, 95 % Clopper-Pearson intervals on the effective sample size (clusters: patient or image, "
            f"here {clusters}; {DAGGER} effectively fewer than ten: do not trust it)."
        )
    else:
        yield (
            "r>=x: certified accuracy in %, the share answered rightly with a certified radius of at least x, rounded "
            "down; 95 % intervals on the effective sample size (clusters: patient or image, here "
            f"{summary.overall.clusters}; {DAGGER} effectively fewer than ten: do not trust it). Radius: "
            f"{scale}; s is sigma."
        )
        yield (
            "abstain: % without a certificate. ACR: average certified radius, 0 where wrong or abstained. median r: "
            "the largest radius at which half are still certified and right."
        )


Cells = Mapping[str, str]
"""Column heading -> formatted value with its interval."""


def print_table(heading: str, rows: Sequence[tuple[str, Cells]]) -> None:
    """Print a table; in a narrow terminal, several below each other that repeat the names and sizes of the rows.

    Args:
        heading: heading of the column of names, padded to the widest of them.
        rows: name and cells of each row; the first cell is the size.
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
    """Divide the columns into blocks that fit side by side, of at least one column each."""
    block: list[str] = []
    for title in titles:
        if block and sum(widths[column] for column in (*block, title)) > room:
            yield block
            block = []
        block.append(title)
    yield block


def end_where_nothing_was_measured(run: Run) -> None:
    """Exit with code 3 if all items failed under a condition, after printing each such condition's first error."""
    lost = [finding for finding in run.findings if finding.key == "first-error"]
    for finding in lost:
        err.print(f"[red]{escape(on_one_line(finding.sentence))}[/]", soft_wrap=True)
    if lost:
        raise typer.Exit(3)
