"""The command `safemed-eval evaluate`."""

from __future__ import annotations

from typing import Annotated, Literal

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
            help=f"{attacks.help_text()}. May be repeated; clean is always included.",
        ),
    ] = None,
    quantize: Annotated[
        bool,
        typer.Option(
            "--quantize",
            help="Keep attacked canvases on 8-bit grey levels, so that an image file of the canvas's size can hold "
            "them; in a file of another size, resizing may undo the attack.",
        ),
    ] = False,
    keep_images: Annotated[
        int,
        typer.Option(
            min=0,
            help="Store the images of N items per attack, lossless, for figures: first items turned from right to "
            "wrong.",
        ),
    ] = 0,
    smooth: Annotated[
        str | None,
        typer.Option(
            help="Evaluate and attack the smoothed model: sigma=0.25,n=100 (noisy copies that vote), alpha=0.001 "
            "(significance level; it abstains above), m=8 (copies in each gradient of an attack)."
        ),
    ] = None,
    official: Annotated[
        bool,
        typer.Option(
            "--official", help="Also answer through the checkpoint's own 8-bit path, images at their own size."
        ),
    ] = False,
    circular: Annotated[
        bool,
        typer.Option(
            "--circular",
            help="Also ask about each clean image with all K rotations of its K options; an item counts as correct if "
            "every rotation is answered correctly.",
        ),
    ] = False,
    grounding: Annotated[
        bool,
        typer.Option(
            "--grounding",
            help="Also ask about another patient's image, a blank one, and none: how many right answers depend on the "
            "image?",
        ),
    ] = False,
    domain: Annotated[
        Literal["canvas", "file"],
        typer.Option(
            help="canvas: eps bounds the change of the canvas. file: that of the image file at its own size, on 8-bit "
            "grey levels, which is then shown on the canvas as any file is; with --official also to the checkpoint's "
            "own path."
        ),
    ] = "canvas",
    planted: Annotated[
        int,
        typer.Option(
            min=0,
            help="Test on N items whether each attack by gradients is able to find anything: a region that it must "
            "find is planted around their images.",
        ),
    ] = 0,
) -> None:
    """Measure accuracy, clean and under attack, by imaging modality and question type."""
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
        grounding=grounding,
        planted=planted,
        domain=domain,
        **run.passed,
    )
    show_run(measured, json=run.json)
    end_where_nothing_was_measured(measured)
