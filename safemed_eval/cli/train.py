"""safemed-eval train ..."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

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
from safemed_eval.cli._model import asking_for, quiet_transformers, resolve_model, template_of
from safemed_eval.cli._options import DataOptions, grouped
from safemed_eval.cli._prepare import about_of, refuse_unwritable
from safemed_eval.cli._show import progress, status
from safemed_eval.cli._training import AdversaryOptions, GroupOptions, TrainOptions, recipe_of
from safemed_eval.cli.denoiser import EXAMPLE, denoiser
from safemed_eval.errors import DataError, SpecError
from safemed_eval.models.files.source import SEEN_BY_NAME
from safemed_eval.train import Method, Recipe
from safemed_eval.train.log import WORK
from safemed_eval.version import __version__

if TYPE_CHECKING:
    from safemed_eval.models.waist import Waist

app = typer.Typer(
    help="Make a checkpoint robust, one to compare it with, or a denoiser before one. Needs pip install "
    "'safemed-eval\\[train]'; several GPUs: accelerate launch -m safemed_eval train ...",
    no_args_is_help=True,
)
_EXAMPLE = (
    "Example: safemed-eval train {} --model org/name --data medr1:Splits/modality/train --data-root OmniMedVQA "
    "--lora r=16 --out ckpt-{}"
)


@app.callback()
def _group() -> None:
    pass


@app.command("sft", epilog=_EXAMPLE.format("sft", "sft"))
@grouped
def sft(train: TrainOptions, data: DataOptions) -> None:
    """Supervised fine-tuning on the gold answers."""
    _train("sft", train, data)


@app.command("at-sft", epilog=_EXAMPLE.format("at-sft", "at-sft"))
@grouped
def at_sft(train: TrainOptions, data: DataOptions, adversary: AdversaryOptions) -> None:
    """Supervised fine-tuning on images that PGD attacks before each step."""
    _train("at-sft", train, data, adversary=adversary)


@app.command("grpo", epilog=_EXAMPLE.format("grpo", "grpo"))
@grouped
def grpo(train: TrainOptions, data: DataOptions, groups: GroupOptions) -> None:
    """Group relative policy optimization: sampled answers, rewarded where right and well-formed."""
    _train("grpo", train, data, groups=groups)


@app.command("at-grpo", epilog=_EXAMPLE.format("at-grpo", "at-grpo"))
@grouped
def at_grpo(train: TrainOptions, data: DataOptions, adversary: AdversaryOptions, groups: GroupOptions) -> None:
    """GRPO on images that PGD attacks before the answers are sampled."""
    _train("at-grpo", train, data, adversary=adversary, groups=groups)


app.command("denoiser", epilog=EXAMPLE)(denoiser)


def _train(
    method: Method,
    train: TrainOptions,
    data: DataOptions,
    *,
    adversary: AdversaryOptions | None = None,
    groups: GroupOptions | None = None,
) -> None:
    recipe_of(method, train, adversary, groups)
    refuse_senseless(train, data)
    choice = choose(data, train.seed)
    canvas = choice.canvas
    source = resolve_model(train.model, train)
    _refuse_unfit(source, train)
    recipe = recipe_of(method, train, adversary, groups, adapter=source.base is not None)
    asking = asking_for(source, models.Asking(template=template_of(train.template)), to_train=True)
    chosen = verified(choice).set
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    _refuse_too_few(len(chosen.items), recipe, processes)
    spec = {
        "command": "train",
        "model": source.identity,
        "load": {"dtype": train.dtype, "attn": train.attn},
        "template": asking.describe()["template"],
        "select": choice.selection.to_json(),
        "skipped": len(chosen.bad),
        "data": chosen.sha256,
        "canvas": str(canvas),
        "recipe": {key: value for key, value in asdict(recipe).items() if key != "save_every"},
        "processes": processes,
    }
    if complete(train.out, spec):
        draw(train.out / WORK)
        typer.echo(f"{train.out}: is complete")
        return
    refuse_unwritable(train.out)
    about = about_of(source, data.data, chosen)
    work, first = train.out / WORK, int(os.environ.get("RANK", "0")) == 0
    policy, waist = _load(source, train, asking, chosen, canvas)
    with training_folder(work, spec, waist, chosen, about) if first else nullcontext():
        from safemed_eval.train.fit import fit

        how = {"safemed_eval": __version__, "arguments": sys.argv[1:], "names": about["names"], **spec}
        how[SEEN_BY_NAME] = sorted({named for _, _, data in source.trainings for named in data})
        shown, base = shown_progress(), (source.base or source).reference
        try:
            with progress(f"training {method}", unit="steps", note=lambda: shown.text) as shown.tick:
                fit(
                    policy,
                    waist,
                    chosen.items,
                    canvas,
                    recipe,
                    train.out,
                    base=base,
                    about=how,
                    seen=[digests for _, digests, _ in source.trainings if digests],
                    callbacks=[shown],
                )
        except KeyboardInterrupt:
            typer.echo(f"\nstopped; the same command goes on from the last checkpoint in {work}, if any", err=True)
            raise typer.Exit(130) from None
    if first:
        draw(work)
        typer.echo(f"{train.out}: done; its log and figure are in {work}")


def _refuse_unfit(source: models.Source, train: TrainOptions) -> None:
    """A model that cannot be trained, or not like this."""
    if source.kind == "python":
        raise SpecError(f"--model {train.model}: only a transformers checkpoint can be trained")
    if source.base and train.lora:
        raise SpecError(f"--model {train.model}: is an adapter, which is trained on as it is; leave --lora out")
    if train.dtype in ("bfloat16", "float16") and not (source.base or train.lora):
        raise SpecError(
            f"--dtype {train.dtype}: small steps would round away; train in float32, with --bf16 to compute faster, or "
            "an adapter with --lora"
        )


def _refuse_too_few(items: int, recipe: Recipe, processes: int) -> None:
    """GRPO leaves out what does not fill a batch, which may be everything."""
    if recipe.groups is not None:
        needed = recipe.batch_size * recipe.accumulate * processes // recipe.groups.size
        if items < needed:
            raise DataError(f"{items} items do not fill one batch of GRPO, which needs {needed}; lower --batch-size")


def _load(
    source: models.Source, options: TrainOptions, asking: models.Asking, data: datasets.DataSet, canvas: datasets.Canvas
) -> tuple[Any, Waist]:
    """The model on this process's device, after `models check`."""
    from safemed_eval.models.check import check, refuse_failures

    device = training_device(options.device)
    dtype = options.dtype
    if dtype == "auto" and not (source.base or options.lora):
        dtype = "float32"
    with status(f"loading {source.name}"):
        quiet_transformers()
        policy, waist = models.load_to_train(source, device=str(device), dtype=dtype, attn=options.attn, asking=asking)
    with status("checking the model and the questions"):
        for item in data.items:
            waist.scorer.refuse_control_tokens(item.question)
        _, height, width = datasets.canvas_of(data.items[0], canvas).shape
        most = max(len(item.question.options) for item in data.items)
        refuse_failures(check(waist, (height, width), options=most), source.name)
    return policy, waist
