"""A trainer callback that writes the training log: one JSON object a line, consistent after stops and resumptions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from safemed_eval.codec import Json
from safemed_eval.errors import RunError
from safemed_eval.files import write_whole
from safemed_eval.train.log import read_log


class Log(TrainerCallback):  # type: ignore[misc]
    """Appends what the trainer logs; at a resumption, drops the lines after the checkpoint.

    Raises:
        RunError: the loss is not finite.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_begin(self, args: object, state: Any, control: object, **_: object) -> None:
        if state.is_world_process_zero:
            kept = [line for line in read_log(self.file) if line["step"] <= state.global_step]
            write_whole(self.file, "".join(json.dumps(line) + "\n" for line in kept))

    def on_log(self, args: object, state: Any, control: object, logs: Json, **_: object) -> None:
        plain = {
            key.replace("eval_", "eval/", 1) if key.startswith("eval_") else key: value
            for key, value in logs.items()
            if isinstance(value, (int, float, str))
        }
        finite = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in plain.items()}
        if state.is_world_process_zero:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": state.global_step, **finite}) + "\n")
        if "loss" in finite and finite["loss"] is None:
            raise RunError(
                f"the loss is not finite at step {state.global_step}: training has broken the model; try a lower "
                "--learning-rate in another --out"
            )
