"""The adaptive attack on a toy that reasons: its answer hangs on its rationale, not on the letter after the cue."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from test_cli import call, summary_of
from test_pipeline import CPU
from toys import Writes

from safemed_eval import attacks
from safemed_eval.attacks.adaptive import GOALS
from safemed_eval.core import Question, Reasons
from safemed_eval.models.answers import curtail, parse, retell
from safemed_eval.models.toy import Brightness
from safemed_eval.models.waist import Waist
from safemed_eval.runs import read_lines
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
        assert found.parts is not None
        for part in found.parts:  # letters given a thought have no gradient here: a random start may do, or not
            told = {name: part[name] for name in ("answer", "rationale", "wrong-option", "no-thought")}
            assert told == {"answer": True, "rationale": False, "wrong-option": False, "no-thought": False}


def test_a_model_that_does_not_look_is_not_fooled() -> None:
    """The test of the claim can fail, and it can hold: here reasoning is robust."""
    blind = Reasoner(sure=50.0)
    blind.seen = torch.zeros(SHAPE)
    found, said = attack("adaptive:eps=0.5", blind)
    assert said == [0] * 6 and found.parts == [dict.fromkeys(GOALS, True)] * 6
    assert found.steps == [60] * 6, "each of the six has as many steps"
    assert attack("adaptive:eps=0.5,restarts=2", blind)[0].steps == [120] * 6


class Diarist(Reasoner):
    """Always answers A, and numbers what it writes; notes what it is asked for gradients."""

    def __init__(self) -> None:
        super().__init__(sure=50.0)
        self.slopes: list[str] = []
        self.diary: list[str] = []

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        written = [f"<think>Note {len(self.diary)}: a cyst.</think><answer> A </answer>"]
        self.diary += written
        return written

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        self.slopes += ["letter"] * canvas.requires_grad
        return super().scores(canvas, questions)

    def text_log_probs(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        self.slopes += texts[:1] * canvas.requires_grad
        return super().text_log_probs(canvas, questions, texts)


def test_each_goal_has_as_many_gradients_and_texts_follow_the_search() -> None:
    """Seven steps: what is forced is what was written at the start, after one step, after three, and after six."""
    diarist = Diarist()
    found, _ = attack("adaptive:eps=0.1,steps=7,refresh=3", diarist, rows=1)
    assert found.steps == [7 * len(GOALS)] and diarist.slopes[:7] == ["letter"] * 7
    clean, *later = diarist.diary  # each climb writes after one, three, six and seven steps
    slopes = iter(diarist.slopes[7:])
    target = 1  # the likeliest wrong option, after a thought that says cyst
    told: dict[str, Callable[[str], list[str]]] = {
        "thought": lambda text: [retell(text, ASKED, option, bent=False) for option in range(3)],
        "runner-up": lambda text: [retell(text, ASKED, option, bent=False) for option in range(3)],
        "rationale": lambda text: [retell(text, ASKED, 0)],
        "wrong-option": lambda text: [retell(text, ASKED, target)],
        "no-thought": lambda text: [curtail(text, ASKED, target)],
    }
    assert list(told) == list(GOALS)[1:]
    for place, name in enumerate(told, start=1):
        written = [clean, *later[4 * place : 4 * place + 3]]
        assert len(set(written)) == 4
        for text, steps in zip(written, (1, 2, 3, 1), strict=True):
            for _ in range(steps):
                assert [next(slopes) for _ in told[name](text)] == told[name](text), name
    assert next(slopes, None) is None


class Ledger(Reasoner):
    """Always says cyst and A; each part of a text is as likely as a pixel of its own is bright. Notes what it sees."""

    PARTS = ("cue B", "cue C", "A", "B", "C", "cyst", "scar", "no thought")

    def __init__(self) -> None:
        super().__init__(sure=0.0)
        self.shown: list[torch.Tensor] = []

    def pixels(self, canvas: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(self.PARTS, canvas.flatten(1).T, strict=False))

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        pixel = self.pixels(canvas)
        return torch.stack([torch.full_like(pixel["A"], 2.0), pixel["cue B"], pixel["cue C"]], 1)

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        self.shown.append(canvas[0])
        return ["<think>I see a cyst.</think><answer> A </answer>"]

    def text_log_probs(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        pixel, (text,) = self.pixels(canvas), texts
        seen = next((word for word in ("cyst", "scar") if word in text), "no thought")
        letter = text.rpartition("<answer>")[2].split("<")[0].strip()
        return pixel[letter] + pixel[seen] + {"A": 2.0, "B": 0.2, "C": 0.0}[letter]


def test_each_goal_climbs_what_its_name_says() -> None:
    """The signs of one step on each goal; the likeliest wrong option is B, a scar."""
    ledger = Ledger()
    found, _ = attack("adaptive:eps=0.1,steps=1", ledger, rows=1)
    assert found.parts == [dict.fromkeys(GOALS, True)]
    moved = dict(zip(GOALS, ledger.shown[1:], strict=False))
    wanted: dict[str, dict[str, int]] = {
        "answer": {"cue B": 1, "cue C": 1, "A": 0, "B": 0, "C": 0},
        "thought": {"cue B": 0, "cue C": 0, "A": -1, "B": 1, "C": 1},
        "runner-up": {"cue B": 0, "cue C": 0, "A": -1, "B": 1, "C": -1},
        "rationale": {"A": -1, "cyst": -1, "B": 0, "C": 0, "scar": 0, "no thought": 0},
        "wrong-option": {"B": 1, "scar": 1, "A": 0, "C": 0, "cyst": 0, "no thought": 0},
        "no-thought": {"B": 1, "no thought": 1, "A": 0, "C": 0, "cyst": 0, "scar": 0},
    }
    assert list(wanted) == list(GOALS)
    for name, parts in wanted.items():
        signs = {part: float(pixel) for part, pixel in ledger.pixels((moved[name][None] - 0.5) / 0.1).items()}
        assert {part: signs[part] for part in parts} == pytest.approx(parts, abs=1e-4), name


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


class Talker:
    """Says forty words about an image, each by a sum of pixels of its own, and then a letter by two more.

    A word is one of 41 in a text's mean log-probability, so that a climb on the whole text hardly moves the letter; the
    bare letter after the cue does not depend on the image at all.
    """

    words = 40

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(0)
        self.said, self.answered = (torch.randn((n, 3 * 12 * 12), generator=rng) * 0.3 for n in (self.words, 2))

    def lead(self, canvas: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return (canvas - 0.5).flatten(1) @ weights.T

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        return torch.tensor([4.0, 0.0]) + 0 * canvas.flatten(1)[:, :2]

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        rows = zip((self.lead(canvas, self.said) > 0).tolist(), self.lead(canvas, self.answered), strict=True)
        return [
            f"<think>{' '.join('dark' if dark else 'pale' for dark in words)}</think>"
            f"<answer> {'AB'[int(lead.argmax())]} </answer>"
            for words, lead in rows
        ]

    def text_log_probs(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        said, answered = self.lead(canvas, self.said), self.lead(canvas, self.answered).log_softmax(1)
        means = []
        for row, text in enumerate(texts):
            thought, _, rest = text.partition("<answer>")
            signs = torch.tensor([1.0 if word == "dark" else -1.0 for word in re.findall("dark|pale", thought)])
            letter = answered[row, "AB".index(rest.strip()[0])].view(1)
            means.append(torch.cat([torch.nn.functional.logsigmoid(signs * said[row, : len(signs)]), letter]).mean())
        return torch.stack(means)


@pytest.mark.parametrize("eps", [1, 3])
def test_ten_steps_leave_no_more_than_the_best_single_sign_step_on_any_goal(eps: int) -> None:
    """A step on the letter, given the model's own words, finds what a climb on the whole text does not."""
    waist, asked = Waist(Talker(), CPU), Question(text="Which?", options=("x", "y"))
    rng = torch.Generator().manual_seed(1)
    x = (torch.rand((40, 3, 12, 12), generator=rng) * 255).round() / 255
    labels = torch.tensor(waist.answer(x, [asked] * 40).predictions)

    def left(spec: str) -> tuple[int, dict[str, int]]:
        rngs = [generator("cpu", 0, row) for row in range(40)]
        found = attacks.parse(spec)(waist.classify([asked] * 40), x, labels, rngs)
        said = waist.answer(found.canvas, [asked] * 40).predictions
        assert found.parts is not None
        parts = {name: sum(part[name] for part in found.parts) for name in GOALS}
        return sum(answer == label for answer, label in zip(said, labels.tolist(), strict=True)), parts

    _, single = left(f"adaptive:eps={eps}/255,steps=1")
    worst, parts = left(f"adaptive:eps={eps}/255,steps=10")
    assert worst <= min(parts.values()) <= min(single.values())
    assert all(parts[name] <= single[name] for name in GOALS)
    assert parts["thought"] < min(parts["rationale"], parts["wrong-option"]) - 1 and parts["answer"] == 40


