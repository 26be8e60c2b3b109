"""Everything that the terminal shows: progress on stderr, tables or JSON on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from safemed_eval.rounding import ceil_to, floor_to

if TYPE_CHECKING:
    from safemed_eval.report import Summary

_QUIET_EVERY_S = 30.0
_CANVAS_COST = 0.02
_FILE_WIDTH = 160

out = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH, highlight=False)
err = Console(stderr=True, highlight=False)

Tick = Callable[[int, int], None]


@contextmanager
def status(text: str) -> Iterator[None]:
    """A spinner while something without a length goes on."""
    with err.status(text):
        yield


@contextmanager
def progress(text: str, *, forwards: Callable[[], int] | None = None, transient: bool = False) -> Iterator[Tick]:
    """A bar with items/s, forward passes/s and time left; a line now and then where there is no terminal.

    Yields:
        A function to call with (done, of how many). What is done at its first call is not counted into the speed.
    """
    count = forwards or (lambda: 0)
    began = last = time.monotonic()
    first: list[int] = []
    before = count()

    def speed(done: int) -> str:
        seconds = max(time.monotonic() - began, 1e-9)
        items = f"{(done - first[0]) / seconds:.3g} items/s"
        return f"{items}, {(count() - before) / seconds:.4g} forward passes/s" if forwards else items

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=err,
        transient=transient,
        disable=not err.is_terminal,
    ) as bar:
        task = bar.add_task(text, total=None, speed="")

        def tick(done: int, total: int) -> None:
            nonlocal last
            if not first:
                first.append(done)
            bar.update(task, completed=done, total=total, speed=speed(done))
            if not err.is_terminal and time.monotonic() - last > _QUIET_EVERY_S:
                last = time.monotonic()
                typer.echo(f"{text}: {done} of {total}, {speed(done)}", err=True)

        yield tick


def show_run(folder: Path, *, as_json: bool, radii: Mapping[str, float] | None = None) -> None:
    """The summary of a run folder as tables, or as JSON."""
    from safemed_eval.report import summarize

    summary = summarize(folder, radii)
    if as_json:
        typer.echo(json.dumps(summary.to_json(), indent=2))
        return
    columns = _certify_columns if summary.kind == "certify" else _attack_columns
    for heading, groups in (("modality", summary.by_modality), ("question type", summary.by_question_type)):
        _print_table(heading, {"all": summary.overall, **groups}, columns)
        out.print()
    for line in _footer(summary):
        out.print(line)
    out.print(escape(summary.out), style="dim")


Cells = Mapping[str, tuple[str, str]]
"""Column heading -> figure, and its interval, which is left out where the terminal is narrow."""


def _print_table(heading: str, rows: Mapping[str, Any], columns: Callable[[Any], Cells]) -> None:
    cells = {name: columns(row) for name, row in rows.items()}
    headings = list(cells["all"])
    widths = [max(len(h), *(len(" ".join(row[h]).strip()) for row in cells.values())) for h in headings]
    narrow = max(map(len, (heading, *cells))) + sum(width + 2 for width in widths) > out.width
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(heading, overflow="fold")
    for title in headings:
        table.add_column(escape(title), justify="right", no_wrap=True)
    for name, row in cells.items():
        figures = (row[h][0] if narrow else " ".join(row[h]).strip() for h in headings)
        table.add_row(escape(name), *figures)
    out.print(table)
    if narrow:
        out.print("(intervals: in a wider terminal, or with --json)", style="dim")


def _attack_columns(row: Mapping[str, Any]) -> Cells:
    return {"n": (str(next(iter(row.values()))["n"]), "")} | {
        condition: (percent(cell["accuracy"]), _interval(cell)) for condition, cell in row.items()
    }


def _certify_columns(row: Mapping[str, Any]) -> Cells:
    cells = {"n": (str(row["n"]), "")}
    for name, point in row["certified"].items():
        beyond = point["above_ceiling"]
        figure = ">ceiling" if beyond else percent_down(point["certified_accuracy"])
        cells[f"r>={name}"] = (figure, _interval(point))
    cells["abstain"] = (percent(row["abstention"]), "")
    cells["ACR"] = (_radius(row["average_radius"]), "")
    cells["median r"] = (_radius(row["median_radius"]), "")
    return cells


def _footer(summary: Summary) -> Iterator[str]:
    line = f"{summary.items} of {summary.expected} items"
    if summary.sampled:
        line += f" (sample: {summary.sampled}; 'all' is the unweighted mean of the sample)"
    line += f"; {summary.failed} failed and count as wrong" if summary.failed else ""
    line += f"; {summary.skipped} bad ones were left out" if summary.skipped else ""
    yield line
    if summary.notes["images"]:
        yield "Images: " + "; ".join(f"{count} {note}" for note, count in summary.notes["images"].items())
    yield from _certify_footer(summary) if summary.kind == "certify" else _attack_footer(summary)


def _attack_footer(summary: Summary) -> Iterator[str]:
    yield "Accuracy in %, 95 % Clopper-Pearson intervals on the effective sample size (clusters: patient or image)."
    steps = {name: cell["median_steps"] for name, cell in summary.overall.items() if cell["median_steps"]}
    if steps:
        yield "Median steps to a flip: " + ", ".join(f"{count:g} ({name})" for name, count in steps.items())
    for name, cell in summary.overall.items():
        if cell["image_blind"] is not None:
            yield f"{name}: {cell['image_blind']} items never flipped: image-blind, or the attack is broken"
    cost = summary.notes.get("canvas_cost")
    if cost is not None and cost > _CANVAS_COST:
        yield f"[yellow]The canvas costs {100 * cost:.1f} points of accuracy against the official path.[/]"


def _certify_footer(summary: Summary) -> Iterator[str]:
    ceiling, grey = summary.notes["ceiling"], summary.notes["grey_levels_per_radius"]
    yield (
        "Certified accuracy in %, rounded down, 95 % intervals; r: L2 radius in \\[0, 1] pixel units over the canvas, "
        "s: sigma. ACR: average certified radius, 0 for wrong and abstained."
    )
    levels = f" ({floor_to(ceiling * grey, 3)} grey levels RMS)" if grey else ""
    yield f"Ceiling: this sample budget certifies no radius above {floor_to(ceiling, 4)}{levels}, whatever the model."
    at_most = summary.notes["false_certificates_at_most_95"]
    yield f"Of {summary.items} certificates attempted, at most {at_most} are false, with 95 % confidence."


def percent(share: float | None) -> str:
    """A share as a percentage to one decimal."""
    return "n/a" if share is None else f"{100 * share:.1f}"


def percent_down(share: float | None) -> str:
    """A certified share: rounded down."""
    return "n/a" if share is None else f"{floor_to(100 * share, 1):.1f}"


def _interval(cell: Mapping[str, Any]) -> str:
    if cell["lower"] is None:
        return ""
    return f"{floor_to(100 * cell['lower'], 1):.1f}-{ceil_to(100 * cell['upper'], 1):.1f}"


def _radius(value: float | None) -> str:
    return "n/a" if value is None else f"{floor_to(value, 3):.3f}"
