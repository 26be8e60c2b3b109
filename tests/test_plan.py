"""Cost estimates for models of known cost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_cli import call
from typer.testing import CliRunner

from safemed_eval import api, attacks, data, progress
from safemed_eval.api import Plan
from safemed_eval.cli import app
from safemed_eval.core import Question
from safemed_eval.models.toy import Brightness
from safemed_eval.models.waist import Waist
from safemed_eval.runs.plan import BUDGET_S, Cost, Pilot, Rate
from safemed_eval.smoothing import Gaussian, Sequential, Smoothing
from safemed_eval.smoothing.offers import Offer

CANVAS = data.Canvas(size=(24, 24))


RATE = Rate(copies=50, seconds=1.0, rows=8)


class Slow(Brightness):
    """Takes this long for a row, on a clock of its own; Ctrl-C is pressed at one call."""

    def __init__(self, seconds: float, pressed: int | None = None) -> None:
        super().__init__()
        self.seconds, self.pressed, self.now, self.calls = seconds, pressed, 0.0, 0

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.pressed:
            raise KeyboardInterrupt
        self.now += self.seconds * len(canvas)
        return super().scores(canvas, questions)


def pilot(table: Path, model: object, batch: int = 8, **settings: Any) -> Pilot:
    items = data.verify(data.load(f"table:{table}")).items
    return Pilot(Waist(model, torch.device("cpu")), items[:4], CANVAS, items=100, batch=batch, seed=0, **settings)


def plan(table: Path, slow: Slow, batch: int = 8, n: int = 1000) -> tuple[Pilot, list[Cost]]:
    """All there is to time, on the model's clock."""
    timed = pilot(table, slow, batch, clock=lambda: slow.now)
    spec, chosen = Sequential(sigma=0.25, radii={"1s": 0.25}, n=n), attacks.parse_all(["pgd:steps=10,early_stop=no"])
    return timed, list(timed.costs([Smoothing(sigma=0.25, n=n), spec, *chosen]))


def test_hours_are_of_all_items_on_all_devices() -> None:
    cost = Cost(what="x", each=1100, spread=0, seconds=36.0, items=100, timed="")
    assert cost.calls == 110_000
    assert cost.hours(1) == pytest.approx(1.0) and cost.hours(8) == pytest.approx(1 / 8)
    unknown = Cost(what="x", each=None, spread=None, seconds=None, items=100, timed="")
    assert unknown.calls is None and unknown.hours(1) is None


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Prints what the command shows of a plan that is there already."""

    def show(*costs: Cost, offers: Sequence[Offer] = (), stopped: bool = False) -> str:
        made = Plan(costs=costs, items=100, pilot=4, batch=8, device="cpu", stopped=stopped, offers=tuple(offers))
        monkeypatch.setattr(api, "plan", lambda *asked, **options: made)
        code, text = call("plan", "--model", "builtin:sft", "--data", "phantom")
        assert code == (130 if stopped else 0)
        return text

    return show


def cells(text: str, row: str) -> list[str]:
    """The figures of the row of a printed table."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{row}  ")]
    return re.split(r"\s{2,}", line.removeprefix(row).strip())


FIXED = Cost(what="fixed", each=1100, spread=0, seconds=36.0, items=100, timed="4 of 4 items")


def test_the_command_shows_what_n_and_alpha_buy(planned: Callable[..., str]) -> None:
    """Hours grow with the noisy copies; radii are rounded down, what goes wrong is rounded up."""
    asked = Offer(n=1000, alpha=0.001, ceiling=0.6159, copies=1100, false_at_most=0.1, points=0.1)
    more = replace(asked, n=10000, ceiling=0.8008, copies=10100)
    none = replace(asked, alpha=0.0123, ceiling=None, false_at_most=1.2301, points=1.23)
    text = planned(FIXED, offers=[asked, more, none])
    assert "what n and alpha buy" in text
    assert cells(text, "n 1,000, alpha 0.001") == ["0.615", "0.1", "0.1", "1"]
    assert cells(text, "n 10,000, alpha 0.001") == ["0.800", "0.1", "0.1", "9.18"]
    assert cells(text, "n 1,000, alpha 0.0123") == ["n/a", "1.24", "1.23", "1"]
    untimed = planned(replace(FIXED, seconds=None), offers=[asked], stopped=True)
    assert cells(untimed, "n 1,000, alpha 0.001") == ["0.615", "0.1", "0.1", "n/a"]
    assert "what n and alpha buy" not in planned(FIXED)


