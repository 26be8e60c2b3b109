"""Training of a checkpoint by a recipe, with TRL."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, SFTConfig

from safemed_eval.codec import Json
from safemed_eval.core import TRAINED_ON, Item
from safemed_eval.data import Canvas, write_seen
from safemed_eval.errors import DataError
from safemed_eval.files import write_whole
from safemed_eval.models.checkpoints.generate import Writer
from safemed_eval.models.checkpoints.parts import freeze, linear_layers
from safemed_eval.models.checkpoints.prompts import stopped_clock, thinks
from safemed_eval.models.checkpoints.protocols import Network
from safemed_eval.models.checkpoints.vlm import VLM
from safemed_eval.models.files.notes import ABOUT
from safemed_eval.models.waist import Waist
from safemed_eval.train import _loop
from safemed_eval.train._log import Log
from safemed_eval.train._rows import Row, Rows
from safemed_eval.train._shards import save_whole
from safemed_eval.train._trainers import AdversarialGRPO, AdversarialSFT
from safemed_eval.train._vllm import read_vllm
from safemed_eval.train.inner.adversary import Adversary
from safemed_eval.train.inner.objectives import Policy, Tokens
from safemed_eval.train.log import CHECKPOINTS, LOG, WORK, remove_checkpoints
from safemed_eval.train.recipe import WARM_UP, Recipe
from safemed_eval.train.rewards.called import earned, reward_functions, rewarding
from safemed_eval.train.watch.samples import Sampler
from safemed_eval.train.watch.settings import default_attack
from safemed_eval.train.watch.trainer import Watched
from safemed_eval.train.watch.validate import Validator
from safemed_eval.train.watch.watcher import Watcher, outcome_of

_WRITTEN_TOKENS = {False: 32, True: 256}
"""Longest answer in evaluations and samples of supervised fine-tuning, under a template without and with a thought."""


def fit(
    policy: Any,
    model: Waist,
    items: Sequence[Item],
    canvas: Canvas,
    recipe: Recipe,
    out: Path,
    *,
    base: tuple[str, str | None],
    about: Mapping[str, object],
    seen: Sequence[Path] = (),
    held_out: Sequence[Item] = (),
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Train, and save the checkpoint into `out`: the model or the adapter, its processor, and its prompt template.

    Log and intermediate checkpoints are in `out/training`; a stopped training resumes from the last of these.

    Args:
        policy: the network or adapter to train.
        model: the same network behind the waist; see `models.load_to_train`.
        base: name and hub commit of the base that a new adapter refers to; see `Source.reference`.
        about: description of the training, saved with the checkpoint.
        seen: files with digests of images that earlier trainings used; see `data.write_seen`.
        held_out: the validation data, on the same canvas, for a recipe with `validation`.
    Raises:
        RunError: training has broken the model, or the disk is full.
        DataError: there are too few data for one batch.
        SpecError: the network lacks a part that is to be frozen, or layers that an adapter is to be put on.
    """
    _loop.send_no_telemetry()
    vlm, work = model.scorer, out / WORK
    template = vlm.template
    vlm.processor.tokenizer.padding_side = "left"  # prompts end where completions begin
    functions, weights = reward_functions(recipe.groups, vlm) if recipe.groups else ([], [])
    if recipe.freeze:
        freeze(policy, recipe.freeze)
    adversary = None
    if recipe.threats or recipe.noise_sigma or recipe.ablate:
        adversary = Adversary(
            model=model,
            threats=recipe.threats,
            at_once=recipe.batch_size,
            policy=policy_of(recipe, vlm, earned(functions, weights, vlm), sum(weights)),
            noise_sigma=recipe.noise_sigma,
            ablate=recipe.ablate,
            seed=recipe.seed,
        )
    rows = Rows(items=items, canvas=canvas, template=template)
    dataset = Dataset.from_dict({"index": list(range(len(items)))})
    dataset.set_transform(rows)
    shared: Json = {
        "model": policy.train(),
        "train_dataset": dataset,
        "processing_class": vlm.processor,
        "callbacks": [Log(work / LOG), *callbacks],
        "peft_config": _lora(recipe, policy),
        "adversary": adversary,
    }
    work.mkdir(parents=True, exist_ok=True)
    configs = (policy.config, policy.config.get_text_config())
    caching = [vars(config).get("use_cache") for config in configs]
    with warnings.catch_warnings(), stopped_clock():
        warnings.simplefilter("ignore")  # of transformers and TRL
        shared["args"] = _arguments(recipe, work / CHECKPOINTS, cpu=model.device.type == "cpu")
        if recipe.groups:
            shared["args"].reward_weights = weights
            shared |= {"resample": recipe.groups.resample_agreeing, "placeholders": vlm.placeholders}
            trainer: Any = AdversarialGRPO(reward_funcs=functions, **shared)
        else:
            trainer = AdversarialSFT(**shared)
        trainer.remove_callback(PrinterCallback)
        watcher = _watcher(trainer, model, recipe, held_out or items, canvas, work)
        trainer.add_callback(watcher)
        with _loop.naming_what_broke(policy), _loop.writing(out):
            trainer.train(resume_from_checkpoint=_loop.last_checkpoint(Path(trainer.args.output_dir)))
        state = trainer.state
        if state.global_step < state.max_steps and not watcher.stopped:
            raise DataError(
                f"only {state.global_step} of {state.max_steps} steps were made: too few data for one batch"
            )
        if recipe.validation:
            chosen = outcome_of(state, recipe.validation, stopped=watcher.stopped)
            about = {**about, "validation": chosen}
            with _loop.writing(out):
                trainer.load_step(chosen["step"])
        _loop.refuse_broken(policy, together=True)
        for config, value in zip(configs, caching, strict=True):
            vars(config).pop("use_cache", None)  # switched off by trainers, which must not reach the checkpoint
            if value is not None:
                config.use_cache = value
        with _loop.writing(out):
            save_whole(trainer, out)
    if trainer.is_world_process_zero():
        with _loop.writing(out):
            _tidy(out, base)
            vlm.processor.save_pretrained(out)
            write_seen(out / TRAINED_ON, items, seen)
            about = {**about, "template": asdict(template)}
            write_whole(out / ABOUT, json.dumps(about, indent=2, ensure_ascii=False))  # complete from here on
            if not recipe.watch.keep_checkpoints:
                remove_checkpoints(work)
    trainer.accelerator.wait_for_everyone()


