"""What a run will cost, on models whose cost is known."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from safemed_eval import attacks, data
from safemed_eval import plan as module
from safemed_eval.cli import app
from safemed_eval.models.toy import Brightness
from safemed_eval.models.waist import Waist
from safemed_eval.plan import Cost, Pilot
from safemed_eval.smoothing import Sequential, Smoothing

CANVAS = data.Canvas(size=(24, 24))


def pilot(table: Path, model: object, batch: int = 8) -> Pilot:
    items = data.verify(data.load(f"table:{table}")).items
    return Pilot(Waist(model, torch.device("cpu")), items[:4], CANVAS, items=100, batch=batch, seed=0)


def test_hours_are_of_all_items_on_all_devices() -> None:
    cost = Cost(what="x", each=1100, spread=0, seconds=36.0, items=100)
    assert cost.calls == 110_000
    assert cost.hours(1) == pytest.approx(1.0) and cost.hours(8) == pytest.approx(1 / 8)


def test_fixed_sampling_costs_what_is_asked(table: Path) -> None:
    cost = pilot(table, Brightness()).fixed(Smoothing(sigma=0.25, n0=10, n=90), rate=50.0)
    assert (cost.each, cost.spread, cost.seconds) == (100, 0, 2.0)


def test_sequential_sampling_costs_what_the_pilot_took(table: Path) -> None:
    """Batches are drawn whole: an item that stops at draw 47 costs 48 copies in batches of 8."""
    spec, timed = Sequential(sigma=0.25, radii={"1s": 0.25}, n=400), pilot(table, Brightness())
    cost = timed.sequential(spec, rate=100.0)
    assert timed.model.forwards == cost.each * 4
    assert 0 < cost.each <= 400 and cost.each * 4 % 8 == 0
    assert cost.seconds == pytest.approx(cost.each / 100)


def test_an_attack_costs_the_passes_it_makes(table: Path) -> None:
    timed = pilot(table, Brightness())
    cost = timed.attack(attacks.parse("pgd:eps=4/255,steps=3,early_stop=no"))
    assert cost.each == 3 + 1 and cost.spread is None and cost.seconds > 0


def test_copies_are_timed_for_long_enough(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock by which a copy takes a hundredth of a second."""
    timed = pilot(table, Brightness())
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: timed.model.forwards / 100))
    assert timed.copies_per_second(0.25) == pytest.approx(100)
    assert timed.model.forwards > 100


def test_the_command_prints_costs(table: Path) -> None:
    model = ["--model", "python:safemed_eval.models.toy:brightness", "--data", f"table:{table}", "--canvas", "24x24"]
    asked = ["plan", *model, "--sigma", "0.25", "--n", "200", "--attack", "fgsm", "--pilot", "3", "--json"]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["pilot"] == 3
    assert [cost["items"] for cost in told["costs"]] == [8, 8, 8]
    fixed, sequential, attack = told["costs"]
    assert fixed["calls"] == 8 * 300 and sequential["each"] <= 200 and attack["what"].startswith("fgsm")
    assert fixed["hours"]["8"] == pytest.approx(fixed["hours"]["1"] / 8)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], "name what is to be planned"),
        (["--attack", "transfer:from=x"], "cannot be timed"),
        (["--sigma", "0.25", "--canvas", "native"], "name a size"),
        (["--sigma", "-1"], "sigma must be above 0"),
    ],
)
def test_what_cannot_be_planned_is_refused(asked: list[str], words: str, table: Path) -> None:
    model = ["--model", "python:safemed_eval.models.toy:brightness", "--data", f"table:{table}"]
    found = CliRunner().invoke(app, ["plan", *model, *asked])
    assert found.exit_code != 0 and words in str(found.exception) + found.output
