"""safemed-eval models ..."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from safemed_eval.cli._model import load_model, refuse_unusable, resolve_model
from safemed_eval.cli._options import LoadOptions, grouped
from safemed_eval.cli._show import as_json, out, visible
from safemed_eval.core import Question
from safemed_eval.data import DEFAULT_CANVAS, parse_canvas
from safemed_eval.errors import CheckpointError, SpecError

app = typer.Typer(help="Look at a model before a run.", no_args_is_help=True)
_EXAMPLE = Question(text="Which imaging modality is this?", options=("CT", "MRI"))
_COLORS = {"pass": "green", "warn": "yellow", "fail": "red"}


@app.callback()
def _group() -> None:
    pass


@app.command("check")
@grouped
def check_command(
    model: Annotated[str, typer.Argument(help="As --model of evaluate and certify.")],
    load: LoadOptions,
    canvas: Annotated[str, typer.Option(help="HxW: the size to check at.")] = "384x384",
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Can this checkpoint be attacked and certified as it stands? Exit code 0 yes, 1 no."""
    size = parse_canvas(canvas, "stretch", DEFAULT_CANVAS).size
    if size is None:
        raise SpecError("--canvas native: there is no image here to take the size from; write HxW")
    refuse_unusable(load)
    try:
        source = resolve_model(model, load, load.denoiser)
        waist = load_model(source, load)
    except CheckpointError as error:
        rows = [("loads", "fail", str(error))]
    else:
        from safemed_eval.models.check import check

        found = check(waist, size, gradients=waist.differentiable)
        behind = f", behind {load.denoiser}" if load.denoiser else ""
        name = waist.describe(_EXAMPLE).get("architecture", source.name)
        rows = [("loads", "pass", f"{name} on {waist.device}{behind}")]
        rows += [(finding.name, finding.status, finding.detail) for finding in found]
    if json:
        checks = [dict(zip(("check", "status", "detail"), row, strict=True)) for row in rows]
        typer.echo(as_json({"model": model, "checks": checks}))
    else:
        table = Table("check", "", "found", box=None, pad_edge=False, header_style="bold", title_justify="left")
        for name, state, detail in rows:
            table.add_row(name, f"[{_COLORS[state]}]{state}[/]", escape(visible(detail)))
        out.print(table)
    raise typer.Exit(any(state == "fail" for _, state, _ in rows))
