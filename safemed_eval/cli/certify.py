"""safemed-eval certify."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from safemed_eval.cli._options import DataOptions, ModelOptions, RunOptions, grouped
from safemed_eval.cli._prepare import check_model, load_data, load_model, open_run, resolve_model, run_folder
from safemed_eval.cli._show import progress, show_run
from safemed_eval.errors import SpecError
from safemed_eval.grammar import radii as parse_radii

EXAMPLE = "Example: safemed-eval certify --model ckpt --data omnimedvqa:DIR --sigma 0.25 --out runs/b"
_BATCH = {"cpu": 16}
_ACCELERATOR_BATCH = 64
_RADII = "0s,0.5s,1s,1.5s,2s"


@grouped
def certify(
    model: ModelOptions,
    data: DataOptions,
    run: RunOptions,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the noise, in [0, 1] pixel units.")],
    n0: Annotated[int, typer.Option(help="Noisy copies that select the class.")] = 100,
    n: Annotated[int, typer.Option(help="Noisy copies that bound its probability.")] = 1000,
    alpha: Annotated[float, typer.Option(help="Probability that one certificate is false.")] = 0.001,
    radii: Annotated[
        str, typer.Option(help="Where certified accuracy is shown; the suffix s counts in sigma.")
    ] = _RADII,
) -> None:
    """Certified L2 radii by randomized smoothing, by imaging modality and question type."""
    from safemed_eval.smoothing import Smoothing

    try:
        smoothing = Smoothing(sigma=sigma, n0=n0, n=n, alpha=alpha)
    except ValueError as error:
        raise SpecError(f"certify: {error}") from None
    points = parse_radii(radii, sigma)
    source = resolve_model(model.model, model)
    items, canvas = load_data(data, run.seed)
    spec = {
        "command": "certify",
        "model": source.identity,
        "data": items.sha256,
        "canvas": str(canvas),
        "smoothing": asdict(smoothing),
        "sampling": "fixed",
        "seed": run.seed,
    }
    total = len(items.items)
    place, complete = run_folder(spec, model, data, run, label=f"sigma{sigma:g}", records=total)
    if complete:
        show_run(place, as_json=run.json, radii=points)
        return
    waist = load_model(source, model)
    check_model(waist, model.model, items, canvas, gradients=False)
    names = {"model": source.name, "commit": source.commit, "data": data.data}
    with open_run(place, spec, waist, items, names=names) as folder:
        from safemed_eval.certify import Certification

        batch = run.batch_size or _BATCH.get(waist.device.type, _ACCELERATOR_BATCH)
        work = Certification(model=waist, canvas=canvas, smoothing=smoothing, seed=run.seed, batch=batch)
        with progress("certifying", forwards=lambda: waist.forwards) as tick:
            tick(len(folder), total)
            for record in work.run(items.items, done=folder.done):
                folder.append([record])
                tick(len(folder), total)
    show_run(place, as_json=run.json, radii=points)
