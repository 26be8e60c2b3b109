"""The checkpoints that ship with the package: small, loadable like any other, and what their cards say."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from running import answers
from typer.testing import CliRunner

from safemed_eval import attacks, data
from safemed_eval.cli import app
from safemed_eval.models import Asking, load, load_to_train, resolve
from safemed_eval.models.check import check
from safemed_eval.models.checkpoints.prompts import TEMPLATES
from safemed_eval.models.waist import Waist
from safemed_eval.runs import read_lines
from safemed_eval.runs.work.evaluate import Evaluation

NAMES = ("sft", "at-grpo")
DATA = data.load("phantom:images=32")


@cache
def builtin(name: str, readout: str = "choice") -> Waist:
    return load(resolve(f"builtin:{name}"), asking=Asking(readout=readout, max_new_tokens=8))  # type: ignore[arg-type]


@cache
def accuracy(name: str, attack: str, readout: str = "choice") -> float:
    work = Evaluation(model=builtin(name, readout), canvas=DATA.canvas, seed=0, batch=64)
    records = [record for group in answers(work, DATA.items, [attacks.parse(attack)]) for record in group]
    assert not any(record["error"] for record in records)
    return sum(record["correct"] for record in records) / len(DATA.items)


@pytest.mark.parametrize("name", NAMES)
def test_small_with_a_card_and_nothing_pickled(name: str) -> None:
    folder = resolve(f"builtin:{name}").folder
    assert folder is not None
    assert sum(file.stat().st_size for file in folder.iterdir()) < 12e6
    assert not list(folder.glob("*.bin"))
    card = (folder / "README.md").read_text()
    assert f"safemed-eval train {name}" in card and "Not for clinical use" in card
    assert not re.search("/(home|root|tmp|Users)", card + (folder / "safemed_eval.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_passes_every_check(name: str) -> None:
    assert [finding for finding in check(builtin(name), (64, 64)) if finding.status != "pass"] == []


def test_the_ordinary_one_is_accurate_and_fragile() -> None:
    assert accuracy("sft", "clean") > 0.9
    assert accuracy("sft", "pgd:eps=8/255,steps=5") < 0.3


def test_the_robust_one_is_less_accurate_and_holds() -> None:
    assert 0.75 < accuracy("at-grpo", "clean") < accuracy("sft", "clean")
    assert accuracy("at-grpo", "pgd:eps=8/255,steps=5") > 0.45


@pytest.mark.parametrize("name", NAMES)
def test_writes_what_it_would_choose(name: str) -> None:
    """Generated and parsed, the answers are about as good as the likeliest letters."""
    assert accuracy(name, "clean", "generate") == pytest.approx(accuracy(name, "clean"), abs=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_python_asks_as_the_command_line_does(name: str, tmp_path: Path) -> None:
    """In the words of its training. In those of any other checkpoint 3 or 2 of these eight would be wrong."""
    command = ["evaluate", "--model", f"builtin:{name}", "--data", "phantom:images=3", "--batch-size", "8"]
    outcome = CliRunner().invoke(app, [*command, "--limit", "8", "--out", str(tmp_path / "run")])
    assert outcome.exit_code == 0 and "warning" not in outcome.stderr, outcome.output
    records = {record["item"]: record for record in read_lines(tmp_path / "run")}
    items = [item for item in data.load("phantom:images=3").items if item.id in records]
    canvas = torch.stack([data.canvas_of(item, DATA.canvas) for item in items])
    model = load(resolve(f"builtin:{name}"))
    found = model.answer(canvas, [item.question for item in items])
    assert [found.predictions, len(items)] == [[item.label for item in items], 8]
    for item, row in zip(items, found.log_probs or (), strict=True):
        assert row == pytest.approx(records[item.id]["log_probs"], abs=1e-4)
    _, to_train = load_to_train(resolve(f"builtin:{name}"))
    assert to_train.scorer.prompt(items[0].question, "") == model.scorer.prompt(items[0].question, "")
    letter = load(resolve(f"builtin:{name}"), asking=Asking(template=TEMPLATES["letter"]))
    assert letter.scorer.template == TEMPLATES["letter"], "what is asked for wins"


def test_other_words_than_those_of_the_training_are_warned_of_once(tmp_path: Path) -> None:
    command = ["evaluate", "--model", "builtin:sft", "--data", "phantom", "--limit", "1", "--template"]
    for template, lines in (("letter", 1), ("instruct", 0)):
        outcome = CliRunner().invoke(app, [*command, template, "--out", str(tmp_path / template)])
        assert outcome.exit_code == 0, outcome.output
        assert outcome.stderr.count("builtin:sft was trained on other words") == lines
