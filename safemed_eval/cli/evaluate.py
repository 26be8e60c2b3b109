"""safemed-eval evaluate."""

from __future__ import annotations

from typing import Annotated

import typer

from safemed_eval import attacks
from safemed_eval.cli._options import AskedOptions, ModelOptions, RunOptions, grouped
from safemed_eval.cli._show import end_where_nothing_was_measured, show_run

EXAMPLE = (
    "Example: safemed-eval evaluate --model ckpt --data omnimedvqa:DIR "
    f"--attack {attacks.example_of(strength=1)} --attack {attacks.example_of(strength=2)} --out runs/a"
)


@grouped
def evaluate(
    model: ModelOptions,
    data: AskedOptions,
    run: RunOptions,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{attacks.help_text()}. May be repeated; clean is always there.",
        ),
    ] = None,
    quantize: Annotated[
        bool,
        typer.Option(
            "--quantize",
            help="Keep attacked canvases on 8-bit grey levels, which a file of the canvas's size can hold; a file of "
            "another size is resized, and may not attack.",
        ),
    ] = False,
    keep_images: Annotated[
        int,
        typer.Option(
            min=0,
            help="Store N items per attack, lossless, for figures: first those that it turned from right to wrong.",
        ),
    ] = 0,
    smooth: Annotated[
        str | None,
        typer.Option(
            help="Answer, and be attacked, as the smoothed model does: sigma=0.25,n=100 (copies that vote), "
            "alpha=0.001 (else it abstains), m=8 (copies in each gradient of an attack)."
        ),
    ] = None,
    official: Annotated[
        bool, typer.Option("--official", help="Also answer through the 8-bit path, images at their own size.")
    ] = False,
    circular: Annotated[
        bool,
        typer.Option(
            "--circular",
            help="Also ask each clean image with its K options in all K rotations; right is who is right in all.",
        ),
    ] = False,
) -> None:
    """Accuracy, clean and under attack, by imaging modality and question type."""
    from safemed_eval import api

    measured = api.evaluate(
        model.find(model.model, run.seed),
        data.chosen(run.seed),
        attacks=attack or (),
        quantize=quantize,
        keep_images=keep_images,
        smooth=smooth,
        official=official,
        circular=circular,
        **run.passed,
    )
    show_run(measured, json=run.json)
    end_where_nothing_was_measured(measured)
