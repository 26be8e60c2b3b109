"""Throughput as ratios, both sides in one run on the same machine: `python benchmarks/throughput.py`.

1. certify: noise samples/s of the whole CERTIFY procedure (n0 and n draws: noise, voting, counting) against a bare
   loop of model forwards on canvases that are ready. The bare loop is the limit.
2. PGD: gradient steps/s of our PGD against ART's ProjectedGradientDescent on the same wrapped model, and the time of
   an evaluation in which items leave the batch when they are flipped.

Two models: `tiny`, so cheap that everything around it shows, and `small`, whose forward costs what a real one's does
next to its noise: Qwen2.5-VL at 392 x 392 pixels, 6 layers each of vision and language, random weights.
"""

from __future__ import annotations

import copy
import functools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.utils import logging

from safemed_eval import attacks
from safemed_eval.core import Question
from safemed_eval.models import load, resolve, tiny
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Smoothing
from safemed_eval.smoothing.certify import certify

QUESTION = Question(text="Which imaging modality is this?", options=("CT", "MRI", "X-Ray", "Ultrasound"))
SIZE = (384, 384)
REPEATS = 5


def small() -> tiny.Family:
    """The tiny Qwen2.5-VL, grown."""
    config = copy.deepcopy(tiny.QWEN2_5_VL.config)
    config["text_config"] |= {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6}
    config["text_config"]["rope_parameters"]["mrope_section"] = [8, 12, 12]
    config["vision_config"] |= {"hidden_size": 256, "intermediate_size": 1024, "depth": 6, "out_hidden_size": 256}

    def images() -> object:
        pixels = {"shortest_edge": 392 * 392, "longest_edge": 392 * 392}
        return transformers.Qwen2VLImageProcessor(patch_size=14, merge_size=2, size=pixels)

    return replace(tiny.QWEN2_5_VL, config=config, image_processor=images)


def paired(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float, float]:
    """Median rates of both and the median of the ratios, the two sides taking turns."""
    ours(), theirs()
    rates = [(ours(), theirs()) for _ in range(REPEATS)]
    ratios = statistics.median(a / b for a, b in rates)
    return statistics.median(a for a, _ in rates), statistics.median(b for _, b in rates), ratios


def timed(work: Callable[[], object], units: int) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return units / (time.perf_counter() - started)


def bench_certify(name: str, model: Waist, n0: int, n: int, batch: int) -> None:
    canvas = torch.rand((3, *SIZE), generator=torch.Generator().manual_seed(0)).to(model.device)
    ready = canvas + 0.25 * torch.randn((batch, 3, *SIZE), device=model.device)
    vote = model.vote(QUESTION)
    smoothing = Smoothing(sigma=0.25, n0=n0, n=n)
    calls = (n0 + n) // batch

    def rng(purpose: str, chunk: int) -> torch.Generator:
        return generator(model.device, 0, purpose, chunk)

    ours, bare, ratio = paired(
        lambda: timed(functools.partial(certify, vote, canvas, smoothing, rng=rng, batch=batch), n0 + n),
        lambda: timed(lambda: [vote(ready) for _ in range(calls)], calls * batch),
    )
    print(f"certify  {name:6} ours {ours:8.1f} samples/s   bare forwards {bare:8.1f} samples/s   ratio {ratio:.3f}")


class Wrapped(torch.nn.Module):
    """The waist as a torch classifier for ART."""

    def __init__(self, model: Waist) -> None:
        super().__init__()
        self.model = model

    def forward(self, canvas: torch.Tensor) -> torch.Tensor:
        return self.model.classify([QUESTION] * len(canvas))(canvas)


def bench_pgd(name: str, model: Waist, rows: int, steps: int) -> None:
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    canvas = torch.rand((rows, 3, *SIZE), generator=torch.Generator().manual_seed(0)).to(model.device)
    classify = model.classify([QUESTION] * rows)
    labels = classify(canvas).argmax(1)
    device = "gpu" if model.device.type == "cuda" else "cpu"
    estimator = PyTorchClassifier(
        Wrapped(model), torch.nn.NLLLoss(), (3, *SIZE), 4, clip_values=(0.0, 1.0), device_type=device
    )
    settings = {"eps": 4 / 255, "eps_step": 1 / 255, "num_random_init": 0, "batch_size": rows, "verbose": False}
    art = ProjectedGradientDescent(estimator, max_iter=steps, **settings)
    images, one_hot = canvas.cpu().numpy(), np.eye(4)[labels.cpu().numpy()]
    plain = attacks.parse(f"pgd:eps=4/255,steps={steps},step=0.25,start=zero,early_stop=no")
    leaving = attacks.parse(f"pgd:eps=4/255,steps={steps},step=0.25,start=zero")
    streams = [generator(model.device, row) for row in range(rows)]

    def run(attack: attacks.Attack) -> Callable[[], object]:
        return lambda: attack(classify, canvas, labels, streams)

    units = rows * steps
    ours, theirs, ratio = paired(
        lambda: timed(run(plain), units), lambda: timed(lambda: art.generate(images, one_hot), units)
    )
    print(f"PGD      {name:6} ours {ours:8.1f} steps/s     ART {theirs:8.1f} steps/s             ratio {ratio:.3f}")
    ours, theirs, ratio = paired(
        lambda: timed(run(leaving), 1), lambda: timed(lambda: art.generate(images, one_hot), 1)
    )
    share = float((classify(leaving(classify, canvas, labels, streams).canvas).argmax(1) != labels).float().mean())
    print(f"PGD      {name:6} early leaving, {share:.0%} flipped: time of ART / ours {ratio:.2f}")


def main() -> None:
    logging.disable_progress_bar()
    accelerator = torch.cuda.is_available()
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}, "
        f"{os.cpu_count()} cores, {torch.cuda.get_device_name() if accelerator else 'no GPU'}; canvas {SIZE}, "
        f"medians of {REPEATS} turns each"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, family in (("tiny", tiny.QWEN2_5_VL), ("small", small())):
            model = load(resolve(str(tiny.build(family, Path(folder) / name))))
            n0, n, batch = (100, 1000, 64) if accelerator else ((100, 412, 16) if name == "tiny" else (20, 60, 16))
            bench_certify(name, model, n0, n, batch)
            bench_pgd(name, model, 8, 10 if name == "tiny" or accelerator else 4)


if __name__ == "__main__":
    main()
