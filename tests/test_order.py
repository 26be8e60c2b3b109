"""The order of options: shuffled, rotated, and what a preference for letters looks like."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_table
from hypothesis import given
from hypothesis import strategies as st
from running import answers
from scipy.stats import chisquare
from synthetic import ATTACKS, evaluated, numbers, write_run
from test_cli import TOY, call, seconds_aside, summary_of
from test_pipeline import Colors, evaluation, items, without_seconds

from safemed_eval import attacks, data
from safemed_eval.core import Item, Question
from safemed_eval.errors import RunError
from safemed_eval.report import Run
from safemed_eval.report.figures._attacks import chosen
from safemed_eval.report.findings.order import letters, letters_by_condition
from safemed_eval.runs import read_lines, read_meta
from safemed_eval.seeds import seed_of

CLEAN = [attacks.parse("clean")]
Json = dict[str, Any]


def item_of(options: Sequence[str], label: int, id: str = "i") -> Item:
    return Item(id=id, question=Question(text="?", options=tuple(options)), label=label, image="x", root=Path())


@st.composite
def ordered_items(draw: st.DrawFn) -> tuple[Item, list[int]]:
    """An item, options may be equal, and an order of its options."""
    options = draw(st.lists(st.text(min_size=1, max_size=3), min_size=2, max_size=8))
    item = item_of(options, draw(st.integers(0, len(options) - 1)), id=draw(st.text(max_size=5)))
    return item, draw(st.permutations(range(len(options))))


@given(ordered_items())
def test_the_label_follows_its_option_and_the_inverse_leads_back(drawn: tuple[Item, list[int]]) -> None:
    item, order = drawn
    there = data.reordered(item, order)
    assert [there.question.options[place] for place in range(len(order))] == [item.question.options[k] for k in order]
    assert order[there.label] == item.label
    assert data.reordered(there, [order.index(place) for place in range(len(order))]) == item


@given(ordered_items())
def test_rotations_ask_every_option_once_under_every_letter(drawn: tuple[Item, list[int]]) -> None:
    item, order = drawn
    count = len(order)
    turned = [data.reordered(item, data.rotation(count, by)) for by in range(count)]
    assert turned[0] == item and sorted(one.label for one in turned) == list(range(count))


def test_every_order_is_drawn_equally_often_whatever_other_items_there_are() -> None:
    many = tuple(item_of("abc", n % 3, id=f"i{n}") for n in range(3000))
    whole = data.shuffled(data.DataSet(items=many), 7)
    counts = Counter(item.question.options for item in whole.items)
    assert len(counts) == 6 and chisquare(list(counts.values())).pvalue > 0.001
    assert data.shuffled(data.DataSet(items=many[40:41]), 7).items == whole.items[40:41]
    assert data.shuffled(data.DataSet(items=many), 7) == whole != data.shuffled(data.DataSet(items=many), 8)


# ------------------------------------------------------------------ models that look at the letter, and that do not


class Always:
    """Answers with the option in one place, or the last one."""

    def __init__(self, place: int = 0) -> None:
        self.place = place

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        wide = max(len(q.options) for q in questions)
        rows = [torch.arange(wide) == min(self.place, len(q.options) - 1) for q in questions]
        return torch.stack(rows).float() + 0 * canvas.mean((1, 2, 3))[:, None]


class Reader:
    """Scores what an option says, on the image that it is said of; where it stands does not matter."""

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        wide = max(len(q.options) for q in questions)
        bright = canvas.mean((1, 2, 3))
        told = [[seed_of(q.text, one) % 1000 / 1000 for one in q.options] for q in questions]
        told = [row + [0.0] * (wide - len(row)) for row in told]
        return torch.tensor(told) * (1 + bright[:, None])


def balanced(folder: Path, rows: int = 24) -> tuple[Item, ...]:
    """Items of four options, gold once under every letter in turn."""
    found = []
    for number, item in enumerate(items(draw_table(folder, rows=rows))):
        question = replace(item.question, options=("a lung", "a liver", "an eye", "a hand"))
        found.append(replace(item, question=question, label=number % 4))
    return tuple(found)


def accuracies(model: object, asked: Sequence[Item]) -> dict[str, float]:
    records = [r for group in answers(evaluation(model, batch=8), asked, CLEAN, circular=True) for r in group]
    return {
        name: float(np.mean([r["correct"] for r in records if r["attack"] == name])) for name in ("clean", "circular")
    }


def test_a_model_that_prefers_a_letter_is_right_by_chance_and_never_circularly(tmp_path: Path) -> None:
    asked = balanced(tmp_path)
    for place in range(4):
        assert accuracies(Always(place), asked) == {"clean": 0.25, "circular": 0.0}


def test_a_model_that_reads_its_options_does_not_care_for_their_order(tmp_path: Path) -> None:
    asked = balanced(tmp_path)
    plain = accuracies(Reader(), asked)
    assert 0 < plain["clean"] < 1 and plain["circular"] == plain["clean"]
    for seed in range(3):
        again = data.shuffled(data.DataSet(items=asked), seed).items
        assert [item.label for item in again] != [item.label for item in asked]
        assert accuracies(Reader(), again) == plain


def test_answers_to_rotations_are_told_as_options_of_the_item(tmp_path: Path) -> None:
    """One who writes the letter of the first option but one, and nothing where the eye stands first."""

    class Writer:
        def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
            return ["" if q.options[0] == "an eye" else "B" for q in questions]

    class Voter:
        def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
            silent = question.options[0] == "an eye"
            return torch.full((len(canvas),), len(question.options) if silent else 1)

    asked = [replace(item, label=label) for item, label in zip(balanced(tmp_path, 4), (0, 1, 2, 3), strict=True)]
    short = replace(asked[0], id="short", label=1, question=replace(asked[0].question, options=("an eye", "a hand")))
    for model in (Writer(), Voter()):
        groups = answers(evaluation(model), [*asked, short], CLEAN, circular=True)
        records = [r for group in groups for r in group if r["attack"] == "circular"]
        assert [r["rotations"] for r in records] == [[1, 2, None, 0]] * 4 + [[None, 0]]
        assert [r["prediction"] for r in records] == [1, 2, 1, 1, None]
        assert not any(r["correct"] or r["error"] or r["log_probs"] or r["text"] for r in records)
        json.dumps(records, allow_nan=False)


def test_the_first_rotation_is_the_clean_answer_and_batches_do_not_matter(table: Path) -> None:
    def run(batch: int, **settings: Any) -> list[Json]:
        groups = answers(evaluation(Colors(), batch=batch), items(table), CLEAN, circular=True, **settings)
        return sorted(
            without_seconds([r for group in groups for r in group]), key=lambda r: (str(r["attack"]), str(r["item"]))
        )

    whole = run(8)
    assert whole == run(3) == run(1)
    clean = {r["item"]: r["prediction"] for r in whole if r["attack"] == "clean"}
    circular = [r for r in whole if r["attack"] == "circular"]
    assert len(circular) == 8 and all(r["rotations"][0] == clean[r["item"]] for r in circular)
    assert "rotations" not in whole[-1], "other records are as they were"
    rest = run(3, done=lambda item, condition: condition == "clean" or item in ("q1", "q6"))
    assert rest == [r for r in circular if r["item"] not in ("q1", "q6")]


def test_a_fault_in_one_rotation_is_the_items_alone(table: Path) -> None:
    class Fragile(Colors):
        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            if any("image 5" in q.text and q.options[0] == "an eye" for q in questions):
                raise ValueError("no eyes")
            return super().scores(canvas, questions)

    asked = items(table)
    (table.parent / "2.png").write_bytes(b"gone")
    records = [r for group in answers(evaluation(Fragile()), asked, CLEAN, circular=True) for r in group]
    circular = {r["item"]: r for r in records if r["attack"] == "circular"}
    assert len(circular) == 8 and {item for item, r in circular.items() if r["error"]} == {"q2", "q5"}
    assert circular["q5"]["rotations"] is None and not circular["q5"]["correct"]


# --------------------------------------------------------------------------------------------------------- letters


def test_letters_by_hand() -> None:
    """Eight answers to three options: A 6, B 2, C 0; gold A 4, B 2, C 2; six right, so 3/4 and 1/8 are expected."""
    found = letters([0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 2, 2], [3] * 8, list("abcdefgh"))
    assert found.n == 8
    assert found.answered == {"A": 0.75, "B": 0.25, "C": 0.0}
    assert found.gold == {"A": 0.5, "B": 0.25, "C": 0.25}
    assert found.expected == pytest.approx({"A": 0.4375, "B": 0.28125, "C": 0.28125})
    assert (found.total_variation, found.letter, found.notable) == (0.25, "A", False), "eight are too few"


def test_letters_of_rotations_are_counted_where_the_option_then_stands(tmp_path: Path) -> None:
    """Turned by k, the option of place p stands at p - k; a rotation without an answer does not count."""
    records = [
        evaluated(0, "circular", False, rotations=[None, 1, None], prediction=None),
        evaluated(1, "circular", False, rotations=[1, None, None], prediction=None),
        evaluated(2, "circular", False, rotations=[0, None, None]),
    ]
    run = Run.read(write_run(tmp_path / "run", records, "evaluate", conditions=("circular",)))
    found = letters_by_condition(run)["circular"]
    assert found.n == 3, "A is right, B is right, A is wrong where B is gold"
    assert found.answered == pytest.approx({"A": 2 / 3, "B": 1 / 3, "C": 0})
    assert found.gold == pytest.approx({"A": 1 / 3, "B": 2 / 3, "C": 0})
    assert found.expected == pytest.approx({"A": 1 / 3, "B": 1 / 2, "C": 1 / 6})
    assert found.total_variation == pytest.approx(1 / 3) and found.letter == "A"


def blind(rng: np.random.Generator, n: int, favour: float, right: float, together: int) -> tuple[Any, ...]:
    """A model without preference: gold is A for a share `favour` besides chance; items of a cluster err together."""
    counts = rng.integers(2, 5, n)
    gold = np.where(rng.random(n) < favour, 0, rng.integers(0, counts))
    luck = np.repeat(rng.random(n), together)[:n]
    wrong = (gold + 1 + rng.integers(0, 99, n) % (counts - 1)) % counts
    return np.where(luck < right, gold, wrong), gold, counts, (np.arange(n) // together).tolist()


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize(("favour", "right"), [(0.0, 0.3), (0.6, 0.05), (0.6, 0.9)])
def test_chance_does_not_prefer_a_letter(favour: float, right: float, together: int) -> None:
    """Nor does an attack: where most gold answers are A, a model that errs must answer something else."""
    rng = np.random.default_rng(0)
    alarms = [letters(*blind(rng, n, favour, right, together)).notable for n in (12, 60) for _ in range(150)]
    assert not any(alarms)
    _, gold, counts, clusters = blind(rng, 60, favour, right, together)
    always = letters([1] * 60, gold, counts, clusters)
    assert (always.letter, always.notable) == ("B", True)


def run_of(folder: Path, model: object, asked: Sequence[Item]) -> Path:
    groups = answers(evaluation(model), asked, CLEAN, circular=True)
    return write_run(folder, [r for g in groups for r in g], "evaluate", conditions=("clean", "circular"))


def test_a_preferred_letter_is_told(tmp_path: Path) -> None:
    asked = balanced(tmp_path / "d", rows=32)
    summary = numbers(run_of(tmp_path / "a", Always(1), asked))
    notes = summary.notes
    assert notes["circular"] == {"n": 32, "order_dependent": 8}, "eight are gold B"
    for condition, n in (("clean", 32), ("circular", 128)):
        found = notes["letters"][condition]
        assert (found["n"], found["letter"], found["answered"]["B"], found["gold"]["B"]) == (n, "B", 1.0, 0.25)
        assert found["total_variation"] == 0.75 and found["notable"]
    notes = numbers(run_of(tmp_path / "b", Reader(), asked)).notes
    assert notes["circular"] == {"n": 32, "order_dependent": 0}
    assert notes["letters"]["circular"]["answered"] == dict.fromkeys("ABCD", 0.25), "each place once"
    assert not notes["letters"]["circular"]["notable"]


# ------------------------------------------------------------------------------------------------ folders and commands


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotations": [1, 1]}, "rotations are not one answer for each"),
        ({"rotations": [1, 1, 3]}, "rotations are not one answer for each"),
        ({"rotations": None}, "rotations are not one answer for each"),
        ({"rotations": [1, 0, None]}, "does not follow from its rotations"),
        ({"rotations": [None, 0, 1], "prediction": 0, "correct": False}, "does not follow from its rotations"),
    ],
)
def test_rotations_that_contradict_the_record_are_refused(tmp_path: Path, changes: Json, message: str) -> None:
    fine = evaluated(0, "circular", True, rotations=[1, 1, 1])
    conditions = ("clean", "circular")
    assert len(Run.read(write_run(tmp_path / "a", [fine], "evaluate", conditions=conditions)).frame()) == 1
    forged = write_run(tmp_path / "b", [fine | changes], "evaluate", conditions=conditions)
    with pytest.raises(RunError, match=message):
        Run.read(forged)


def test_circular_is_no_attack(tmp_path: Path) -> None:
    conditions = (*ATTACKS[:2], "circular")
    records = [evaluated(i, name, True, rotations=[1, 1, 1]) for i in range(3) for name in conditions]
    run = Run.read(write_run(tmp_path / "a", records, "evaluate", conditions=conditions))
    assert chosen(run) == (list(ATTACKS[:2]), [])


@pytest.fixture
def shared(table: Path) -> list[object]:
    return ["--model", TOY, "--data", f"table:{table}", "--canvas", "24x24"]


def test_shuffled_runs_say_so_and_keep_to_themselves(shared: list[object], table: Path, tmp_path: Path) -> None:
    plain, mixed = tmp_path / "plain", tmp_path / "mixed"
    summary_of("evaluate", *shared, "--out", plain)
    found = summary_of("evaluate", *shared, "--shuffle-options", 0, "--out", mixed)
    assert found["asked"]["shuffle_options"] == 0
    code, text = call("evaluate", *shared, "--shuffle-options", 0, "--out", mixed)
    assert (
        code == 0
        and "shuffle_options 0" in text
        and "shuffle_options" not in call("evaluate", *shared, "--out", plain)[1]
    )
    own = {item.id: item for item in items(table)}
    drawn = {item.id: item for item in data.shuffled(data.DataSet(items=items(table)), 0).items}
    records = read_lines(mixed)
    assert any(tuple(r["options"]) != own[r["item"]].question.options for r in records)
    for record in records:
        asked = drawn[record["item"]]
        assert (tuple(record["options"]), record["label"]) == (asked.question.options, asked.label)
        assert record["options"][record["label"]] == "a liver"
    assert "shuffle_options" not in read_meta(plain)["spec"] and "circular" not in read_meta(plain)["spec"]
    code, text = call("compare", plain, mixed)
    assert code == 2 and text.endswith("different things:\n  shuffle_options was null, now 0")
    code, text = call("evaluate", *shared, "--shuffle-options", 1, "--out", mixed)
    assert code == 2 and "shuffle_options was 0, now 1" in text
    summary_of("evaluate", *shared, "--shuffle-options", 0, "--seed", 5, "--out", tmp_path / "again")
    options = [{r["item"]: r["options"] for r in read_lines(out)} for out in (mixed, tmp_path / "again")]
    assert options[0] == options[1], "--seed is of other things"


def test_certificates_of_shuffled_options(shared: list[object], tmp_path: Path) -> None:
    command = ["certify", *shared, "--sigma", 0.5, "--n", 50, "--n0", 5, "--shuffle-options", 4]
    assert summary_of(*command, "--out", tmp_path / "a")["asked"]["shuffle_options"] == 4
    for record in read_lines(tmp_path / "a"):
        assert record["options"][record["label"]] == "a liver"
        assert len(record["votes"]) == len(record["options"]) + 1


def test_circular_from_the_command_line(shared: list[object], tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = ["evaluate", *shared, "--attack", "fgsm:eps=8/255", "--circular", "--out", out]
    found = summary_of(*run)
    assert list(found["overall"]) == ["clean", "fgsm:eps=8/255", "circular"] and found["items"] == 8
    assert found["overall"]["circular"]["accuracy"] == 0
    whole = seconds_aside(out)
    lines = (out / "records.jsonl").read_text().splitlines(keepends=True)
    (out / "records.jsonl").write_text("".join(line for line in lines if '"circular"' not in line))
    code, text = call(*run)
    assert code == 0 and "Right in every order of the options (circular): 0.0 %" in text
    assert seconds_aside(out) == whole
    code, text = call("evaluate", *shared, "--attack", "fgsm:eps=8/255", "--out", out)
    assert code == 2 and "circular was true, now null" in text
