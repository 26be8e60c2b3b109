"""safemed-eval certify."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from safemed_eval import grammar
from safemed_eval.cli._options import AskedOptions, ModelOptions, RunOptions, grouped
from safemed_eval.cli._prepare import prepare, started, write_all
from safemed_eval.cli._show import show_run
from safemed_eval.errors import SpecError

EXAMPLE = "Example: safemed-eval certify --model ckpt --data omnimedvqa:DIR --sigma 0.25 --out runs/b"
_BATCH = 64
_CPU_BATCH = 16


@grouped
def certify(
    model: ModelOptions,
    data: AskedOptions,
    run: RunOptions,
    sigma: Annotated[
        str, typer.Option(help="Standard deviation of the noise, in [0, 1] pixel units: 0.25, or a fraction.")
    ],
    n0: Annotated[int, typer.Option(help="Noisy copies that select the class.")] = 100,
    n: Annotated[int, typer.Option(help="Noisy copies that bound its probability.")] = 1000,
    alpha: Annotated[float, typer.Option(help="Probability that one certificate is false.")] = 0.001,
    radii: Annotated[
        str, typer.Option(help="Where certified accuracy is shown; the suffix s counts in sigma.")
    ] = grammar.RADII,
    falsify: Annotated[
        bool,
        typer.Option(
            "--falsify",
            help="Attack every certificate within its radius; exit code 1 if more prove false than chance allows.",
        ),
    ] = False,
) -> None:
    """Certified L2 radii by randomized smoothing, by imaging modality and question type."""
    from safemed_eval.smoothing import Falsification, Smoothing

    try:
        smoothing = Smoothing(sigma=grammar.number(sigma, "--sigma"), n0=n0, n=n, alpha=alpha)
    except ValueError as error:
        raise SpecError(f"certify: {error}") from None
    points = grammar.radii(radii, smoothing.sigma)
    attacked = Falsification() if falsify else None
    asked = {"smoothing": asdict(smoothing), "sampling": "fixed"}
    asked |= {"falsify": asdict(attacked)} if attacked else {}
    prepared = prepare("certify", model, data, run, asked, label=f"sigma{smoothing.sigma:g}")
    if not prepared.complete:
        with started(prepared, model, gradients=falsify) as (waist, folder):
            from safemed_eval.certify import Certification
            from safemed_eval.falsify import Falsifier
            from safemed_eval.runs.images import keep_refuting

            batch = run.batch_size or (_CPU_BATCH if waist.device.type == "cpu" else _BATCH)
            falsifier = None
            if attacked:
                falsifier = Falsifier(
                    model=waist,
                    spec=attacked,
                    sigma=smoothing.sigma,
                    seed=run.seed,
                    batch=batch,
                    keep=partial(keep_refuting, prepared.place),
                )
            work = Certification(
                model=waist,
                canvas=prepared.canvas,
                smoothing=smoothing,
                seed=run.seed,
                batch=batch,
                falsify=falsifier,
            )
            records = ([record] for record in work.run(prepared.data.items, done=folder.done))
            write_all("certifying", waist, folder, prepared, records)
    summary = show_run(prepared.place, as_json=run.json, radii=points)
    if falsify and not summary.notes["falsified"]["sound"]:
        raise typer.Exit(1)
