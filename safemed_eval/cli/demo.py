"""safemed-eval demo."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

_SIDE = 96
_IMAGES = 12
_N = 200


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model, the images and the runs.")] = Path("runs/demo"),
) -> None:
    """Draw a handful of images, build a tiny model, attack and certify it. Nothing is downloaded.

    The model has random weights: its answers mean nothing, the commands and tables are the real ones.
    """
    from safemed_eval.cli import app
    from safemed_eval.cli._prepare import quiet_transformers
    from safemed_eval.cli._show import status

    table = _draw(out / "data")
    with status("building a tiny Qwen2.5-VL with random weights"):
        from safemed_eval.models import tiny

        quiet_transformers()
        model = tiny.build(tiny.QWEN2_5_VL, out / "model")
    shared = ["--model", str(model), "--data", f"table:{table}", "--canvas", f"{_SIDE}x{_SIDE}"]
    attacks = ["--attack", "fgsm:eps=8/255", "--attack", "pgd:eps=8/255,steps=10", "--keep-images", "2"]
    for arguments in (
        ["models", "check", str(model), "--canvas", f"{_SIDE}x{_SIDE}"],
        ["evaluate", *shared, *attacks, "--out", str(out / "evaluate")],
        ["certify", *shared, "--sigma", "0.25", "--n", str(_N), "--out", str(out / "certify")],
    ):
        typer.echo(f"\n$ safemed-eval {' '.join(arguments)}")
        app(arguments, standalone_mode=False)


def _draw(folder: Path) -> Path:
    """Discs and rings on noisy ground, named after modalities that they do not depict; a table of questions."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE]
    with (folder / "questions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(
            ["id", "image", "question", "option_a", "option_b", "answer", "modality", "question_type", "patient_id"]
        )
        for number in range(_IMAGES):
            left, ring = number % 2 == 0, number % 3 == 0
            distance = np.hypot(rows - _SIDE / 2, columns - _SIDE * (0.3 if left else 0.7))
            shape = (distance < 14) & ((distance > 8) | (not ring))
            pixels = rng.normal(60, 12, (_SIDE, _SIDE)) + 110 * shape
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")
            common = [f"{number:02}.png"]
            about = ["CT" if number < _IMAGES / 2 else "MRI"]
            patient = [f"patient {number // 2}"]
            side = ["Left or right?", "left", "right", "AB"[not left], *about, "Other Biological Attributes"]
            kind = ["What is seen?", "a disc", "a ring", "AB"[ring], *about, "Disease Diagnosis"]
            table.writerow([f"{number:02} side", *common, *side, *patient])
            table.writerow([f"{number:02} kind", *common, *kind, *patient])
    return folder / "questions.csv"
