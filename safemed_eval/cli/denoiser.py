"""safemed-eval train denoiser."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from safemed_eval import data as datasets
from safemed_eval import models
from safemed_eval.cli._fitting import (
    complete,
    draw,
    refuse_senseless,
    shown_progress,
    training_device,
    training_folder,
)
from safemed_eval.cli._items import choose, verified
from safemed_eval.cli._model import asking_for, quiet_transformers, refuse_no_effect, resolve_model, template_of
from safemed_eval.cli._options import DataOptions, grouped
from safemed_eval.cli._prepare import about_of, refuse_unwritable
from safemed_eval.cli._show import progress, status
from safemed_eval.cli._training import DenoiserOptions, denoiser_recipe_of
from safemed_eval.errors import SpecError
from safemed_eval.train.log import WORK
from safemed_eval.version import __version__

if TYPE_CHECKING:
    from safemed_eval.models.waist import Waist

EXAMPLE = (
    "Example: safemed-eval train denoiser --model ckpt --data medr1:Splits/modality/train --data-root OmniMedVQA "
    "--sigma 0.25 --out denoiser; then certify --model ckpt --denoiser denoiser --sigma 0.25"
)


@grouped
def denoiser(train: DenoiserOptions, data: DataOptions) -> None:
    """A small network that removes noise before a model, which stays as it is, sees the image: denoised smoothing."""
    recipe = denoiser_recipe_of(train)
    refuse_senseless(train, data)
    given = {"--dtype": train.dtype != "auto", "--attn": train.attn, "--template": train.template}
    refuse_no_effect(train.model, given)
    choice = choose(data, train.seed)
    canvas = choice.canvas
    if canvas.size is None:
        raise SpecError("--canvas native: the images of a batch must have one size; write HxW")
    source = resolve_model(train.model, train)
    asking = asking_for(source, models.Asking(template=template_of(train.template)))
    chosen = verified(choice).set
    spec = {
        "command": "train",
        "model": source.identity,
        "load": {"dtype": train.dtype, "attn": train.attn},
        "template": None if source.kind == "python" else asking.describe()["template"],
        "select": choice.selection.to_json(),
        "skipped": len(chosen.bad),
        "data": chosen.sha256,
        "canvas": str(canvas),
        "recipe": {"method": "denoiser"} | {k: v for k, v in asdict(recipe).items() if k != "save_every"},
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }
    work, first = train.out / WORK, int(os.environ.get("RANK", "0")) == 0
    if complete(train.out, spec):
        draw(work)
        typer.echo(f"{train.out}: is complete")
        return
    refuse_unwritable(train.out)
    about = about_of(source, data.data, chosen)
    waist = _load(source, train, asking, chosen, canvas.size)
    with training_folder(work, spec, waist, chosen, about) if first else nullcontext():
        from safemed_eval.train.denoise import fit_denoiser

        how = {"safemed_eval": __version__, "arguments": sys.argv[1:], "names": about["names"], **spec}
        shown = shown_progress()
        try:
            with progress("training denoiser", unit="steps", note=lambda: shown.text) as shown.tick:
                fit_denoiser(waist, chosen.items, canvas, recipe, train.out, about=how, callbacks=[shown])
        except KeyboardInterrupt:
            typer.echo(f"\nstopped; the same command goes on from the last checkpoint in {work}, if any", err=True)
            raise typer.Exit(130) from None
    if first:
        draw(work)
        typer.echo(f"{train.out}: done, for --denoiser; its log and figure are in {work}")


def _load(
    source: models.Source,
    options: DenoiserOptions,
    asking: models.Asking,
    data: datasets.DataSet,
    size: tuple[int, int],
) -> Waist:
    """The frozen model on this process's device, after `models check`."""
    from safemed_eval.models.check import check, refuse_failures

    device = str(training_device(options.device))
    with status(f"loading {source.name}"):
        quiet_transformers()
        waist = models.load(source, device=device, dtype=options.dtype, attn=options.attn, asking=asking)
    with status("checking the model"):
        most = max(len(item.question.options) for item in data.items)
        refuse_failures(check(waist, size, options=most), source.name)
    return waist
