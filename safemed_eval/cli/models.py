"""The commands `safemed-eval models check` and `models merge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from safemed_eval import attacks
from safemed_eval.cli._options import LoadOptions, grouped, option
from safemed_eval.cli._show import as_json, out
from safemed_eval.errors import CheckpointError
from safemed_eval.models import Model, find_model
from safemed_eval.text import visible

app = typer.Typer(help="Check a model before a run, or merge an adapter into its base.", no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """Options of the merging of an adapter."""

    base: Annotated[
        str | None,
        option(panel="Model", help="The checkpoint that the adapter belongs to, where that has moved."),
    ] = None
    trust_remote_code: Annotated[
        bool, option("--trust-remote-code", panel="Model", help="Run Python code that comes with the checkpoint.")
    ] = False
    offline: Annotated[bool, option("--offline", panel="Model", help="Do not use the network.")] = False
    out: Annotated[Path, option(panel="Run", help="Folder of the new checkpoint, which must not exist yet.")]

    def find(self, adapter: str) -> Model:
        """Find the adapter, without loading it."""
        return find_model(adapter, base=self.base, trust_remote_code=self.trust_remote_code, offline=self.offline)


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
    """Check that a model can be attacked and certified as it is, and on which canvas. Exit code 0: it can; 1: not."""
    from safemed_eval import api
    from safemed_eval.models.checks.common import Finding, verdict_of

    try:
        findings = api.check_model(load.find(model), canvas=canvas, planted=planted, attack=attack)
    except CheckpointError as error:
        findings = [Finding("loads", "fail", str(error))]
    verdict = verdict_of(findings)
    if json:
        checks = [{"check": check.name, "status": check.status, "detail": check.detail} for check in findings]
        typer.echo(
            as_json(
                {
                    "model": model,
                    "checks": checks,
                    "verdict": {"status": verdict.status, "detail": verdict.detail},
                    "canvas": verdict.canvas,
                }
            )
        )
    else:
        table = Table("check", "", "found", box=None, pad_edge=False, header_style="bold", title_justify="left")
        for check in findings:
            table.add_row(check.name, f"[{_COLORS[check.status]}]{check.status}[/]", escape(visible(check.detail)))
        out.print(table)
        out.print(f"[{_COLORS[verdict.status]}]verdict[/]: {escape(visible(verdict.detail))}.")
    raise typer.Exit(verdict.status == "fail")


@app.command("merge")
@grouped
def merge_command(
    adapter: Annotated[str, typer.Argument(help="A PEFT adapter's folder, or org/name@revision on the hub.")],
    files: MergeOptions,
) -> None:
    """Merge an adapter into its base: a plain checkpoint that any tool loads, with the notes of its training."""
    from safemed_eval import api

    typer.echo(f"{api.merge_adapter(files.find(adapter), out=files.out)}: done")