def test_the_command_shows_all_six_and_counts_the_worst(tmp_path: Path) -> None:
    spec = "adaptive:eps=6/255,steps=2,refresh=1"
    asked = ["--model", "builtin:sft", "--data", "phantom:images=16", "--limit", 6, "--readout", "generate"]
    found = summary_of("evaluate", *asked, "--attack", spec, "--out", tmp_path / "run")["overall"]
    records = [one for one in read_lines(tmp_path / "run") if one["attack"] == spec]
    assert list(found[spec]["parts"]) == list(GOALS)
    for name, part in found[spec]["parts"].items():
        assert part["correct"] == sum(one["parts"].get(name, False) for one in records)
        assert found[spec]["correct"] <= part["correct"] <= found["clean"]["correct"]
    assert [one["correct"] for one in records] == [bool(one["parts"]) and all(one["parts"].values()) for one in records]
    assert found[spec]["correct"] < found["clean"]["correct"]


class WritingBrightness(Writes, Brightness):
    """Brightness that answers in writing."""


class Scribe:
    """Writes, and has neither scores nor votes: A for an image brighter than mid-grey."""

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        return ["The answer is A." if bright else "The answer is B." for bright in canvas.mean((1, 2, 3)) > 0.5]


def test_a_model_from_python_that_writes_needs_no_readout(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--readout is an option of checkpoints: this one is neither asked for it nor refused."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    shared = ["evaluate", "--data", f"table:{table}", "--canvas", "16x16", "--attack", "adaptive:eps=16/255,steps=3"]
    found = summary_of(*shared, "--model", "python:test_adaptive:WritingBrightness", "--out", tmp_path / "run")
    under = found["overall"]["adaptive:eps=16/255,steps=3"]
    assert found["failed"] == 0 and under["correct"] < found["overall"]["clean"]["correct"]
    code, text = call(*shared, "--model", "python:test_adaptive:Scribe", "--out", tmp_path / "other")
    assert code == 2 and "--attack adaptive" in text and "Scribe only writes" in text and "--readout" not in text


def test_a_model_that_only_writes_is_answered_and_certified(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    shared = ["--model", "python:test_adaptive:Scribe", "--data", f"table:{table}", "--canvas", "16x16"]
    found = summary_of("evaluate", *shared, "--attack", "corrupt:kind=brightness,severity=5", "--out", tmp_path / "a")
    records = read_lines(tmp_path / "a")
    assert found["failed"] == 0 and {one["text"] for one in records} == {"The answer is A.", "The answer is B."}
    assert all((one["prediction"] == 0) == one["text"].endswith("A.") for one in records)
    summary_of("certify", *shared, "--sigma", 0.25, "--n0", 10, "--n", 40, "--out", tmp_path / "c")
    assert {sum(one["votes"][:2]) for one in read_lines(tmp_path / "c")} == {40}
    code, text = call("evaluate", *shared, "--attack", "fgsm", "--out", tmp_path / "b")
    assert code == 2 and "only writes" in text
    code, text = call("models", "check", "python:test_adaptive:Scribe")
    assert code == 0 and "only writes, here" in text
