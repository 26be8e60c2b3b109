"""The function `train`, which trains checkpoints and denoisers."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from safemed_eval.codec import Json, encode, typed
from safemed_eval.core import Item
from safemed_eval.data import AnyData, Canvas, Choice, Data, canvas_of, choice_of
from safemed_eval.errors import DataError, RunError, SpecError, Stopped
from safemed_eval.files import refuse_unwritable
from safemed_eval.models import AnyModel, Asking, Model, find_model
from safemed_eval.models.checkpoints.prompts import answers_first, thinks
from safemed_eval.models.files.notes import ABOUT, SEEN_BY_NAME
from safemed_eval.progress import Tick, progress, status
from safemed_eval.runs import META, Folder, refuse_other_spec, session
from safemed_eval.runs.meta import about_of
from safemed_eval.runs.spec import TrainSpec
from safemed_eval.train._shards import refuse_unsupported
from safemed_eval.train._vllm import refuse_vllm
from safemed_eval.train.log import WORK, figure, remove_checkpoints
from safemed_eval.train.recipe import DenoiserRecipe, Method, Recipe, TrainOptions, recipe_of
from safemed_eval.train.watch.held_out import check_attack, held_out_of, is_for_tests, verified
from safemed_eval.version import __version__

if TYPE_CHECKING:
    import torch

    from safemed_eval.models.waist import Waist

_log = logging.getLogger("safemed_eval")

_IDLE = ("save_every", "loader_workers", "watch", "samples")
"""Settings that do not change the weights."""
_LATER = (
    *("ablate", "freeze", "targets", "validation"),
    *("aim", "gain_weight", "kl_weight", "loss", "functions", "mask_truncated", "resample_agreeing"),
)
"""Settings that are newer than some run folders: at its default each is left out of a spec."""


@typed
def train(
    method: Method | Literal["denoiser"],
    model: AnyModel,
    data: AnyData,
    *,
    out: str | Path,
    **options: Unpack[TrainOptions],
) -> Path:
    """Train a checkpoint, or a denoiser for one, and save it into `out`.

    >>> import safemed_eval as se
    >>> se.train("at-grpo", "builtin:sft", "phantom:split=train,images=20000", out="ckpt", steps=300)  # doctest: +SKIP

    Args:
        method: "sft", "at-sft", "grpo", "at-grpo", or "denoiser" for denoised smoothing of a frozen model.
        model: the checkpoint to start from, as in `evaluate`; it is loaded anew, not changed in place. The template
            is the one that it was loaded with, else that of its last training, else `instruct`.
        data: as in `evaluate`; not the test split of drawn data.
        out: the new checkpoint's folder; the same call resumes a stopped training.
        options: the options of `safemed-eval train METHOD`, with the same names and defaults, such as steps,
            epochs, batch_size, learning_rate, lora, seed; eps, attack_steps of an adversary; group_size, beta of GRPO;
            sigma of a denoiser; eval_data (as data, but what drawn data keep for training too) and what it chooses.
            See `train.recipe_of`.
    Returns:
        The folder, which `load_model` takes.
    Raises:
        SpecError, DataError, CheckpointError, RunError: the message says what is wrong, where, and what to do.
        Stopped: Ctrl-C; the same call resumes from the last intermediate checkpoint.
    """
    place = Path(out)
    processes, first = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0")) == 0
    _refuse_unfit_here(recipe_of(method, **options), processes)
    base = model if isinstance(model, Model) else find_model(model)
    chosen = choice_of(data)
    held_out = held_out_of(options.get("eval_data"), chosen)
    _refuse_senseless(base, chosen.name)
    _refuse_unfit(method, base, chosen, options.get("lora"), options.get("freeze"))
    asking = base.source.asked(Asking(template=base.given.template), to_train=method != "denoiser")
    asks_for_thought = asking.template is not None and thinks(asking.template)
    recipe = recipe_of(method, adapter=base.source.is_adapter, thinks=asks_for_thought, **options)
    _refuse_wide_band(recipe, chosen.canvas.size)
    _refuse_thought_last(recipe, asking)
    if isinstance(recipe, Recipe):
        check_attack(recipe.validation, chosen.canvas, asking)
    if isinstance(chosen, Choice):
        with progress("reading images", transient=True) as tick:
            chosen = chosen.verified(tick)
    checked = verified(held_out, chosen)
    _refuse_too_few(len(chosen.items), recipe, processes)
    spec = TrainSpec(
        model=base.source.identity,
        load={"dtype": base.dtype, "attn": base.attn},
        template=asking.describe()["template"] if base.source.takes_prompts else None,
        select=chosen.selection,
        skipped=len(chosen.set.bad),
        data=chosen.set.sha256,
        canvas=str(chosen.canvas),
        recipe={"method": method} | _with_data(_settings(recipe), checked),
        processes=processes,
    ).to_json()
    if _is_complete(place, spec):
        _log.info("%s: is complete", place)
        if first and not recipe.watch.keep_checkpoints:
            remove_checkpoints(place / WORK)
    else:
        refuse_unwritable(place)
        _fit(method, base, chosen, checked, recipe, asking, place, spec, first=first)
    if first:
        figure(place / WORK)
    return place


def _settings(recipe: Recipe | DenoiserRecipe) -> Json:
    """The settings that decide the numbers; an option that is newer than run folders is left out where it is unused."""

    def of(part: object) -> Json:
        kept = {f.name: getattr(part, f.name) for f in fields(part) if f.name not in _IDLE}  # type: ignore[arg-type]
        later = {f.name for f in fields(part) if f.name in _LATER and kept[f.name] == f.default}  # type: ignore[arg-type]
        return {name: of(v) if is_dataclass(v) else encode(v) for name, v in kept.items() if name not in later}

    return of(recipe)


def _with_data(settings: Json, held_out: Data | None) -> Json:
    """Add the hash of the validation data, which is part of what decides the weights."""
    if held_out:
        settings["validation"] |= {"data": held_out.set.sha256}
    return settings


def _refuse_thought_last(recipe: Recipe | DenoiserRecipe, asking: Asking) -> None:
    """Raise SpecError if GRPO would read the letter after a thought that the template asks for after the answer."""
    after = isinstance(recipe, Recipe) and recipe.groups is not None and recipe.groups.readout == "think-choice"
    if after and asking.template and answers_first(asking.template):
        raise SpecError(
            "--readout think-choice: its template asks for the answer before the thought; use --readout generate"
        )


def _fit(
    method: str,
    model: Model,
    data: Data,
    held_out: Data | None,
    recipe: Recipe | DenoiserRecipe,
    asking: Asking,
    out: Path,
    spec: Json,
    *,
    first: bool,
) -> None:
    """Load the model, lock the folder, and train."""
    policy, waist = _loaded(model, [*data.items, *(held_out or ())], data.canvas, recipe, asking)
    about, work = about_of(model, data), out / WORK
    how = {"safemed_eval": __version__, "arguments": sys.argv[1:], "names": about["names"], **spec}
    with _locked(work, spec, waist, data, about) if first else nullcontext(), _resumable(work):
        shown = _shown_progress()
        with progress(f"training {method}", unit="steps", note=lambda: shown.text) as shown.tick:
            if isinstance(recipe, DenoiserRecipe):
                from safemed_eval.train.denoise import fit_denoiser

                fit_denoiser(waist, data.items, data.canvas, recipe, out, about=how, callbacks=[shown])
                return
            from safemed_eval.train.fit import fit

            source = model.source
            how[SEEN_BY_NAME] = sorted({named for _, _, names in source.trainings for named in names})
            fit(
                policy,
                waist,
                data.items,
                data.canvas,
                recipe,
                out,
                base=source.reference,
                about=how,
                seen=[digests for _, digests, _ in source.trainings if digests],
                held_out=held_out.items if held_out else (),
                callbacks=[shown],
            )


def _refuse_senseless(model: Model, data: str) -> None:
    """Refuse what can be refused before any image is read."""
    if find_spec("trl") is None:
        raise SpecError("training needs TRL: pip install 'safemed-eval[train]'")
    if model.device not in ("auto", "cpu"):
        raise SpecError(
            f"--device {model.device}: training takes auto or cpu; choose a GPU with CUDA_VISIBLE_DEVICES, several "
            "with accelerate launch"
        )
    if model.device_map or model.compile:
        option = f"--device-map {model.device_map}" if model.device_map else "--compile"
        raise SpecError(f"{option}: has no effect on training; leave it out")
    if is_for_tests(data):
        raise SpecError(
            f"--data {data}: is the test split, which checkpoints are compared on; train on "
            f"{data.partition(':')[0]}:split=train,images=20000"
        )


def _refuse_unfit_here(recipe: Recipe | DenoiserRecipe, processes: int) -> None:
    """Refuse what the launch of the processes, or the packages here, do not allow."""
    if isinstance(recipe, DenoiserRecipe):
        refuse_unsupported(denoiser=True, bf16=False)
        return
    refuse_unsupported(denoiser=False, bf16=recipe.bf16)
    if recipe.groups and recipe.groups.vllm:
        refuse_vllm(recipe.groups.vllm, processes)


def _refuse_unfit(method: str, model: Model, data: Data | Choice, lora: str | None, freeze: object) -> None:
    """Refuse a model that cannot be trained with this method and these options."""
    source = model.source
    if method == "denoiser":
        if data.canvas.size is None:
            raise SpecError("--canvas native: the images of a batch must have one size; write HxW")
        return
    if not source.trainable:
        raise SpecError(f"--model {source.name}: only a transformers checkpoint can be trained")
    if source.is_adapter and lora:
        raise SpecError(f"--model {source.name}: is an adapter, which is trained on as it is; leave --lora out")
    if source.is_adapter and freeze:
        raise SpecError(f"--model {source.name}: is an adapter, which alone is trained; leave --freeze out")
    if model.dtype in ("bfloat16", "float16") and not (source.is_adapter or lora):
        raise SpecError(
            f"--dtype {model.dtype}: small steps would round away; train in float32, with --bf16 to compute faster, or "
            "an adapter with --lora"
        )


def _refuse_too_few(items: int, recipe: Recipe | DenoiserRecipe, processes: int) -> None:
    """Refuse data that do not fill one batch of GRPO, which drops incomplete batches."""
    if isinstance(recipe, Recipe) and recipe.groups is not None:
        needed = recipe.batch_size * recipe.accumulate * processes // recipe.groups.size
        if items < needed:
            raise DataError(f"{items} items do not fill one batch of GRPO, which needs {needed}; lower --batch-size")


def _refuse_wide_band(recipe: Recipe | DenoiserRecipe, canvas: tuple[int, int] | None) -> None:
    """Refuse a band as wide as the canvas, which leaves nothing out."""
    if isinstance(recipe, Recipe) and recipe.ablate and canvas and recipe.ablate.band >= canvas[1]:
        raise SpecError(
            f"--ablate band={recipe.ablate.band}: leaves nothing out of a canvas of {canvas[1]} columns; name fewer"
        )


def _is_complete(out: Path, spec: Json) -> bool:
    """Return True if this training is complete in `out`; raise RunError if the folder holds anything else."""
    begun, done = (out / WORK / META).exists(), (out / ABOUT).exists()
    if begun or (out.is_dir() and [*out.iterdir()] == [out / WORK]):
        refuse_other_spec(out / WORK, spec)
    elif done:
        raise RunError(
            f"--out {out}: holds a checkpoint, but not how it was trained ({WORK}/{META}); choose another --out"
        )
    else:
        refuse_other_spec(out, spec)
    return done


def _loaded(
    model: Model, items: Sequence[Item], canvas: Canvas, recipe: Recipe | DenoiserRecipe, asking: Asking
) -> tuple[Any, Waist]:
    """Load and check the network to train (None for a denoiser) and the model behind the waist."""
    from safemed_eval import models
    from safemed_eval.models.check import check, refuse_failures

    source, device, policy = model.source, str(_device(model.device)), None
    models.quiet_transformers()
    with status(f"loading {source.name}"):
        if isinstance(recipe, DenoiserRecipe):
            waist = models.load(source, device=device, dtype=model.dtype, attn=model.attn, asking=asking)
        else:
            full = model.dtype == "auto" and not (source.is_adapter or recipe.lora)
            dtype = "float32" if full else model.dtype
            policy, waist = models.load_to_train(source, device=device, dtype=dtype, attn=model.attn, asking=asking)
    with status("checking the model and the questions"):
        if policy is not None:
            for item in items:
                waist.scorer.refuse_control_tokens(item.question)
        _, height, width = canvas_of(items[0], canvas).shape
        most = max(len(item.question.options) for item in items)
        refuse_failures(check(waist, (height, width), options=most), source.name)
    return policy, waist


def _device(option: str) -> torch.device:
    """Choose the device of this process."""
    import torch
    from accelerate import PartialState

    if torch.cuda.device_count() > 1 and "RANK" not in os.environ and option != "cpu":
        raise SpecError(
            "several GPUs: start with accelerate launch -m safemed_eval train ..., or choose one GPU with "
            "CUDA_VISIBLE_DEVICES"
        )
    device: torch.device = PartialState(cpu=option == "cpu").device
    return device


def _locked(work: Path, spec: Json, waist: Waist, data: Data, about: Json) -> Folder:
    model = waist.describe(data.items[0].question)
    return Folder(work, spec, model=model, about=about, session=session(waist.device_name))


@contextmanager
def _resumable(work: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(f"stopped; the same command goes on from the last checkpoint in {work}, if any") from None


def _shown_progress() -> Any:
    """Return a callback that updates a progress bar, its `tick`; `text` has the latest logged values."""
    from transformers import TrainerCallback

    class Shown(TrainerCallback):  # type: ignore[misc]
        tick: Tick
        text = ""

        def on_step_end(self, args: object, state: Any, control: object, **_: object) -> None:
            self.tick(state.global_step, state.max_steps)

        def on_log(self, args: object, state: Any, control: object, logs: Mapping[str, float], **_: object) -> None:
            words = {"loss": "loss", "adversary/loss": "adversarial loss", "reward": "reward"}
            words |= {"denoiser/mse": "mse", "denoiser/same_answer": "same answer"}
            words |= {"eval_clean_accuracy": "clean accuracy", "eval_robust_accuracy": "robust accuracy"}
            self.text = ", ".join(f"{word} {logs[key]:.3g}" for key, word in words.items() if key in logs)

    return Shown()