def policy_of(
    recipe: Recipe, vlm: VLM, rewards: Callable[[Sequence[Row], Sequence[Tokens]], list[float]], most: float
) -> Policy | None:
    """The policy as the adversary of GRPO samples from it."""
    if recipe.groups is None:
        return None
    groups = recipe.groups
    asking = replace(
        vlm.asking, readout="generate", temperature=groups.temperature, max_new_tokens=groups.max_new_tokens
    )
    return Policy(
        writer=Writer(vlm.model, vlm.processor, asking),
        size=groups.size,
        at_once=recipe.batch_size,
        rewards=rewards,
        most=most,
        seed=recipe.seed,
    )


def _watcher(
    trainer: Watched, model: Waist, recipe: Recipe, items: Sequence[Item], canvas: Canvas, work: Path
) -> Watcher:
    """Return the callback that evaluates on these items, and draws samples of them."""
    groups, validation = recipe.groups, recipe.validation
    tokens = groups.max_new_tokens if groups else _WRITTEN_TOKENS[thinks(model.scorer.template)]
    validator, sampler = None, None
    if validation:
        validator = Validator(model, items, canvas, validation.attack, seed=recipe.seed, max_new_tokens=tokens)
    if recipe.samples:
        sampler = Sampler(
            model,
            items,
            canvas,
            validation.attack if validation else default_attack(recipe.threats.ball if recipe.threats else None),
            work,
            count=recipe.samples,
            rewarded=rewarding(groups, model.scorer),
            max_new_tokens=tokens,
            temperature=groups.temperature if groups else 0.0,
            seed=recipe.seed,
        )
    return Watcher(trainer, validation, validator, sampler)


def _tidy(out: Path, base: tuple[str, str | None]) -> None:
    """Remove what should not be shared: pickles, the reference adapter, and paths that exist only on this machine."""
    (out / "training_args.bin").unlink(missing_ok=True)
    shutil.rmtree(out / "ref", ignore_errors=True)
    settings = out / "adapter_config.json"
    if settings.is_file():
        adapter = json.loads(settings.read_text(encoding="utf-8"))
        adapter["base_model_name_or_path"], adapter["revision"] = base
        settings.write_text(json.dumps(adapter, indent=2), encoding="utf-8")


def _arguments(recipe: Recipe, place: Path, *, cpu: bool) -> Any:
    shared = {name: getattr(recipe, name) for name in ("batch_size", "save_every", "seed", "watch")}
    settings = _loop.arguments(place, steps=recipe.steps or -1, **shared, cpu=cpu) | {
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": WARM_UP,
        "gradient_accumulation_steps": recipe.accumulate,
        "weight_decay": recipe.weight_decay,
        "bf16": recipe.bf16,
        "dataloader_num_workers": recipe.loader_workers,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if recipe.gradient_checkpointing else None,
    }
    if not recipe.groups:
        return SFTConfig(**settings, max_length=None, completion_only_loss=True)
    groups = recipe.groups
    if groups.vllm:
        settings |= read_vllm(groups.vllm).of_trl
    return GRPOConfig(
        **settings,
        num_generations=groups.size,
        max_completion_length=groups.max_new_tokens,
        temperature=groups.temperature,
        beta=groups.beta,
        loss_type=groups.loss.replace("-", "_"),
        scale_rewards="none" if groups.loss == "dr-grpo" else "group",
        epsilon=0.2,
        num_iterations=1,
        use_bias_correction_kl=False,
        mask_truncated_completions=groups.mask_truncated,
        steps_per_generation=recipe.accumulate,
        log_completions=False,
        ds3_gather_for_generation=groups.vllm is not None,  # whole already, see `whole_weights`
    )


def _lora(recipe: Recipe, network: Network) -> Any:
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    lora = recipe.lora
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha or 2 * lora.r,
        lora_dropout=lora.dropout,
        target_modules="all-linear" if lora.targets == "all" else linear_layers(network, lora.targets),
        task_type="CAUSAL_LM",
    )
