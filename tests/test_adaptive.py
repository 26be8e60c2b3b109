"""The adaptive attack on a toy that reasons: its answer hangs on its rationale, not on the letter after the cue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from test_cli import call, summary_of
from test_pipeline import CPU

from safemed_eval import attacks
from safemed_eval.core import Question, Reasons
from safemed_eval.models.answers import parse, retell
from safemed_eval.models.waist import Waist
from safemed_eval.runs import read_records
from safemed_eval.seeds import generator

ASKED = Question(text="What is shown?", options=("a cyst", "a scar", "nothing"))
SHAPE = (3, 6, 6)


class Reasoner:
    """Sees a cyst where one weighted sum of pixels is above 0, else a scar, says so, and answers what it has said.

    The bare letter after the cue hangs on another sum, and by `sure` on none at all.
    """

    def __init__(self, sure: float) -> None:
        weights = torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(0))
        self.seen, self.cue, self.sure = weights[0], weights[1], sure

    def margin(self, canvas: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (canvas - 0.5).flatten(1) @ weight.flatten()

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        lead = self.margin(canvas, self.cue) + self.sure
        return torch.stack([lead, -lead, torch.full_like(lead, -9.0)], 1)

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        seen = (self.margin(canvas, self.seen) > -0.5).tolist()
        return [
            "<think>I see a cyst.</think><answer>A</answer>"
            if cyst
            else "<think>I see a scar.</think><answer>B</answer>"
            for cyst in seen
        ]

    def text_log_probs(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        lead = self.margin(canvas, self.seen) + 0.5
        signs = torch.tensor([1.0 if "cyst" in text else -1.0 for text in texts])
        return torch.nn.functional.logsigmoid(signs * lead)


def attack(spec: str, model: object, rows: int = 6) -> tuple[attacks.Attacked, list[int | None]]:
    x = torch.full((rows, *SHAPE), 0.5)
    waist = Waist(model, CPU)
    labels = torch.zeros(rows, dtype=torch.int64)
    rngs = [generator("cpu", 0, row) for row in range(rows)]
    found = attacks.parse(spec)(waist.classify([ASKED] * rows), x, labels, rngs)
    return found, waist.answer(found.canvas, [ASKED] * rows).predictions


def test_an_attack_on_the_letter_alone_makes_reasoning_look_robust() -> None:
    robust = Reasoner(sure=50.0)
    assert attack("pgd:eps=0.05", robust)[1] == [0] * 6, "the letter is sure, whatever is done to it"
    for refresh in (5, 50):  # judged on the way, and at the end alone
        found, said = attack(f"adaptive:eps=0.05,refresh={refresh}", robust)
        assert said == [1] * 6
        assert found.parts == [{"answer": True, "rationale": False, "wrong-option": False}] * 6


def test_a_model_that_does_not_look_is_not_fooled() -> None:
    """The test of the claim can fail, and it can hold: here reasoning is robust."""
    blind = Reasoner(sure=50.0)
    blind.seen = torch.zeros(SHAPE)
    found, said = attack("adaptive:eps=0.5", blind)
    assert said == [0] * 6 and found.parts == [{"answer": True, "rationale": True, "wrong-option": True}] * 6
    assert found.steps == [30] * 6, "each of the three has as many steps"


class Diarist(Reasoner):
    """Always answers A, and writes how bright the image is; notes what it is asked for gradients."""

    def __init__(self) -> None:
        super().__init__(sure=50.0)
        self.slopes: list[str] = []
        self.diary: list[str] = []

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        written = [
            f"<think>{mean:.9f}, a cyst.</think><answer> A </answer>" for mean in canvas.mean((1, 2, 3)).tolist()
        ]
        self.diary += written
        return written

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        self.slopes += ["letter"] * canvas.requires_grad
        return super().scores(canvas, questions)

    def text_log_probs(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        self.slopes.append(texts[0])
        return super().text_log_probs(canvas, questions, texts)


def test_each_goal_has_as_many_gradients_and_texts_follow_the_search() -> None:
    """Seven steps: what is forced is what was written at the start, after three steps, and after six."""
    diarist = Diarist()
    found, _ = attack("adaptive:eps=0.1,steps=7,refresh=3", diarist, rows=1)
    letters, own, others = (diarist.slopes[start : start + 7] for start in (0, 7, 14))
    assert len(diarist.slopes) == 21 and found.steps == [21] and letters == ["letter"] * 7
    clean, *later = diarist.diary[:10]  # each climb writes after three, six and seven steps
    for texts, option, written in ((own, 0, [clean, *later[3:5]]), (others, 2, [clean, *later[6:8]])):
        assert len(set(written)) == 3
        first, second, third = (retell(text, ASKED, option) for text in written)
        assert texts == [first] * 3 + [second] * 3 + [third]
    assert all("a cyst" in text for text in own) and all("nothing" in text for text in others)


def test_the_letter_goal_is_pgds() -> None:
    """Where the written answer follows the letter, the first of the three is enough."""

    class Plain(Reasoner):
        def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
            return ["A" if lead > 0 else "B" for lead in (self.margin(canvas, self.cue) + self.sure).tolist()]

    found, said = attack("adaptive:eps=0.05", Plain(sure=0.5))
    assert said == [1] * 6 and found.parts is not None
    assert all(part["answer"] is False for part in found.parts)


def test_it_keeps_the_promises_of_every_attack() -> None:
    spec, robust = attacks.parse("adaptive:eps=0.05,steps=4,refresh=2"), Reasoner(sure=0.7)
    x = torch.rand((5, *SHAPE), generator=torch.Generator().manual_seed(1))
    x = (x * 255).round() / 255
    waist = Waist(robust, CPU)
    said = waist.answer(x, [ASKED] * 5).predictions
    labels = torch.tensor([answer or 0 for answer in said])
    labels[0] = 2  # wrong when clean

    def run(rows: list[int], quantize: bool = False) -> attacks.Attacked:
        rngs = [generator("cpu", 0, row) for row in rows]
        return spec(waist.classify([ASKED] * len(rows)), x[rows], labels[rows], rngs, quantize=quantize)

    every = list(range(5))
    for quantize in (False, True):
        found = run(every, quantize)
        assert torch.equal(found.canvas, run(every, quantize).canvas)
        assert torch.equal(found.canvas[3], run([3], quantize).canvas[0])
        assert found.steps[0] == 0 and torch.equal(found.canvas[0], x[0]) and found.parts and found.parts[0] == {}
        assert float((found.canvas - x).abs().max()) <= 0.05 + 1e-6


def test_it_is_for_models_that_write() -> None:
    with pytest.raises(TypeError, match="Reasons"):
        attack("adaptive:eps=0.05", type("Mute", (), {"scores": Reasoner(1.0).scores})())
    code, text = call("evaluate", "--model", "builtin:sft", "--data", "phantom", "--attack", "adaptive:eps=4/255")
    assert code == 2 and "--readout generate" in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "<think>A Cyst, so the answer is A.</think><answer> A </answer>",
            "<think>a scar, so the answer is B.</think><answer> B </answer>",
        ),
        ("<answer>A", "<answer> B </answer>"),
        ("A", " B"),
        ("<think>no cystic change; a cyst</think> A", "<think>no cystic change; a scar</think> B"),
        ("what?", " B"),
    ],
)
def test_texts_are_retold(text: str, told: str) -> None:
    assert retell(text, ASKED, 1) == told
    assert parse(told, ASKED) == 1


def test_a_writing_checkpoint_is_bound_as_one_that_reasons() -> None:
    bound: Reasons = Waist(Reasoner(1.0), CPU).classify([ASKED])  # type: ignore[assignment]
    texts = bound.write(torch.full((1, *SHAPE), 0.5))
    assert bound.read(texts) == [0] and bound.read(bound.retell(texts, [2])) == [2]


def test_the_command_shows_all_three_and_counts_the_worst(tmp_path: Path) -> None:
    spec = "adaptive:eps=6/255,steps=2,refresh=1"
    asked = ["--model", "builtin:sft", "--data", "phantom:images=16", "--limit", 6, "--readout", "generate"]
    found = summary_of("evaluate", *asked, "--attack", spec, "--out", tmp_path / "run")["overall"]
    records = [one for one in read_records(tmp_path / "run") if one["attack"] == spec]
    assert list(found[spec]["parts"]) == ["answer", "rationale", "wrong-option"]
    for name, part in found[spec]["parts"].items():
        assert part["correct"] == sum(one["parts"].get(name, False) for one in records)
        assert found[spec]["correct"] <= part["correct"] <= found["clean"]["correct"]
    assert [one["correct"] for one in records] == [bool(one["parts"]) and all(one["parts"].values()) for one in records]
    assert found[spec]["correct"] < found["clean"]["correct"]
