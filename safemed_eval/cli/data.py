"""The commands `safemed-eval data describe`, `audit` and `export`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from safemed_eval import data as datasets
from safemed_eval.cli._show import as_json, name_cell, out, say
from safemed_eval.cli.audit import EXAMPLE, audit
from safemed_eval.data import Description
from safemed_eval.data.dataset import listed
from safemed_eval.errors import SpecError
from safemed_eval.progress import progress

app = typer.Typer(help="Inspect data before a run.", no_args_is_help=True)
_BAD_SHOWN = 20


@app.callback()
def _group() -> None:
    pass


@app.command("describe")
def describe(
    data: Annotated[str, typer.Argument(help="As --data of evaluate and certify.")],
    data_root: Annotated[Path | None, typer.Option(help="As --data-root of evaluate and certify.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Count questions by modality and question type, and list unusable ones. Exit code 1 if there are any."""
    loaded = datasets.load(data, data_root)
    with progress("reading images", transient=True) as tick:
        description = datasets.describe(loaded, tick)
    if json:
        typer.echo(as_json(description.to_json()))
    else:
        _print(description)
    raise typer.Exit(bool(description.bad))


app.command("audit", epilog=EXAMPLE)(audit)


@app.command("export")
def export(
    data: Annotated[str, typer.Argument(help="Data that are generated, such as phantom.")],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
) -> None:
    """Write drawn images and their questions as files, in OmniMedVQA's raw layout."""
    made = datasets.load(data)
    if not datasets.is_made(data.partition(":")[0]):
        raise SpecError(f"{data}: these are files already; only data that are made, such as phantom, can be exported")
    with progress("writing images", transient=True) as tick:
        datasets.export(made, folder, tick)
    assert made.canvas.size is not None
    height, width = made.canvas.size
    place = escape(str(folder))
    say(f"{len(made.items)} questions; read them with --data omnimedvqa:{place} --canvas {height}x{width}")


def _print(data: Description) -> None:
    counts = Counter({(group.modality, group.question_type): group.n for group in data.counts})
    types = sorted({q for _, q in counts})
    table = Table(
        "questions", *(escape(name_cell(kind)) for kind in types), "all", box=None, pad_edge=False, header_style="bold"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for modality in sorted({m for m, _ in counts}):
        row = [counts[modality, q] for q in types]
        table.add_row(escape(name_cell(modality)), *(str(n) if n else "-" for n in row), str(sum(row)))
    sums = [sum(n for (_, q), n in counts.items() if q == kind) for kind in types]
    table.add_row("all", *map(str, sums), str(sum(sums)))
    out.print(table)
    say(f"{data.questions} questions, {data.usable} of them usable, on {data.images} images")
    if data.usable and data.patients is None:
        say("patients: not named; intervals take each image for a patient of its own")
    elif data.usable:
        say(f"patients: {data.patients}")
    if data.columns:
        say(f"further columns: {escape(', '.join(data.columns))}")
    options = ", ".join(f"{n} with {count}" for count, n in data.options.items())
    say(f"options: {options or 'none'}; canvas {data.canvas}")
    for note, count in data.image_notes.items():
        say(f"images: {note}: {count}")
    if data.bad:
        say(f"[red]{len(data.bad)} questions cannot be used[/red]; --skip-bad runs without them and counts them:")
        say(escape(listed(data.bad, _BAD_SHOWN)))
