"""safemed-eval demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model, the images and the runs.")] = Path("runs/demo"),
) -> None:
    """Build a tiny model and a handful of images, evaluate and certify them. Nothing is downloaded."""
    from safemed_eval.cli._demo import draw_table

    draw_table(out)
