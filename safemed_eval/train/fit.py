"""From a recipe to a checkpoint, with TRL."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, SFTConfig

from safemed_eval.core import Item
from safemed_eval.data import Canvas
from safemed_eval.models.source import ABOUT
from safemed_eval.models.waist import Waist
from safemed_eval.train._log import Log
from safemed_eval.train._recipe import Recipe
from safemed_eval.train._rows import Rows
from safemed_eval.train._trainers import AdversarialGRPO, AdversarialSFT, reward_functions
from safemed_eval.train.adversary import Adversary

LOG = "log.jsonl"
_LOG_EVERY = 10


def fit(
    policy: Any,
    model: Waist,
    items: Sequence[Item],
    canvas: Canvas,
    recipe: Recipe,
    out: Path,
    *,
    about: Mapping[str, Any],
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Train, and save the checkpoint into `out`: the model or the adapter, its processor, and how it is asked.

    Log and intermediate checkpoints are in `out/training`; from the last of these a training that was stopped goes on.

    Args:
        policy: what is trained, and `model`, the same network behind the waist; see `models.load_to_train`.
        about: what the checkpoint says of its making.
    """
    vlm, work = model.scorer, out / "training"
    template = vlm.asking.template
    vlm.processor.tokenizer.padding_side = "left"  # prompts end where completions begin
    adversary = None
    if recipe.threats or recipe.noise_sigma:
        adversary = Adversary(model=model, threats=recipe.threats, noise_sigma=recipe.noise_sigma, seed=recipe.seed)
    rows = Rows(items=items, canvas=canvas, template=template)
    dataset = Dataset.from_dict({"index": list(range(len(items)))})
    dataset.set_transform(rows)
    shared: dict[str, Any] = {
        "model": policy.train(),
        "train_dataset": dataset,
        "processing_class": vlm.processor,
        "callbacks": [Log(work / LOG), *callbacks],
        "peft_config": _lora(recipe),
        "adversary": adversary,
    }
    work.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformers and TRL tell each other
        shared["args"] = _arguments(recipe, work / "checkpoints", cpu=model.device.type == "cpu")
        if recipe.groups:
            functions, weights = reward_functions(recipe.groups, template)
            shared["args"].reward_weights = weights
            trainer: Any = AdversarialGRPO(reward_funcs=functions, **shared)
        else:
            trainer = AdversarialSFT(**shared)
        trainer.remove_callback(PrinterCallback)
        place = Path(trainer.args.output_dir)
        last = get_last_checkpoint(str(place)) if place.is_dir() else None
        trainer.train(resume_from_checkpoint=last)
        trainer.save_model(str(out))
    if trainer.is_world_process_zero():
        (out / "training_args.bin").unlink(missing_ok=True)  # a pickle, which nobody needs to trust
        vlm.processor.save_pretrained(out)
        about = {**about, "template": asdict(template)}
        (out / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")
    trainer.accelerator.wait_for_everyone()


def _arguments(recipe: Recipe, place: Path, *, cpu: bool) -> Any:
    settings: dict[str, Any] = {
        "output_dir": str(place),
        "max_steps": recipe.steps or -1,
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.accumulate,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "logging_steps": _LOG_EVERY,
        "logging_first_step": True,
        "save_steps": recipe.save_every,
        "save_total_limit": 2,
        "bf16": recipe.bf16,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if recipe.gradient_checkpointing else None,
        "use_cpu": cpu,
        "seed": recipe.seed,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": not cpu,
    }
    if not recipe.groups:
        return SFTConfig(**settings, max_length=None, completion_only_loss=True)
    groups = recipe.groups
    if groups.vllm:
        settings |= {"use_vllm": True, "vllm_mode": groups.vllm}
    return GRPOConfig(
        **settings,
        num_generations=groups.size,
        max_completion_length=groups.max_new_tokens,
        temperature=groups.temperature,
        beta=groups.beta,
        loss_type="grpo",
        scale_rewards="group",
        epsilon=0.2,
        num_iterations=1,
        steps_per_generation=recipe.accumulate,
        log_completions=False,
    )


def _lora(recipe: Recipe) -> Any:
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    lora = recipe.lora
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha or 2 * lora.r,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
