"""Shared parts of the training loops: arguments, checkpoints to resume from, and the handling of failures."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from huggingface_hub import constants
from safetensors import SafetensorError
from transformers.trainer_utils import get_last_checkpoint

from safemed_eval.errors import ModelOutputError, RunError
from safemed_eval.train._shards import part_here
from safemed_eval.train.watch.settings import NO_REPORTER, Watch

LOG_EVERY = 10
_TORCH_WRITER = "inline_container"
"""The source file that torch's error message names when it cannot write, whatever the reason."""


def arguments(
    place: Path, *, steps: int, batch_size: int, save_every: int, seed: int, watch: Watch, cpu: bool
) -> dict[str, Any]:
    """Return keyword arguments of transformers' `TrainingArguments`; intermediate checkpoints are saved in `place`.

    Args:
        place: `training/checkpoints` in the folder of the new checkpoint, whose name trackers get.
        steps: number of optimizer steps; -1: as many as the epochs need.
    """
    return {
        "output_dir": str(place),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "logging_steps": LOG_EVERY,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_steps": save_every,
        "save_total_limit": watch.keep,
        "use_cpu": cpu,
        "seed": seed,
        "run_name": place.parent.parent.name,
        "report_to": list(watch.report_to) or NO_REPORTER,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": not cpu,
    }


def send_no_telemetry() -> None:
    """Set the hub's own switch: TRL would else tell huggingface.co of each training when a trainer is made."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    vars(constants)["HF_HUB_DISABLE_TELEMETRY"] = True  # its library has been read already


def last_checkpoint(place: Path) -> str | None:
    """Return the newest complete checkpoint; incomplete ones, left by a process that was killed, are removed."""
    while place.is_dir() and (newest := get_last_checkpoint(str(place))):
        last = str(newest)
        try:
            json.loads((Path(last) / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(last, ignore_errors=True)
        else:
            return last
    return None


@contextmanager
def naming_what_broke(trained: torch.nn.Module) -> Iterator[None]:
    """Convert errors caused by NaN, in the adversary or in sampling, into a RunError that says that training failed.

    Raises:
        RunError: a weight is not finite, or the model's answers or gradients are not.
    """
    try:
        yield
    except (ModelOutputError, RuntimeError, ValueError) as error:
        try:
            refuse_broken(trained)
        except RunError as named:
            raise named from error
        if isinstance(error, ModelOutputError):
            raise RunError(f"training has broken the model: {error}; try a lower --learning-rate") from error
        raise


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Convert the errors of three libraries on a full disk into a RunError; the training can be resumed later."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
    except SafetensorError as error:
        why = str(error)
    except RuntimeError as error:
        if _TORCH_WRITER not in str(error):
            raise
        why = "torch could not save; is the disk full?"
    else:
        return
    raise RunError(f"{out}: cannot be written: {why}; the same command goes on from the last checkpoint, if any")


def refuse_broken(trained: torch.nn.Module, *, together: bool = False) -> None:
    """Raise RunError where a weight is not finite, in the part of it that this process holds.

    Args:
        together: all processes call this, and all raise where the part of any is not finite.
    """
    broken = [name for name, weight in trained.named_parameters() if not bool(part_here(weight).isfinite().all())]
    if together:
        broken = gather_object(broken)
    if broken:
        raise RunError(f"training has broken the model, {broken[0]} is not finite; try a lower --learning-rate")