def test_the_command_shows_costs_and_says_which_are_bounds(planned: Callable[..., str]) -> None:
    attack = Cost(what="pgd", each=11.6, spread=2.4, seconds=1.8, items=100, timed="4 of 4 items")
    text = planned(FIXED, attack)
    assert cells(text, "fixed") == ["1,100", "110,000", "36", "1", "0.125", "0.0156"]
    assert cells(text, "pgd") == ["12 ± 2", "1,160", "1.8", "0.05", "0.00625", "0.000781"]
    assert "pgd: timed 4 of 4 items." in text and "≥" not in text and "Stopped" not in text
    bound = planned(replace(attack, at_least=True, spread=None), replace(FIXED, each=None, seconds=None), stopped=True)
    assert cells(bound, "pgd")[:3] == ["≥ 12", "≥ 1,160", "≥ 1.8"]
    assert cells(bound, "fixed") == ["n/a"] * 6
    assert "a lower bound and not an estimate" in bound and "Stopped: what is n/a was not timed." in bound


def test_fixed_sampling_costs_what_is_asked(table: Path) -> None:
    cost = pilot(table, Brightness()).fixed(Smoothing(sigma=0.25, n0=10, n=90), rate=RATE)
    assert (cost.each, cost.spread, cost.seconds) == (100, 0, 2.0)


def test_sequential_sampling_costs_what_the_pilot_took(table: Path) -> None:
    """Batches are drawn whole: an item that stops at draw 47 costs 48 copies in batches of 8."""
    spec, timed = Sequential(sigma=0.25, radii={"1s": 0.25}, n=400), pilot(table, Brightness())
    cost = timed.sequential(spec, rate=RATE)
    assert timed.model.forwards == cost.each * 4
    assert 0 < cost.each <= 400 and cost.each * 4 % 8 == 0
    assert cost.seconds == pytest.approx(cost.each / 50)


def test_an_attack_costs_the_passes_it_makes(table: Path) -> None:
    timed = pilot(table, Brightness())
    cost = timed.attack(attacks.parse("pgd:eps=4/255,steps=3,early_stop=no"))
    assert cost.each == 3 and cost.spread is None and cost.seconds > 0


def test_copies_are_timed_for_long_enough(table: Path) -> None:
    slow = Slow(0.01)
    rate = pilot(table, slow, clock=lambda: slow.now).copies(Gaussian(0.25))
    assert rate is not None and rate.copies / rate.seconds == pytest.approx(100)
    assert rate.copies > 100 and rate.rows == 8


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.5, 3.0, 10.0, 100.0])
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_timings_keep_to_half_a_minute(seconds: float, batch: int, table: Path) -> None:
    """One call more than fits is made at most, in each of the three timings; and what is known is right."""
    slow = Slow(seconds)
    _, (fixed, sequential, attack) = plan(table, slow, batch)
    assert slow.now <= BUDGET_S + 3 * seconds * 4 or slow.now == seconds
    assert fixed.seconds == pytest.approx(1100 * seconds) and not fixed.at_least
    for cost, most in ((sequential, 1000), (attack, 11)):
        assert cost.each is None or 0 < cost.each <= most
        if cost.each is not None:
            assert cost.seconds == pytest.approx(cost.each * seconds)
    if seconds <= 0.1:
        assert attack.each == 10 and not attack.at_least and attack.timed.endswith("of 4 items")
    if seconds >= 3.0:
        assert attack.each is None or attack.at_least


