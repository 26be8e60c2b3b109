"""What the adversary costs a training: CPU time a step of at-sft against sft, and of at-grpo against grpo, in turns.

    python benchmarks/train.py                   # the shipped model, five attack steps on all rows
    python benchmarks/train.py --memory CKPT     # memory of the inner loop at two images

The methods without an adversary are TRL's SFTTrainer and GRPOTrainer. A step is all that happens from one to the next:
loading and collating of rows, adversary, rollouts, and the update.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import QUESTION, machine
from PIL import Image
from transformers import TrainerCallback
from transformers.utils import logging

from safemed_eval import data, models
from safemed_eval.models.checkpoints.prompts import TEMPLATES
from safemed_eval.train import Groups, Method, Recipe, Threats
from safemed_eval.train.fit import fit
from safemed_eval.train.inner import adversary as inner
from safemed_eval.train.inner.adversary import Adversary

STEPS, TURNS = 5, 4
ATTACK = Threats(eps=8 / 255, steps=5, share=1.0, warm_up=0.0)
ROLLOUTS = Groups(size=8, max_new_tokens=8)
MODEL, IMAGES = "builtin:at-grpo", "phantom:split=train,images=1024"


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Notes the CPU time from the end of one step to the end of the next."""

    def __init__(self) -> None:
        self.spent: list[float] = []
        self._last: float | None = None

    def on_step_end(self, *_: object, **__: object) -> None:
        now = time.process_time()
        if self._last is not None:
            self.spent.append(now - self._last)
        self._last = now


def seconds_a_step(method: Method, chosen: data.Data) -> float:
    """Train a few steps and return the median of their CPU time; the first step is not counted."""
    recipe = Recipe(
        method=method,
        threats=ATTACK if method.startswith("at-") else None,
        groups=ROLLOUTS if "grpo" in method else None,
        steps=STEPS,
        batch_size=64 if "grpo" in method else 32,
        learning_rate=1e-6,
    )
    clock = _Clock()
    policy, waist = models.load_to_train(models.resolve(MODEL), device="cpu", dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        where = {"base": ("", None), "about": {}, "callbacks": [clock]}
        fit(policy, waist, chosen.items, chosen.canvas, recipe, Path(folder) / "new", **where)
    return statistics.median(clock.spent)


def times() -> None:
    chosen = data.load(IMAGES)
    for plain, attacked in (("sft", "at-sft"), ("grpo", "at-grpo")):
        ratios = []
        for _ in range(TURNS):
            without, with_it = seconds_a_step(plain, chosen), seconds_a_step(attacked, chosen)
            ratios.append(with_it / without)
            print(f"{plain} {without:.2f} s, {attacked} {with_it:.2f} s a step: {ratios[-1]:.2f}", flush=True)
        print(
            f"{attacked} takes {statistics.median(ratios):.2f} x the CPU time of {plain} (best turn {min(ratios):.2f})"
        )


def memory(folder: str) -> None:
    """Print the memory of the inner loop at two images of 224 x 224: what is kept for the gradient, and the peak."""
    rng = np.random.default_rng(0)
    pixels = [Image.fromarray(rng.integers(0, 255, (224, 224, 3), dtype=np.uint8)) for _ in range(2)]
    rows = [{"id": str(i), "question": QUESTION, "label": 0, "image": image} for i, image in enumerate(pixels)]
    asking = models.Asking(template=TEMPLATES["instruct"])
    policy, waist = models.load_to_train(models.resolve(folder), device="cpu", dtype="float32", asking=asking)
    policy.train()
    adversary = Adversary(model=waist, threats=Threats(eps=4 / 255, steps=1, share=1.0, warm_up=0.0))
    weights = sum(weight.numel() for weight in policy.parameters()) / 1e6
    print(f"{type(policy).__name__}, {weights:.0f} M parameters, two images")
    for checkpointed in (False, True):
        if checkpointed:
            policy.activation_checkpointing_enable({"use_reentrant": False})
        kept, peak = _kept(adversary, rows), _peak(adversary, rows)
        print(f"{'with' if checkpointed else 'without'} checkpointing: {kept:.0f} MB kept, {peak:.0f} MB at the peak")


def _kept(adversary: Adversary, rows: list[Any]) -> float:
    """The bytes, in MB, that one gradient's forward keeps for its backward, weights apart."""
    weights = {weight.untyped_storage().data_ptr() for weight in adversary.model.scorer.model.parameters()}
    live: dict[int, int] = {}
    slope = inner._slope

    def pack(saved: torch.Tensor) -> torch.Tensor:
        if saved.untyped_storage().data_ptr() not in weights:
            live[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    def watched(*given: Any) -> torch.Tensor:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            return slope(*given)

    inner._slope = watched
    try:
        adversary.perturb(rows)
    finally:
        inner._slope = slope
    return sum(live.values()) / 2**20


def _peak(adversary: Adversary, rows: list[Any]) -> float:
    """The most memory, in MB, that torch holds at once during the inner loop beyond what it held before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        adversary.perturb(rows)
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in profile.profiler.kineto_results.events()  # type: ignore[union-attr]
        if event.name() == "[memory]"
    )
    return float(np.cumsum([change for _, change in changes]).max()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", metavar="CKPT", help="a checkpoint to measure memory with")
    options = parser.parse_args()
    logging.disable_progress_bar()
    models.quiet_transformers()
    print(machine())
    if options.memory:
        memory(options.memory)
    else:
        times()


if __name__ == "__main__":
    main()
