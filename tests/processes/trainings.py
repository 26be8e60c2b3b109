"""Run trainings one after the other in each process of `torch.distributed.run`.

    python -m torch.distributed.run --nproc_per_node 2 tests/processes/trainings.py JOBS.json

JOBS.json lists trainings: strategy ("ddp", "fsdp" or "sharded-state": FSDP2 with checkpoints in parts), method,
options of `train`, and the folder. What each process saw is written beside the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import state
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from safemed_eval.errors import UserError
from safemed_eval.models import find_model
from safemed_eval.train import _loop, _trainers, fit, make, rewards
from safemed_eval.train.inner.modes import in_eval_mode

FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
STRATEGIES: dict[str, dict[str, str]] = {
    "ddp": {},
    "fsdp": FSDP,
    "sharded-state": FSDP | {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"},
}
"""What `accelerate launch` would set."""


def made(monkeypatch: pytest.MonkeyPatch, *, model: str, method: str, out: str, options: dict[str, Any]) -> Path:
    """Train, with a log line for each step, and a reward that random weights earn now and then."""
    monkeypatch.setattr(_loop, "LOG_EVERY", 1)
    monkeypatch.setattr(rewards, "correct", lambda text, question, label: float(sum(map(ord, text)) % 4 == label))
    data = "phantom:split=train,images=16"
    monkeypatch.setattr(make, "figure", lambda folder: None)
    arguments, is_complete = fit._arguments, make._is_complete

    def together(out: Path, spec: Any) -> bool:  # in a launch of its own, processes meet after this check, not before
        complete = is_complete(out, spec)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        return complete

    monkeypatch.setattr(make, "_is_complete", together)

    def cut_off_too(*args: Any, **kwargs: Any) -> Any:  # random weights hardly ever end their turn
        told = arguments(*args, **kwargs)
        told.mask_truncated_completions = False
        return told

    monkeypatch.setattr(fit, "_arguments", cut_off_too)
    return make.train(method, find_model(model, device="cpu"), data, out=out, **options)  # type: ignore[arg-type]


def _fsdp_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate shards on accelerators only; torch shards on CPUs as well."""
    begin = state.AcceleratorState.__init__

    def begun(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            state.PartialState._shared_state["distributed_type"] = self.distributed_type

    monkeypatch.setattr(state.AcceleratorState, "__init__", begun)


def _watch(monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any]) -> None:
    loss = _trainers._Sharded.compute_loss

    def noted(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen["processes"] = self.accelerator.num_processes
        seen["sharded"] = sum(isinstance(weight, DTensor) for weight in model.parameters())
        return loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(_trainers._Sharded, "compute_loss", noted)
    attacked = _trainers.AdversarialGRPO._attacked

    def uneven(self: Any, inputs: Any) -> Any:
        """Let the second process alone write texts, and read an image afterwards, before the attack."""
        network = self._adversary.model.scorer.model
        if os.environ["RANK"] == "1":
            token = torch.full((1, 1), 5)
            with in_eval_mode(network), _trainers.whole_weights(self):
                for _ in range(2):
                    network.generate(input_ids=token, max_new_tokens=2, do_sample=False, logits_processor=[])
                self._adversary.perturb(inputs[:1])
            seen["alone"] = True
        return attacked(self, inputs)

    monkeypatch.setattr(_trainers.AdversarialGRPO, "_attacked", uneven)


def _run(job: dict[str, Any]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    state.AcceleratorState._reset_state(reset_partial_state=True)
    state.GradientState._reset_state()
    asked = {name: job[name] for name in ("model", "method", "out", "options")}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in STRATEGIES[job["strategy"]].items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        _fsdp_on_cpus(monkeypatch)
        _watch(monkeypatch, seen)
        try:
            made(monkeypatch, **asked)
            if job.get("cut"):
                _cut(Path(job["out"]), job["cut"])
                made(monkeypatch, **asked)
        except UserError as error:
            seen["error"] = str(error)
    return seen


def _cut(out: Path, last: int) -> None:
    """Leave of a complete training what one that was killed after step `last` leaves; keep its weights beside it."""
    torch.distributed.barrier()
    if os.environ["RANK"] == "0":
        for file in out.glob("*.safetensors"):
            shutil.copy(file, f"{out}-{file.name}")
            file.unlink()
        (out / "safemed_eval.json").unlink()
        for place in (out / "training/checkpoints").glob("checkpoint-*"):
            if int(place.name.rpartition("-")[2]) > last:
                shutil.rmtree(place)
    torch.distributed.barrier()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for each in json.loads(Path(sys.argv[1]).read_text()):
        found = _run(each)
        Path(f"{each['out']}.rank{os.environ['RANK']}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
