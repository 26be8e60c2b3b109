"""safemed-eval certify."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from safemed_eval import grammar
from safemed_eval.cli._options import AskedOptions, ModelOptions, RunOptions, grouped
from safemed_eval.cli._prepare import prepare, started, write_all
from safemed_eval.cli._show import show_run
from safemed_eval.errors import SpecError

if TYPE_CHECKING:
    from safemed_eval.certify import Certification
    from safemed_eval.data import Canvas
    from safemed_eval.runs.workers import Loaded
    from safemed_eval.smoothing import Falsification, Smoothing

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
        from safemed_eval.runs.images import keep_refuting
        from safemed_eval.runs.units import Certificates

        make = partial(
            _certification,
            canvas=prepared.canvas,
            smoothing=smoothing,
            seed=run.seed,
            batch_size=run.batch_size,
            attacked=attacked,
        )
        store = partial(keep_refuting, prepared.place)
        with started(prepared, model, run, make, gradients=falsify, store=store) as (team, folder):
            certificates = Certificates(
                items=prepared.data.items,
                smoothing=smoothing,
                batch=team.ready.batch,
                done=folder.done,
                split=run.ray is not None,
                falsify=falsify,
            )
            write_all("certifying", team, folder, prepared, certificates.records(team.do(certificates.units())))
    summary = show_run(prepared.place, as_json=run.json, radii=points)
    if falsify and not summary.notes["falsified"]["sound"]:
        raise typer.Exit(1)


def _certification(
    loaded: Loaded,
    *,
    canvas: Canvas,
    smoothing: Smoothing,
    seed: int,
    batch_size: int | None,
    attacked: Falsification | None,
) -> Certification:
    """The work, in whichever process the model has been loaded."""
    from safemed_eval.certify import Certification
    from safemed_eval.falsify import Falsifier

    waist, falsifier = loaded.model, None
    batch = batch_size or (_CPU_BATCH if waist.device.type == "cpu" else _BATCH)
    if attacked:
        falsifier = Falsifier(
            model=waist, spec=attacked, sigma=smoothing.sigma, seed=seed, batch=batch, keep=loaded.keep
        )
    return Certification(model=waist, canvas=canvas, smoothing=smoothing, seed=seed, batch=batch, falsify=falsifier)
