"""A trainer whose log is whole after a stop, whose means weigh every row alike, and whose first step trains."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from safemed_eval.codec import Json
from safemed_eval.files import write_whole

WINDOW = "window.json"
"""File in an intermediate checkpoint: what was measured since the last line of the log."""


class Means:
    """Weighted means of what was measured since the last line of the log, over all processes.

    `add` is called in any process at any time; `gather` in all of them together.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, name: str, value: float, weight: float) -> None:
        """Count a mean over `weight` rows."""
        total, weights = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (total + weight * value, weights + weight)

    def gather(self) -> dict[str, tuple[float, float]]:
        """Add up the processes' (sum of weighted values, sum of weights) by name."""
        summed: dict[str, tuple[float, float]] = {}
        for sums in gather_object([self._sums]):
            for name, (total, weights) in sums.items():
                before = summed.get(name, (0.0, 0.0))
                summed[name] = (before[0] + total, before[1] + weights)
        return summed

    def reset(self, sums: dict[str, tuple[float, float]] | None = None) -> None:
        """Begin anew, with these sums."""
        self._sums = dict(sums or {})


def rate(step: int, *, warm_up: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0, as a share of the highest.

    It rises as (step + 1) / warm_up, and then falls as a half cosine. Differs from transformers' schedule in the
    warm-up alone: there it is step / warm_up, so that the first step trains nothing.
    """
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up)))) / 2


class Watched(Trainer):  # type: ignore[misc]
    """The base of our trainers, before TRL's or transformers' own in the order of bases.

    An intermediate checkpoint also holds what was measured since the last line of the log, and what is counted from
    the beginning. After a resumption means, `train_loss`, `train_runtime` and `num_tokens` are therefore those of the
    whole training; the speeds in the last line of the log are those of the last start.

    Attributes:
        means: weighted means that the next line of the log will have.
    """

    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.means = Means()
        self._begun, self._earlier_s = time.monotonic(), 0.0
        self.add_callback(_Restore(self))

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> object:
        if self.lr_scheduler is None:
            warm_up = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, partial(rate, warm_up=warm_up, steps=num_training_steps)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def log(self, logs: dict[str, float], *args: object, **kwargs: object) -> None:
        if "train_loss" in logs:
            logs["train_loss"] = self._total_loss_scalar / max(1, self.state.global_step)
            logs["train_runtime"] += self._earlier_s
        weighted = {name: total / weights for name, (total, weights) in self.means.gather().items() if weights}
        self.means.reset()
        super().log({**logs, **weighted}, *args, **kwargs)

    def _save_checkpoint(self, model: object, trial: object) -> None:
        window = self._window()
        if self.args.should_save:
            folder = self.checkpoint(self.state.global_step)
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / WINDOW, json.dumps(window))
        super()._save_checkpoint(model, trial)  # rotates checkpoints, and writes last what marks this one as complete

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the intermediate checkpoint of a step."""
        return Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"

    def load_step(self, step: int) -> None:
        """Load the weights of the intermediate checkpoint of a step, unless they are the present ones."""
        if step == self.state.global_step:
            return
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            self.state.best_model_checkpoint = str(self.checkpoint(step))
            self._load_best_model()
        else:
            self._load_from_checkpoint(str(self.checkpoint(step)))

    def _window(self) -> Json:
        """Collect, from all processes, what the next lines of the log depend on."""
        losses = self.accelerator.gather(self._tr_loss.detach().reshape(1).to(self.args.device))
        return {
            "loss": losses.mean().item(),
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "means": self.means.gather(),
            "metrics": dict(getattr(self, "_metrics", {}).get("train", {})),
            "tokens": getattr(self, "_total_train_tokens", 0),
            "seconds": self._earlier_s + time.monotonic() - self._begun,
        }

    def begin(self) -> None:
        """Restore what the checkpoint that the training goes on from holds of its log; see `_window`."""
        self._begun = time.monotonic()
        file = self.checkpoint(self.state.global_step) / WINDOW
        if not self.state.global_step or not file.is_file():
            return
        window: Json = json.loads(file.read_text(encoding="utf-8"))
        self._tr_loss += window["loss"]
        self._total_loss_scalar = window["total_loss"]
        self._globalstep_last_logged = window["last_logged"]
        self._earlier_s = window["seconds"]
        if self.is_world_process_zero():
            self.means.reset({name: (total, weights) for name, (total, weights) in window["means"].items()})
        if hasattr(self, "_metrics"):
            self._metrics["train"] = defaultdict(list, window["metrics"])
            self._total_train_tokens = window["tokens"]


class _Restore(TrainerCallback):  # type: ignore[misc]
    """Calls `begin` once the trainer has reset its counters."""

    def __init__(self, trainer: Watched) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: object, state: TrainerState, control: object, **_: object) -> None:
        self._trainer.begin()
