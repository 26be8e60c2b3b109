"""safemed-eval demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model and the runs.")] = Path("runs/demo"),
) -> None:
    """Build a tiny model, attack and certify it on drawn images. Nothing is downloaded.

    The model has random weights: its answers mean nothing, the commands and tables are the real ones.
    """
    from safemed_eval.cli import app
    from safemed_eval.cli._prepare import quiet_transformers
    from safemed_eval.cli._show import status

    with status("building a tiny Qwen2.5-VL with random weights"):
        from safemed_eval.models import tiny

        quiet_transformers()
        model = str(tiny.build(tiny.QWEN2_5_VL, out / "model"))
    shared = ["--model", model, "--data", "phantom:images=128"]
    attacks = ["--attack", "fgsm:eps=4/255", "--attack", "pgd:eps=4/255,steps=10", "--keep-images", "4"]
    for arguments in (
        ["data", "describe", "phantom:images=128"],
        ["models", "check", model, "--canvas", "64x64"],
        ["evaluate", *shared, *attacks, "--out", str(out / "evaluate")],
        ["certify", *shared, "--per-group", "1", "--sigma", "0.25", "--n", "500", "--out", str(out / "certify")],
    ):
        typer.echo(f"\n$ safemed-eval {' '.join(arguments)}")
        try:
            app(arguments, standalone_mode=False)
        except typer.Exit as end:
            if end.exit_code:
                raise
