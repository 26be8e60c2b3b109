"""safemed-eval data ..."""

from __future__ import annotations

import json as jsonlib
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from safemed_eval import data as datasets
from safemed_eval.cli._show import out, progress
from safemed_eval.data import DataSet

app = typer.Typer(help="Look at data before a run.", no_args_is_help=True)
_BAD_SHOWN = 20
_UNKNOWN = "unknown"


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
        typer.echo(jsonlib.dumps(_facts(loaded, verified), indent=2, ensure_ascii=False))
    else:
        _print(loaded, verified)
    raise typer.Exit(bool(verified.bad))


def _counts(data: DataSet) -> Counter[tuple[str, str]]:
    return Counter((item.modality or _UNKNOWN, item.question_type or _UNKNOWN) for item in data.items)


def _facts(loaded: DataSet, verified: DataSet) -> dict[str, object]:
    return {
        "questions": len(loaded.items),
        "images": len({item.image for item in loaded.items}),
        "options": dict(sorted(Counter(len(item.question.options) for item in loaded.items).items())),
        "counts": [{"modality": m, "question_type": q, "n": n} for (m, q), n in sorted(_counts(loaded).items())],
        "canvas": str(loaded.canvas),
        "image_notes": dict(verified.notes),
        "bad": [{"item": bad.id, "reason": bad.reason} for bad in verified.bad],
        "usable": len(verified.items),
    }


def _print(loaded: DataSet, verified: DataSet) -> None:
    counts = _counts(loaded)
    types = sorted({q for _, q in counts})
    table = Table("questions", *types, "all", box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for modality in sorted({m for m, _ in counts}):
        row = [counts[modality, q] for q in types]
        table.add_row(escape(modality), *(str(n) if n else "-" for n in row), str(sum(row)))
    table.add_row(
        "all", *(str(sum(counts[m, q] for m, q in counts if q == t)) for t in types), str(sum(counts.values()))
    )
    out.print(table)
    facts = _facts(loaded, verified)
    out.print(f"{facts['questions']} questions on {facts['images']} images, canvas {facts['canvas']}")
    out.print(f"questions by number of options: {facts['options']}")
    for note, count in verified.notes.items():
        out.print(f"  {count} images: {note}")
    if verified.bad:
        out.print(f"[red]{len(verified.bad)} items cannot be used[/red]; --skip-bad runs without them:")
        for bad in verified.bad[:_BAD_SHOWN]:
            out.print(f"  {escape(str(bad))}")
        if len(verified.bad) > _BAD_SHOWN:
            out.print(f"  ... and {len(verified.bad) - _BAD_SHOWN} more (--json lists all)")