def test_what_was_not_timed_is_no_number(table: Path) -> None:
    slow = Slow(100.0)
    _, (fixed, sequential, attack) = plan(table, slow)
    assert slow.calls == 1 and fixed.timed == "1 copy, 1 together, for lack of time"
    for cost in (sequential, attack):
        assert (cost.each, cost.seconds, cost.calls, cost.hours(1)) == (None, None, None, None)
        assert cost.timed == "no item: the time was up before the first was done"


def test_the_first_item_that_does_not_fit_is_a_lower_bound(table: Path) -> None:
    slow = Slow(2.0)
    _, (_, sequential, attack) = plan(table, slow)
    assert sequential.at_least and attack.at_least
    assert sequential.each is not None and 0 < sequential.each < 47 and attack.each is not None and attack.each < 11
    assert attack.seconds == pytest.approx(2 * attack.each)


def test_copies_of_an_item_that_was_cut_off_count(table: Path) -> None:
    """If time allows for some of 4 items, the estimate is all copies drawn over the items decided."""
    slow = Slow(0.4)
    _, (_, cost, _) = plan(table, slow, batch=1)
    whole = pilot(table, Slow(0), batch=1).sequential(Sequential(sigma=0.25, radii={"1s": 0.25}, n=1000), RATE)
    match = re.fullmatch(r"([123]) of 4 items, and (\d+) copies of one that was cut off", cost.timed)
    assert match and cost.each is not None and not cost.at_least and cost.spread is None
    assert whole.timed == "4 of 4 items" and whole.each is not None
    assert cost.each * int(match[1]) <= whole.each * 4 and cost.each * int(match[1]) > int(match[2])


@pytest.mark.parametrize("pressed", [1, 2, 3, 5, 9, 20, 60, 200, 240, 245])
def test_ctrl_c_leaves_what_is_known(pressed: int, table: Path) -> None:
    whole = Slow(0.01)
    plan(table, whole)
    slow = Slow(0.01, pressed=pressed)
    timed, costs = plan(table, slow)
    assert len(costs) == 3 and timed.stopped == (pressed <= whole.calls)
    assert slow.calls <= max(pressed, whole.calls), "nothing is timed after it"
    if pressed == 1:
        assert [cost.seconds for cost in costs] == [None] * 3 and costs[0].each == 1100
    assert all(cost.each is None or cost.each > 0 for cost in costs)


def test_ctrl_c_in_the_command_prints_and_ends_with_130(
    table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the bar on stderr says what is being timed."""
    shown = StringIO()
    monkeypatch.setattr(progress, "err", Console(file=shown, force_terminal=True, width=200))
    (tmp_path / "pressing.py").write_text(
        "from safemed_eval.models.toy import Brightness\n"
        "class Pressing(Brightness):\n"
        "    calls = 0\n"
        "    def scores(self, canvas, questions):\n"
        "        self.calls += 1\n"
        "        if canvas.requires_grad:\n"
        "            raise KeyboardInterrupt\n"
        "        return super().scores(canvas, questions)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = ["plan", "--model", "python:pressing:Pressing", "--data", f"table:{table}", "--canvas", "24x24"]
    asked += ["--sigma", "0.25", "--n", "60", "--radii", "0.1s", "--attack", "pgd", "--attack", "apgd"]
    code, text = call(*asked)
    assert code == 130 and "Stopped: what is n/a was not timed." in text
    assert "fixed, n0 100, n 60: timed" in text and "copies" in text
    assert "apgd:eps=4/255,steps=100: timed no item: stopped before the first was done." in text
    assert "timing" in shown.getvalue() and "pgd:eps=4/255" in shown.getvalue()
    code, text = call(*asked, "--json")
    told = json.loads(text)
    assert code == 130 and told["stopped"] and [cost["each"] is None for cost in told["costs"]] == [False] * 3 + [True]
    assert told["costs"][2]["at_least"]


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
