"""safemed-eval evaluate."""

from __future__ import annotations

from typing import Annotated

import typer

from safemed_eval import attacks
from safemed_eval.cli._options import DataOptions, ModelOptions, RunOptions, grouped
from safemed_eval.cli._prepare import check_model, load_data, load_model, open_run, resolve_model, run_folder
from safemed_eval.cli._show import progress, show_run
from safemed_eval.errors import SpecError

EXAMPLE = (
    "Example: safemed-eval evaluate --model ckpt --data omnimedvqa:DIR --attack fgsm:eps=4/255 "
    "--attack pgd:eps=4/255,steps=10 --out runs/a"
)
_BATCH = 16


@grouped
def evaluate(
    model: ModelOptions,
    data: DataOptions,
    run: RunOptions,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="fgsm:eps=4/255, pgd:eps=4/255,steps=10 (further keys: norm=l2, loss=margin, restarts=5, "
            "target=random, ...), or the control noise:eps=4/255. May be repeated; clean is always included.",
        ),
    ] = None,
    quantize: Annotated[
        bool, typer.Option("--quantize", help="Keep attacked images on 8-bit grey levels, as a file must be.")
    ] = False,
    keep_images: Annotated[
        int, typer.Option(min=0, help="Store this many attacked items per attack, lossless, for figures.")
    ] = 0,
    official: Annotated[
        bool, typer.Option("--official", help="Also answer through the 8-bit path, images at their own size.")
    ] = False,
) -> None:
    """Accuracy, clean and under attack, by imaging modality and question type."""
    chosen = list({str(one): one for one in map(attacks.parse, ["clean", *(attack or [])])}.values())
    source = resolve_model(model.model, model)
    items, canvas = load_data(data, run.seed)
    batch = run.batch_size or _BATCH
    spec = {
        "command": "evaluate",
        "model": source.identity,
        "data": items.sha256,
        "canvas": str(canvas),
        "attacks": [str(one) for one in chosen],
        "quantize": quantize,
        "official": official,
        "batch": batch,
        "seed": run.seed,
    }
    conditions = [str(one) for one in chosen] + ["official"] * official
    total = len(items.items) * len(conditions)
    place, complete = run_folder(spec, model, data, run, label="-".join(conditions[1:]), records=total)
    if complete:
        show_run(place, as_json=run.json)
        return
    waist = load_model(source, model)
    if official and not hasattr(waist.scorer, "official_scores"):
        raise SpecError("--official: only a transformers checkpoint has an official 8-bit path")
    check_model(waist, model.model, items, canvas, gradients=len(chosen) > 1)
    names = {"model": source.name, "commit": source.commit, "data": data.data}
    with open_run(place, spec, waist, items, names=names, conditions=conditions) as folder:
        from safemed_eval.evaluate import Evaluation
        from safemed_eval.runs.images import Keeper

        work = Evaluation(
            model=waist,
            canvas=canvas,
            seed=run.seed,
            batch=batch,
            quantize=quantize,
            keep=Keeper(place, keep_images, quantize) if keep_images else None,
        )
        with progress("evaluating", forwards=lambda: waist.forwards) as tick:
            tick(len(folder), total)
            for records in work.run(items.items, chosen, official=official, done=folder.done):
                folder.append(records)
                tick(len(folder), total)
    show_run(place, as_json=run.json)
