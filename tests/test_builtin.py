"""The checkpoints that ship with the package: small, loadable like any other, and what their cards say."""

from __future__ import annotations

import re
from functools import cache

import pytest

from safemed_eval import attacks, data
from safemed_eval.evaluate import Evaluation
from safemed_eval.models import Asking, load, resolve
from safemed_eval.models.check import check
from safemed_eval.models.waist import Waist

NAMES = ("sft", "at-grpo")
DATA = data.load("phantom:images=32")


@cache
def builtin(name: str, readout: str = "choice") -> Waist:
    source = resolve(f"builtin:{name}")
    assert source.template is not None
    return load(source, asking=Asking(readout=readout, template=source.template, max_new_tokens=8))  # type: ignore[arg-type]


@cache
def accuracy(name: str, attack: str, readout: str = "choice") -> float:
    work = Evaluation(model=builtin(name, readout), canvas=DATA.canvas, seed=0, batch=64)
    records = [record for group in work.run(DATA.items, [attacks.parse(attack)]) for record in group]
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
