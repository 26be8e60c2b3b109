"""The command `safemed-eval models check`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from safemed_eval import attacks
from safemed_eval.cli._options import LoadOptions, grouped
from safemed_eval.cli._show import as_json, out
from safemed_eval.errors import CheckpointError
from safemed_eval.text import visible

app = typer.Typer(help="Check a model before a run.", no_args_is_help=True)
_COLORS = {"pass": "green", "warn": "yellow", "fail": "red", "n/a": "dim"}


@app.callback()
def _group() -> None:
    pass


@app.command("check")
@grouped
def check_command(
    model: Annotated[str, typer.Argument(help="As --model of evaluate and certify.")],
    load: LoadOptions,
    canvas: Annotated[str, typer.Option(help="HxW: canvas size of the check.")] = "384x384",
    planted: Annotated[
        bool,
        typer.Option(
            "--planted",
            help="Also test whether an attack is able to find anything on this model: a region that it must find is "
            "planted around each of 16 drawn images.",
        ),
    ] = False,
    attack: Annotated[
        str | None,
        typer.Option(help=f"The attack that --planted tests; by default {attacks.example_of(strength=2)}."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check that a model can be attacked and certified as it is. Exit code 0: it can; 1: it cannot."""
    from safemed_eval import api
    from safemed_eval.models.checks.common import Finding

    try:
        findings = api.check_model(load.find(model), canvas=canvas, planted=planted, attack=attack)
    except CheckpointError as error:
        findings = [Finding("loads", "fail", str(error))]
    if json:
        checks = [{"check": check.name, "status": check.status, "detail": check.detail} for check in findings]
        typer.echo(as_json({"model": model, "checks": checks}))
    else:
        table = Table("check", "", "found", box=None, pad_edge=False, header_style="bold", title_justify="left")
        for check in findings:
            table.add_row(check.name, f"[{_COLORS[check.status]}]{check.status}[/]", escape(visible(check.detail)))
        out.print(table)
    raise typer.Exit(any(check.status == "fail" for check in findings))
