"""Fixtures: tiny checkpoints built once a session, drawn images, and real data where a machine has it."""

from __future__ import annotations

import csv
import functools
import importlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import transformers
import typer.testing
from browsing import launched
from families import FAMILIES
from families.refused import REFUSED
from hypothesis import HealthCheck, settings
from packaging.version import Version
from PIL import Image

from safemed_eval.core import Question
from safemed_eval.models import load, resolve, tiny
from safemed_eval.models.checkpoints.load import upstream_fault
from safemed_eval.models.waist import Waist

os.environ.pop("COLUMNS", None)  # of whoever runs the tests: tables are as wide as in a file
# The same examples on every machine, however slow it draws them.
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")
importlib.import_module("safemed_eval.progress")._LINE_EVERY_S = math.inf  # a slow machine says no more than a fast one
os.environ["OMP_NUM_THREADS"] = "1"  # of commands that tests start
typer.testing._get_command = functools.cache(typer.main.get_command)  # built once, not anew for each command
torch.set_num_threads(1)  # tiny models gain nothing from more, and lose much where other work shares the cores

DEVICE = os.environ.get("SAFEMED_EVAL_TEST_DEVICE", "cpu")
DTYPE = os.environ.get("SAFEMED_EVAL_TEST_DTYPE", "float32")
"""Where, and in which precision, the conformance suite runs."""
torch.backends.cudnn.allow_tf32 = False  # it would hide differences behind its rounding

REAL_DATA = Path(os.environ.get("SAFEMED_EVAL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """A folder of real data by name; the test is skipped where it is not on this machine."""

    def find(name: str) -> Path:
        folder = REAL_DATA / name
        if not folder.exists():
            pytest.skip(f"no real data at {folder}; point SAFEMED_EVAL_TEST_DATA to the folder that holds it")
        return folder

    return find


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The folder of a tiny random-weight checkpoint of a family."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    families = {**FAMILIES, **{name: family for name, (family, _) in REFUSED.items()}}
    built: dict[str, Path] = {}

    def build(family: str) -> Path:
        if families[family].model_type not in transformers.CONFIG_MAPPING:
            pytest.skip(f"transformers {transformers.__version__} does not know this family yet")
        if fault := upstream_fault(families[family].model_type):
            pytest.skip(fault)
        if family.startswith(("idefics3", "chameleon")) and Version(torchvision.__version__) < Version("0.27"):
            pytest.skip("below torchvision 0.27 transformers resizes for this family on 8-bit images only")
        if family not in built:
            built[family] = tiny.build(families[family], tmp_path_factory.mktemp(family) / "model")
        return built[family]

    return build


@pytest.fixture(scope="session")
def waist(checkpoint: Checkpoint) -> Callable[[str], Waist]:
    """A loaded tiny checkpoint of a family, on `DEVICE` and in `DTYPE`."""
    loaded: dict[str, Waist] = {}

    def get(family: str) -> Waist:
        if family not in loaded:
            loaded[family] = load(resolve(str(checkpoint(family))), device=DEVICE, dtype=DTYPE)
        return loaded[family]

    return get


@pytest.fixture
def questions() -> list[Question]:
    """Three questions of different lengths and numbers of options."""
    return [
        Question(text="Which imaging modality is this?", options=("CT", "MRI", "X-Ray", "Ultrasound")),
        Question(text="Is there a lesion in the left lower lobe of the lung?", options=("Yes", "No")),
        Question(text="Grade?", options=("mild", "moderate", "severe")),
    ]


@pytest.fixture
def canvases() -> torch.Tensor:
    """Three smooth canvases of 56 x 56 on 8-bit grey levels."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 56), torch.linspace(0, 1, 56), indexing="ij")
    planes = [rows, columns, rows * columns]
    images = [torch.stack([planes[(i + k) % 3] * (0.9 - 0.2 * k) + 0.05 for k in range(3)]) for i in range(3)]
    return ((torch.stack(images) * 255).round() / 255).to(DEVICE)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Eight drawn images with a question each: two modalities, two question types, four patients."""
    return draw_table(tmp_path / "data")


def draw_table(folder: Path, rows: int = 8, **changes: Any) -> Path:
    """Write images and questions.csv; `changes` replaces columns of row 3."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with (folder / "questions.csv").open("w", newline="", encoding="utf-8") as file:
        fields = ["id", "image", "question", "option_a", "option_b", "option_c", "answer"]
        table = csv.DictWriter(file, [*fields, "modality", "question_type", "patient_id", "scanner"])
        table.writeheader()
        for number in range(rows):
            Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
            row: dict[str, Any] = {
                "id": f"q{number}",
                "image": f"{number}.png",
                "question": f"What is shown in image {number}?",
                "option_a": "a lung",
                "option_b": "a liver",
                "option_c": "an eye" if number % 2 else "",
                "answer": "a liver",
                "modality": "CT" if number < rows / 2 else "MRI",
                "question_type": "Disease Diagnosis" if number % 2 else "Anatomy Identification",
                "patient_id": f"p{number // 2}",
                "scanner": "S1",
            }
            table.writerow(row | (changes if number == 3 else {}))
    return folder / "questions.csv"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; see `browsing`."""
    with launched() as started:
        yield started
