"""What all trainings have in common: the folder, the device, and what is shown on the way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safemed_eval import data as datasets
from safemed_eval import grammar
from safemed_eval.cli._options import DataOptions
from safemed_eval.cli._show import Tick
from safemed_eval.cli._training import FitOptions
from safemed_eval.errors import RunError, SpecError
from safemed_eval.models.files.notes import ABOUT
from safemed_eval.runs import META, Folder, refuse_other_spec, session
from safemed_eval.train.log import WORK

if TYPE_CHECKING:
    import torch

    from safemed_eval.models.waist import Waist


def draw(work: Path) -> None:
    from safemed_eval.report.training import figure

    figure(work)


def complete(out: Path, spec: Mapping[str, Any]) -> bool:
    """Whether this very training has been done there; RunError where the folder holds anything else."""
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


def refuse_senseless(train: FitOptions, data: DataOptions) -> None:
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


def training_device(option: str) -> torch.device:
    """The device of this process."""
    import torch
    from accelerate import PartialState

    if torch.cuda.device_count() > 1 and "RANK" not in os.environ and option != "cpu":
        raise SpecError(
            "several GPUs: start with accelerate launch -m safemed_eval train ..., or choose one GPU with "
            "CUDA_VISIBLE_DEVICES"
        )
    device: torch.device = PartialState(cpu=option == "cpu").device
    return device


def training_folder(
    work: Path, spec: Mapping[str, Any], waist: Waist, data: datasets.DataSet, about: Mapping[str, Any]
) -> Folder:
    model = waist.describe(data.items[0].question)
    return Folder(work, spec, model=model, about=about, session=session(waist.device_name))


def shown_progress() -> Any:
    """Tells a progress bar, its `tick`, how far the training is; `text` is the latest figures."""
    from transformers import TrainerCallback

    class Shown(TrainerCallback):  # type: ignore[misc]
        tick: Tick
        text = ""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.tick(state.global_step, state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
            words = {"loss": "loss", "adversary/loss": "adversarial loss", "reward": "reward"}
            words |= {"denoiser/mse": "mse", "denoiser/same_answer": "same answer"}
            self.text = ", ".join(f"{word} {logs[key]:.3g}" for key, word in words.items() if key in logs)

    return Shown()
