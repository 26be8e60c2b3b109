"""Shared parts of the benchmarks: models, questions, and timing of several sides in turns."""

from __future__ import annotations

import copy
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from transformers.utils import logging

from safemed_eval import data
from safemed_eval.core import Item, Question
from safemed_eval.models import load, resolve, tiny
from safemed_eval.models.waist import Waist

QUESTION = Question(text="Which imaging modality is this?", options=("CT", "MRI", "X-Ray", "Ultrasound"))
REPEATS = 5


def small() -> tiny.Family:
    """Return an enlarged tiny Qwen2.5-VL, whose forward pass costs as much relative to its noise as a real one's."""
    config = copy.deepcopy(tiny.QWEN2_5_VL.config)
    config["text_config"] |= {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6}
    config["text_config"]["rope_parameters"]["mrope_section"] = [8, 12, 12]
    config["vision_config"] |= {"hidden_size": 256, "intermediate_size": 1024, "depth": 6, "out_hidden_size": 256}

    def images() -> object:
        pixels = {"shortest_edge": 392 * 392, "longest_edge": 392 * 392}
        return transformers.Qwen2VLImageProcessor(patch_size=14, merge_size=2, size=pixels)

    return replace(tiny.QWEN2_5_VL, config=config, image_processor=images)


@contextmanager
def models() -> Iterator[dict[str, tuple[Waist, tuple[int, int]]]]:
    """Yield the models with their canvases: the shipped checkpoint, and a random one with a forward pass of 100 ms."""
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        grown = tiny.build(small(), Path(folder) / "small")
        yield {
            "builtin:sft": (load(resolve("builtin:sft")), (64, 64)),
            "small": (load(resolve(str(grown))), (384, 384)),
        }


def phantom(items: int) -> tuple[tuple[Item, ...], data.Canvas]:
    """Return questions of the test split with four options, about different images."""
    loaded = data.load(f"phantom:images={items}")
    first = {item.image: item for item in loaded.items if len(item.question.options) == 4}
    return tuple(first.values())[:items], loaded.canvas


def in_turns(sides: Mapping[str, Callable[[], float]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Measure the rates of several sides, each warmed up once, in turns."""
    for side in sides.values():
        side()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            rates[name].append(side())
    return rates


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of rates within a turn."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def rate_of(work: Callable[[], object], units: int) -> float:
    """Do the work, and return its rate in units per second."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return units / (time.perf_counter() - started)


def machine() -> str:
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"torch {torch.__version__} ({torch.get_num_threads()} threads), transformers {transformers.__version__}, "
        f"{platform.machine()}, {os.cpu_count()} cores, {accelerator}"
    )


class Wrapped(torch.nn.Module):
    """A waist wrapped as a classifier of one question, for other libraries."""

    def __init__(self, model: Waist, question: Question) -> None:
        super().__init__()
        self.waist, self.question = model, question

    def forward(self, canvas: torch.Tensor) -> torch.Tensor:
        return self.waist.classify([self.question] * len(canvas))(canvas)


def art_device(model: Waist) -> str:
    return "gpu" if model.device.type == "cuda" else "cpu"
