"""safemed-eval train ..."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from safemed_eval import data as datasets
from safemed_eval import grammar, models
from safemed_eval.cli._options import DataOptions, grouped
from safemed_eval.cli._prepare import (
    about_of,
    load_usable,
    quiet_transformers,
    refuse_unwritable,
    resolve_model,
    select,
    selection,
)
from safemed_eval.cli._show import Tick, progress, status
from safemed_eval.cli._training import AdversaryOptions, GroupOptions, TrainOptions, recipe_of
from safemed_eval.errors import DataError, RunError, SpecError
from safemed_eval.models.prompts import read_template
from safemed_eval.models.source import ABOUT
from safemed_eval.runs import META, Folder, refuse_other_spec, session
from safemed_eval.train import Method, Recipe
from safemed_eval.train.log import WORK
from safemed_eval.version import __version__

if TYPE_CHECKING:
    from safemed_eval.models.waist import Waist

app = typer.Typer(
    help="Make a checkpoint robust, or one to compare it with. Needs pip install 'safemed-eval\\[train]'; several "
    "GPUs: accelerate launch -m safemed_eval train ...",
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


def _train(
    method: Method,
    train: TrainOptions,
    data: DataOptions,
    *,
    adversary: AdversaryOptions | None = None,
    groups: GroupOptions | None = None,
) -> None:
    recipe_of(method, train, adversary, groups)
    _refuse_senseless(train, data)
    loaded = datasets.load(data.data, data.data_root)
    canvas = datasets.parse_canvas(data.canvas, data.fit, loaded.canvas)
    select(loaded, data, train.seed)
    source = resolve_model(train.model, train)
    _refuse_unfit(source, train)
    recipe = recipe_of(method, train, adversary, groups, adapter=source.base is not None)
    trained = None if train.template else source.template
    template = trained or read_template(train.template or "instruct")
    chosen = load_usable(loaded, data, train.seed)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    _refuse_too_few(len(chosen.items), recipe, processes)
    spec = {
        "command": "train",
        "model": source.identity,
        "load": {"dtype": train.dtype, "attn": train.attn},
        "template": asdict(template),
        "select": selection(data),
        "skipped": len(chosen.bad),
        "data": chosen.sha256,
        "canvas": str(canvas),
        "recipe": {key: value for key, value in asdict(recipe).items() if key != "save_every"},
        "processes": processes,
    }
    if _complete(train.out, spec):
        _draw(train.out / WORK)
        typer.echo(f"{train.out}: is complete")
        return
    refuse_unwritable(train.out)
    about = about_of(source, data.data, chosen)
    work, first = train.out / WORK, int(os.environ.get("RANK", "0")) == 0
    policy, waist = _load(source, train, models.Asking(template=template), chosen, canvas)
    with _folder(work, spec, waist, chosen, about) if first else nullcontext():
        from safemed_eval.train.fit import fit

        how = {"safemed_eval": __version__, "arguments": sys.argv[1:], "names": about["names"], **spec}
        shown, base = _shown(), (source.base or source).reference
        try:
            with progress(f"training {method}", unit="steps", note=lambda: shown.text) as shown.tick:
                fit(policy, waist, chosen.items, canvas, recipe, train.out, base=base, about=how, callbacks=[shown])
        except KeyboardInterrupt:
            typer.echo(f"\nstopped; the same command goes on from the last checkpoint in {work}, if any", err=True)
            raise typer.Exit(130) from None
    if first:
        _draw(work)
        typer.echo(f"{train.out}: done; its log and figure are in {work}")


def _draw(work: Path) -> None:
    from safemed_eval.report.training import figure

    figure(work)


def _complete(out: Path, spec: Mapping[str, Any]) -> bool:
    """Whether this very training has been done there; RunError where the folder holds anything else."""
    begun, done = (out / WORK / META).exists(), (out / ABOUT).exists()
    if begun:
        refuse_other_spec(out / WORK, spec)
    elif done:
        raise RunError(
            f"--out {out}: holds a checkpoint, but not how it was trained ({WORK}/{META}); choose another --out"
        )
    else:
        refuse_other_spec(out, spec)
    return done


def _refuse_senseless(train: TrainOptions, data: DataOptions) -> None:
    """What can be told before any data are read."""
    if find_spec("trl") is None:
        raise SpecError("training needs TRL: pip install 'safemed-eval[train]'")
    if train.device not in ("auto", "cpu"):
        raise SpecError(
            f"--device {train.device}: training takes auto or cpu; choose a GPU with CUDA_VISIBLE_DEVICES, several "
            "with accelerate launch"
        )
    kind, options = grammar.split(data.data) if data.data.startswith("phantom") else ("", {})
    if kind == "phantom" and options.get("split", "test") == "test":
        raise SpecError(
            f"--data {data.data}: is the test split, which checkpoints are compared on; train on "
            "phantom:split=train,images=20000"
        )


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
    import torch
    from accelerate import PartialState

    from safemed_eval.models.check import check, refuse_failures

    if torch.cuda.device_count() > 1 and "RANK" not in os.environ and options.device != "cpu":
        raise SpecError(
            "several GPUs: start with accelerate launch -m safemed_eval train ..., or choose one GPU with "
            "CUDA_VISIBLE_DEVICES"
        )
    device = PartialState(cpu=options.device == "cpu").device
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


def _folder(
    work: Path, spec: Mapping[str, Any], waist: Waist, data: datasets.DataSet, about: Mapping[str, Any]
) -> Folder:
    model = waist.describe(data.items[0].question)
    return Folder(work, spec, model=model, about=about, session=session(waist.device_name))


def _shown() -> Any:
    """Tells a progress bar, its `tick`, how far the training is; `text` is the latest figures."""
    from transformers import TrainerCallback

    class Shown(TrainerCallback):  # type: ignore[misc]
        tick: Tick
        text = ""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.tick(state.global_step, state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
            words = {"loss": "loss", "adversary/loss": "adversarial loss", "reward": "reward"}
            self.text = ", ".join(f"{word} {logs[key]:.3g}" for key, word in words.items() if key in logs)

    return Shown()
