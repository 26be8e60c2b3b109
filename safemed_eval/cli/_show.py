"""Everything that the terminal shows: progress on stderr, tables or JSON on stdout."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from safemed_eval.rounding import ceil_to, floor_to

if TYPE_CHECKING:
    from safemed_eval.report import Summary

_QUIET_EVERY_S = 30.0
out = Console()
err = Console(stderr=True)

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
    began = time.monotonic()
    first: list[int] = []
    last = began

    def speed(done: int) -> str:
        seconds = max(time.monotonic() - began, 1e-9)
        parts = [f"{(done - first[0]) / seconds:.3g} items/s"]
        if forwards:
            parts.append(f"{forwards() / seconds:.4g} forward passes/s")
        return ", ".join(parts)

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
    title = f"{summary.items} of {summary.expected} items"
    if summary.sampled:
        title += f" (sample: {summary.sampled}; 'all' is the unweighted mean of the sample)"
    title += f", {summary.failed} failed" if summary.failed else ""
    title += f", {summary.skipped} bad ones skipped" if summary.skipped else ""
    for name, groups in (("modality", summary.by_modality), ("question type", summary.by_question_type)):
        rows = {"all": summary.overall, **groups}
        table = _certify_table(rows) if summary.kind == "certify" else _attack_table(rows)
        table.columns[0].header = name
        out.print(table)
    out.print(title)
    for line in _certify_footer(summary) if summary.kind == "certify" else _attack_footer(summary):
        out.print(line)
    out.print(f"[dim]{summary.out}[/dim]")


def _attack_table(rows: Mapping[str, Any]) -> Table:
    table = _table()
    conditions = list(rows["all"])
    table.add_column("n", justify="right")
    for condition in conditions:
        table.add_column(condition, justify="right")
    for name, by_condition in rows.items():
        cells = [f"{percent(cell['accuracy'])} {_interval(cell)}" for cell in by_condition.values()]
        table.add_row(name, str(next(iter(by_condition.values()))["n"]), *cells)
    return table


def _certify_table(rows: Mapping[str, Any]) -> Table:
    table = _table()
    table.add_column("n", justify="right")
    for name, point in rows["all"]["certified"].items():
        table.add_column(f"r >= {name}" if name.endswith("s") else f"r >= {point['radius']:g}", justify="right")
    for heading in ("abstain", "ACR", "median r"):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        cells = [
            "> ceiling" if point["above_ceiling"] else f"{percent_down(point['certified_accuracy'])} {_interval(point)}"
            for point in row["certified"].values()
        ]
        table.add_row(
            name,
            str(row["n"]),
            *cells,
            percent(row["abstention"]),
            _radius(row["average_radius"]),
            _radius(row["median_radius"]),
        )
    return table


def _table() -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    return table


def _attack_footer(summary: Summary) -> Iterator[str]:
    yield "[dim]Accuracy in % with 95 % Clopper-Pearson intervals on the cluster-effective sample size (patient, else image).[/dim]"
    for condition, count in summary.notes["image_blind"].items():
        yield f"{condition}: {count} items never flipped; their answers do not hang on the image, or the attack is broken"


def _certify_footer(summary: Summary) -> Iterator[str]:
    ceiling, at_most = summary.notes["ceiling"], summary.notes["false_certificates_at_most_95"]
    yield (
        "[dim]Certified accuracy in %, rounded down, with 95 % intervals; r is L2 in [0, 1] pixel units on the canvas, s = sigma. "
        "ACR: average certified radius, wrong and abstained count 0.[/dim]"
    )
    yield f"This sample budget certifies no radius above {floor_to(ceiling, 4)}; a plateau there is the budget's, not the model's."
    yield f"Of {summary.items} certificates attempted at most {at_most} are false, with 95 % confidence."


def percent(share: float | None) -> str:
    """A share as a percentage to one decimal."""
    return "n/a" if share is None else f"{100 * share:.1f}"


def percent_down(share: float | None) -> str:
    """A certified share: rounded down."""
    return "n/a" if share is None else f"{floor_to(100 * share, 1):.1f}"


def _interval(cell: Mapping[str, Any]) -> str:
    if cell["lower"] is None:
        return ""
    return f"[dim]{floor_to(100 * cell['lower'], 1):.1f}-{ceil_to(100 * cell['upper'], 1):.1f}[/dim]"


def _radius(value: float | None) -> str:
    return "n/a" if value is None else f"{floor_to(value, 3):.3f}"
