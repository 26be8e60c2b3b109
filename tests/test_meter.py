"""The time that is left, from a part of the first item on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from test_cli import call
from test_pipeline import CANVAS, CPU, Colors, evaluation, items
from toys import ABCD, WritingNet, generators, middle_canvases

from safemed_eval import attacks, progress
from safemed_eval.core import CIRCULAR
from safemed_eval.models.toy import Brightness
from safemed_eval.models.waist import Waist
from safemed_eval.runs.meter import Meter, passes_of
from safemed_eval.runs.work import units
from safemed_eval.runs.work.certify import Certification
from safemed_eval.runs.work.falsify import Falsifier
from safemed_eval.smoothing import Falsification, Sequential, Smoothing, Voting


def never(*_: str) -> bool:
    return False


def test_a_part_of_the_first_unit_counts() -> None:
    passes = [7]
    work = [SimpleNamespace(passes=100), SimpleNamespace(passes=300)]
    meter = Meter(passes_of(work), lambda: passes[0])
    assert meter.share == 0
    passes[0] += 25
    assert meter.share == 25 / 400
    results = meter.following((unit, None) for unit in work)
    passes[0] += 10
    next(results)
    assert meter.share == 100 / 400, "it took 35 of 100 passes, and is done"
    passes[0] += 90
    assert meter.share == 190 / 400
    passes[0] += 1000
    assert meter.share == 1
    assert Meter(passes_of([*work, SimpleNamespace(passes=None)]), lambda: 0).share is None


def test_the_bar_says_what_is_left_within_the_first_item(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, share = [0.0], [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    speed = progress._Speed(lambda: 0, "items", None, lambda: share[0])
    clock[0] = 60.0
    assert "left" not in speed.text(0, 8)
    share[0] = 0.05
    assert speed.text(0, 8).endswith("at most 0:19:00 left")
    share[0] = 0.5
    assert speed.text(3, 8).endswith(", 0:01:00 left")


@pytest.mark.parametrize("command", [["certify", "--sigma", "0.25", "--n", "200"], ["evaluate", "--attack", "pgd"]])
def test_a_command_knows_the_time_left_before_its_first_item_is_done(
    command: list[str], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[progress._Speed] = []
    told: list[str] = []
    original, scores = progress._Speed, Brightness.scores

    def speed(*given: Any) -> progress._Speed:
        made.append(original(*given))
        return made[-1]

    def look(self: Brightness, canvas: torch.Tensor, questions: Sequence[Any]) -> torch.Tensor:
        if made and made[-1].first == 0:
            told.append(made[-1].text(0, 8))
        return scores(self, canvas, questions)

    monkeypatch.setattr(progress, "_Speed", speed)
    monkeypatch.setattr(Brightness, "scores", look)
    asked = ["--model", "python:safemed_eval.models.toy:brightness", "--data", f"table:{table}", "--canvas", "24x24"]
    assert call(*command, *asked, "--batch-size", 4, "--out", tmp_path / "run")[0] == 0
    assert "left" not in told[0] and "at most 0:00:0" in told[1] and told[1].endswith(" left")


EXACT = ["clean", "noise:eps=8/255", "corrupt:kind=jpeg,severity=3", "pgd:steps=3,early_stop=no", "fgsm:early_stop=no"]
AT_MOST = [
    "suite:eps=8/255,steps=5,queries=60",
    "pgd:eps=8/255,steps=3,restarts=2,target=random",
    "fgsm:eps=8/255",
    "apgd:eps=8/255,steps=7,restarts=2",
]


@pytest.mark.parametrize("spec", [*EXACT, *AT_MOST, CIRCULAR])
def test_a_group_takes_no_more_passes_than_it_says(spec: str, table: Path) -> None:
    attack = CIRCULAR if spec == CIRCULAR else attacks.parse(spec)
    work = evaluation(Colors(), batch=3)
    (group,) = units.groups(items(table), [attack], 8, never)
    records = group.do(work)
    spared = 0 if spec in AT_MOST else sum(bool(one.steps) and one.rounded is None for one in records)
    assert group.passes is not None and 0 < work.model.forwards <= group.passes - spared
    if spec in EXACT or spec == CIRCULAR:
        assert work.model.forwards == group.passes - spared


def test_adaptive_takes_no_more_passes_than_it_says() -> None:
    attack, waist = attacks.parse("adaptive:eps=8/255,steps=7,refresh=3"), Waist(WritingNet(), CPU)
    canvas = middle_canvases()
    classify = waist.classify([ABCD] * 6)
    labels = classify(canvas).argmax(1)
    waist.forwards = 0
    attack(classify, canvas, labels, generators())
    assert 0 < waist.forwards <= 6 * (attack.looks(4) or 0)


class Answers:
    """Answers in every way, and counts the images that it sees; an answer without one counts as one."""

    def __init__(self, *methods: str) -> None:
        for method in methods:
            setattr(self, method, getattr(self, f"_{method}"))
        self.seen = 0

    def _scores(self, canvas: torch.Tensor, questions: Any) -> torch.Tensor:
        self.seen += len(canvas)
        return canvas.flatten(1)[:, :4]

    def _vote(self, canvas: torch.Tensor, question: Any) -> torch.Tensor:
        return self._scores(canvas, [question]).argmax(1)

    def _write(self, canvas: torch.Tensor, questions: Any) -> list[str]:
        return ["ABCD"[place] for place in self._scores(canvas, questions).argmax(1).tolist()]

    def _features(self, canvas: torch.Tensor, questions: Any) -> torch.Tensor:
        return self._scores(canvas, questions)

    def _text_log_probs(self, canvas: torch.Tensor, questions: Any, texts: Any) -> torch.Tensor:
        return self._scores(canvas, questions)[:, 0]

    def _official_scores(self, image: Any, question: Any) -> torch.Tensor:
        self.seen += 1
        return torch.arange(4.0)

    def _scores_without_image(self, question: Any) -> torch.Tensor:
        self.seen += 1
        return torch.arange(4.0)


@pytest.mark.parametrize(
    ("methods", "ask"),
    [
        (("scores",), lambda waist, x: waist.classify([ABCD] * 3)(x)),
        (("scores",), lambda waist, x: waist.answer(x, [ABCD] * 3)),
        (("scores",), lambda waist, x: waist.vote(ABCD)(x)),
        (("scores",), lambda waist, x: waist.vote(ABCD).count([x, x[:2]])),
        (("scores",), lambda waist, x: waist.vote(ABCD)(x, [range(4), (1, 0, 3, 2), (3, 2, 1, 0)])),
        (("vote",), lambda waist, x: waist.vote(ABCD)(x)),
        (("vote",), lambda waist, x: waist.vote(ABCD)(x, [range(4), (1, 0, 3, 2), (3, 2, 1, 0)])),
        (("vote",), lambda waist, x: waist.answer(x, [ABCD] * 3)),
        (("vote",), lambda waist, x: waist.classify([ABCD] * 3).decide(x)),
        (("write",), lambda waist, x: waist.answer(x, [ABCD] * 3)),
        (("write",), lambda waist, x: waist.vote(ABCD).count([x, x])),
        (("scores", "features"), lambda waist, x: waist.features(x, [ABCD] * 3)),
        (("write", "scores", "text_log_probs"), lambda waist, x: waist.classify([ABCD] * 3).likelihood(x, ["A"] * 3)),
        (("write", "scores", "text_log_probs"), lambda waist, x: waist.classify([ABCD] * 3).after(x, ["A"] * 3)),
        (("official_scores",), lambda waist, x: waist.official(Image.new("RGB", (4, 4)), ABCD)),
        (("scores_without_image",), lambda waist, x: waist.without_image(ABCD)),
    ],
)
def test_every_image_that_a_model_sees_is_counted_once(
    methods: tuple[str, ...], ask: Callable[[Waist, torch.Tensor], object]
) -> None:
    model = Answers(*methods)
    waist = Waist(model, CPU)
    ask(waist, torch.rand(3, 3, 4, 4))
    assert waist.forwards == model.seen > 0


def test_a_smoothed_group_takes_no_more_passes_than_it_says(table: Path) -> None:
    voting = Voting(sigma=0.1, n=40, m=3)
    work = evaluation(Colors(), batch=8, voting=voting)
    (group,) = units.groups(items(table), [attacks.parse("pgd:eps=8/255,steps=3")], 8, never, voting)
    group.do(work)
    assert work.model.forwards == group.passes == 8 * (3 * 3 + 40)


def test_what_is_not_known_beforehand_is_not_guessed(table: Path) -> None:
    (group,) = units.groups(items(table), [attacks.parse("art:SquareAttack,max_iter=5")], 8, never)
    assert group.passes is None


@pytest.mark.parametrize("falsify", [None, Falsification(steps=2, m=2, n=30)])
def test_certificates_take_as_many_passes_as_they_say(falsify: Falsification | None, table: Path) -> None:
    waist, spec = Waist(Colors(), CPU), Smoothing(sigma=0.3, n0=10, n=90)
    searched = falsify and Falsifier(model=waist, spec=falsify, noise=spec.kind, seed=0, batch=8, keep=lambda *_: None)
    work = Certification(model=waist, canvas=CANVAS, smoothing=spec, seed=0, batch=8, falsify=searched)
    todo = units.Certificates(
        items=items(table), smoothing=spec, batch=8, done=lambda item: item == "q0", split=False, falsify=falsify
    )
    records = [unit.do(work) for unit in todo.units()]
    assert len(records) == 7
    missed = sum(record.radius is None for record in records)
    each = 3 * 2 * 2 + 4 * 30 if falsify else 0
    assert todo.passes == 7 * (100 + each) and waist.forwards == todo.passes - missed * each


def test_parts_of_an_item_and_sequential_draws(table: Path) -> None:
    few: dict[str, Any] = {"items": items(table), "batch": 8, "done": never, "split": True}
    cut = units.Certificates(smoothing=Smoothing(sigma=0.3, n=5000), **few)
    assert cut.passes == sum(unit.passes for unit in cut.units()) == 8 * 5100
    whole = units.Certificates(smoothing=Sequential(sigma=0.3, radii={"1s": 0.3}, n=400), **few)
    assert whole.passes == 8 * 400


def test_attacks_that_know_say_so() -> None:
    """Of all, those that search another model, or whose search is ART's, do not."""
    assert {name for name, spec in SPECS.items() if attacks.parse(spec).looks(4) is None} == {"art", "transfer"}


SPECS = {
    **{name: name for name in attacks.names()},
    "art": "art:SquareAttack",
    "corrupt": "corrupt:kind=blur,severity=1",
    "prompt": "prompt:kind=prefix",
    "transfer": "transfer:from=x",
}
