"""The command `safemed-eval certify`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from safemed_eval import grammar
from safemed_eval.cli._options import AskedOptions, ModelOptions, RunOptions, grouped, noise_help
from safemed_eval.cli._show import end_where_nothing_was_measured, show_run
from safemed_eval.core import DEFAULT_NOISE

EXAMPLE = "Example: safemed-eval certify --model ckpt --data omnimedvqa:DIR --sigma 0.25 --out runs/b"


@grouped
def certify(
    model: ModelOptions,
    data: AskedOptions,
    run: RunOptions,
    sigma: Annotated[
        str | None,
        typer.Option(help="Standard deviation of the noise; of pixels in [0, 1] units: 0.25, or a fraction."),
    ] = None,
    noise: Annotated[
        str, typer.Option(help=f"Kind of noise, which decides what a radius is. {noise_help()}")
    ] = DEFAULT_NOISE,
    sampling: Annotated[
        Literal["fixed", "sequential"],
        typer.Option(
            help="fixed: n0 noisy copies select an answer, and n more bound its probability. sequential: copies are "
            "drawn, n at most, until it is decided which of --radii are certified for the gold answer; far fewer if "
            "radii are few."
        ),
    ] = "fixed",
    n0: Annotated[
        int | None, typer.Option(help="Noisy copies that select the class; fixed only.", show_default="100")
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            help="Noisy copies that bound its probability; for sequential an upper limit.", show_default="1000"
        ),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Probability that one certificate is false.", show_default="0.001")
    ] = None,
    radii: Annotated[
        str,
        typer.Option(
            help="Radii at which certified accuracy is shown, and that sequential draws decide; the suffix s means "
            "times sigma. For patches sizes in pixels, by default around that of --noise."
        ),
    ] = grammar.RADII,
    stop_when_wrong: Annotated[
        bool,
        typer.Option(
            "--stop-when-wrong",
            help="Skip the estimation if the selected answer is wrong; the item counts as not certified at any radius.",
        ),
    ] = False,
    falsify: Annotated[
        bool,
        typer.Option(
            "--falsify",
            help="Attack every certificate within its radius; exit code 1 if more are refuted than chance allows.",
        ),
    ] = False,
    option_order: Annotated[
        Literal["data", "random"],
        typer.Option(
            help="data: every noisy copy is asked with the options in the order of the data. random: each in an order "
            "of its own, so that certificates hold for every order and prefer no letter."
        ),
    ] = "data",
    domain: Annotated[
        Literal["canvas", "file"],
        typer.Option(
            help="canvas: radii are measured on the canvas. file: on the image file at its own size, through the "
            "linear resize to the canvas."
        ),
    ] = "canvas",
    grounding: Annotated[
        bool,
        typer.Option(
            "--grounding",
            help="Let noisy copies of another patient's image vote as well: how many certificates depend on the image?",
        ),
    ] = False,
) -> None:
    """Certify radii by randomized smoothing, by imaging modality and question type."""
    from safemed_eval import api

    measured = api.certify(
        model.find(model.model, run.seed),
        data.chosen(run.seed),
        sigma=sigma,
        noise=noise,
        sampling=sampling,
        n0=n0,
        n=n,
        alpha=alpha,
        radii=radii,
        stop_when_wrong=stop_when_wrong,
        falsify=falsify,
        option_order=option_order,
        grounding=grounding,
        domain=domain,
        **run.passed,
    )
    show_run(measured, json=run.json)
    if not measured.sound:
        raise typer.Exit(1)
    end_where_nothing_was_measured(measured)
