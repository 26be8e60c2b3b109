"""safemed-eval data ..."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from safemed_eval import data as datasets
from safemed_eval.cli._show import as_json, listed, name_cell, out, progress, say
from safemed_eval.cli.audit import EXAMPLE, audit
from safemed_eval.core import UNKNOWN, Item
from safemed_eval.data import Bad, DataSet
from safemed_eval.errors import SpecError

app = typer.Typer(help="Look at data before a run.", no_args_is_help=True)
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
    """Count questions by modality and question type, and name what cannot be used. Exit code 1 if there is any."""
    loaded = datasets.load(data, data_root)
    with progress("reading images", transient=True) as tick:
        verified = datasets.verify(loaded, tick)
    if json:
        typer.echo(as_json(_facts(loaded, verified)))
    else:
        _print(_facts(loaded, verified))
    raise typer.Exit(bool(verified.bad))


app.command("audit", epilog=EXAMPLE)(audit)


@app.command("export")
def export(
    data: Annotated[str, typer.Argument(help="A kind of data that is made, not read, such as phantom.")],
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


def _facts(loaded: DataSet, data: DataSet) -> dict[str, Any]:
    """What there is, whether or not it can be used."""
    there: list[Item | Bad] = [*data.items, *data.bad]
    counts = Counter((one.modality or UNKNOWN, one.question_type or UNKNOWN) for one in there)
    return {
        "questions": len(there),
        "usable": len(data.items),
        "images": len({item.image for item in loaded.items}),
        "options": dict(sorted(Counter(len(item.question.options) for item in loaded.items).items())),
        "counts": [{"modality": m, "question_type": q, "n": n} for (m, q), n in sorted(counts.items())],
        "canvas": str(data.canvas),
        "image_notes": dict(data.notes),
        "bad": [{"item": bad.id, "reason": bad.reason} for bad in data.bad],
    }


def _print(facts: Mapping[str, Any]) -> None:
    counts = Counter({(row["modality"], row["question_type"]): row["n"] for row in facts["counts"]})
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
    bad = facts["bad"]
    say(f"{facts['questions']} questions, {facts['usable']} of them usable, on {facts['images']} images")
    options = ", ".join(f"{n} with {count}" for count, n in facts["options"].items())
    say(f"options: {options or 'none'}; canvas {facts['canvas']}")
    for note, count in facts["image_notes"].items():
        say(f"images: {note}: {count}")
    if bad:
        say(f"[red]{len(bad)} questions cannot be used[/red]; --skip-bad runs without them and counts them:")
        say(escape(listed([f"{one['item']}: {one['reason']}" for one in bad], _BAD_SHOWN)))
