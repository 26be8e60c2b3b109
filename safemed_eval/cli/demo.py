"""The command `safemed-eval demo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from safemed_eval import attacks

DRAWN = "phantom:images=128"


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the runs and their report.")] = Path("runs/demo"),
) -> None:
    """Attack, certify and report on the two checkpoints that ship with this package. Nothing is downloaded.

    Images are drawn. builtin:sft was fine-tuned on clean images, builtin:at-grpo on attacked ones. Samples are small:
    the demo takes three minutes on two CPU cores. `reports/phantom` has the whole table.
    """
    from safemed_eval.files import refuse_unwritable

    refuse_unwritable(out)
    drawn = ["--data", DRAWN]
    shown = [word for strength in (1, 2) for word in ("--attack", attacks.example_of(strength=strength))]
    shown += ["--keep-images", "4", "--grounding"]
    few = ["--per-group", "1", "--sigma", "0.1", "--n0", "50", "--n", "200", "--grounding"]
    commands = [["data", "describe", DRAWN], ["models", "check", "builtin:sft", "--canvas", "64x64"]]
    runs = [str(out / f"{command}-{name}") for command in ("evaluate", "certify") for name in ("sft", "at-grpo")]
    for name in ("sft", "at-grpo"):
        model = ["--model", f"builtin:{name}", *drawn]
        commands.append(["evaluate", *model, "--limit", "192", *shown, "--out", str(out / f"evaluate-{name}")])
        commands.append(["certify", *model, *few, "--out", str(out / f"certify-{name}")])
    commands.append(["report", *runs, "--out", str(out / "report"), "--title", "safemed-eval demo"])
    for arguments in commands:
        typer.echo(f"\n$ safemed-eval {shlex.join(arguments)}")
        code = context.find_root().command.main(arguments, standalone_mode=False)
        if code:
            raise typer.Exit(code)
