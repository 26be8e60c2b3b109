"""prompt: the question in other words, of models that read them, with exact counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from running import records
from test_cli import call, read_lines, summary_of
from test_pipeline import evaluation, items

from safemed_eval import attacks
from safemed_eval.attacks.prompt import HINT, PREFIXES
from safemed_eval.core import Question
from safemed_eval.errors import SpecError
from safemed_eval.runs.pseudonyms import Pseudonyms
from safemed_eval.runs.record import EvaluateRecord
from safemed_eval.smoothing import Voting

HINTED, PREFIXED = "prompt:kind=wrong-hint", "prompt:kind=prefix"


class Gullible:
    """Answers with the option that a hint names, and else with the one that the table calls right."""

    def __init__(self, gold: dict[str, int], fooled_by: str = "A colleague") -> None:
        self.gold, self.fooled_by, self.texts = gold, fooled_by, list[str]()

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        self.texts += [q.text for q in questions]
        rows = []
        for question in questions:
            said = question.text.rpartition("answer is: ")[2]
            right = next(label for text, label in self.gold.items() if text in question.text)
            chosen = question.options.index(said) if said in question.options else right
            if self.fooled_by in question.text and said not in question.options:
                chosen = 1 - right
            rows.append([9.0 * (place == chosen) for place in range(max(len(q.options) for q in questions))])
        return torch.tensor(rows, device=canvas.device) + 0 * canvas.mean((1, 2, 3))[:, None]


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """Five questions of 2 to 4 options about one image."""
    from PIL import Image

    Image.new("RGB", (24, 24), (90, 120, 60)).save(tmp_path / "image.png")
    rows = [
        {
            "item": f"i{number}",
            "question": f"Question {number}?",
            "image": "image.png",
            "answer": "AB"[number % 2],
            **{f"option_{letter}": f"{letter * 2}{number}" for letter in "abcd"[: 2 + number % 3]},
        }
        for number in range(5)
    ]
    lines = [json.dumps({"id": row.pop("item"), **row}) for row in rows]
    (tmp_path / "table.jsonl").write_text("\n".join(lines))
    return tmp_path / "table.jsonl"


def gullible(table: Path, **fooled: str) -> Gullible:
    return Gullible({item.question.text: item.label for item in items(table)}, **fooled)


def under(spec: str, table: Path, model: object, **settings: object) -> list[EvaluateRecord]:
    groups = records(evaluation(model, **settings), items(table), [attacks.parse(spec)])
    return sorted((one for group in groups for one in group), key=lambda one: one.item)


def test_a_hint_names_a_wrong_option_by_its_text_and_a_gullible_model_follows(asked: Path) -> None:
    """The model answers all five as hinted; the same hints in any batch, other ones by another seed."""
    found = under(HINTED, asked, gullible(asked))
    for record in found:
        assert record.prediction not in (None, record.label) and not record.correct
        assert record.asked == f"{record.question}\n{HINT.format(option=record.options[record.prediction])}"
        assert (record.linf, record.l2, record.steps, record.error) == (0, 0, 0, None)
    assert [one.asked for one in under(HINTED, asked, gullible(asked), batch=1)] == [one.asked for one in found]
    hints = {seed: tuple(one.asked for one in under(HINTED, asked, gullible(asked), seed=seed)) for seed in range(20)}
    wide = [number for number, record in enumerate(found) if len(record.options) == 4]
    assert len({tuple(hint[number] for number in wide) for hint in hints.values()}) > 2
    for number, record in enumerate(found):  # all wrong options are drawn, and the gold one never
        assert len({hint[number] for hint in hints.values()}) == len(record.options) - 1


def test_an_item_is_right_only_after_every_sentence_off_the_topic(asked: Path) -> None:
    """A model that one of the four confuses: nothing is right, and each record shows the question that did it."""
    model = gullible(asked, fooled_by=PREFIXES[2])
    assert not any(one.correct for one in under(PREFIXED, asked, model))
    assert len(model.texts) == 5 * len(PREFIXES)
    assert {one.asked for one in under(PREFIXED, asked, model)} == {f"{PREFIXES[2]}\nQuestion {i}?" for i in range(5)}
    for number in range(1, 5):
        found = under(f"{PREFIXED},number={number}", asked, model)
        assert all(one.correct == (number != 3) for one in found)
        assert [one.asked for one in found] == [f"{PREFIXES[number - 1]}\n{one.question}" for one in found]


def test_the_worst_paraphrase_counts_and_an_item_without_one_is_not_available(asked: Path, tmp_path: Path) -> None:
    lines = [
        {"item": "i0", "question": "Said otherwise: Question 0?"},
        {"item": "i1", "question": "Said otherwise: Question 1?"},
        {"item": "i1", "question": "WRONG Question 1?"},
        {"item": "i3", "question": "WRONG Question 3?"},
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    found = under(f"prompt:kind=paraphrase-file,file={tmp_path / 'p.jsonl'}", asked, gullible(asked, fooled_by="WRONG"))
    assert [one.correct for one in found] == [True, False, False, False, False]
    assert [one.asked for one in found] == [lines[0]["question"], "WRONG Question 1?", None, "WRONG Question 3?", None]
    for one in found:
        missing = one.item in ("i2", "i4")
        assert (one.unavailable is not None) == missing and (one.prediction is None) == missing and one.error is None


def test_a_smoothed_model_votes_on_the_other_words(asked: Path) -> None:
    found = under(HINTED, asked, gullible(asked), voting=Voting(sigma=0.25, n=20))
    assert all(sum(one.votes or ()) == 20 and one.prediction not in (None, one.label) for one in found)


MODEL = """
import torch
class Model:
    def scores(self, canvas, questions):
        chosen = [q.options.index(q.text.rpartition("is: ")[2]) if "is: " in q.text else 0 for q in questions]
        width = max(len(q.options) for q in questions)
        bright = canvas.mean((1, 2, 3))[:, None] * torch.arange(width)
        return 9.0 * torch.nn.functional.one_hot(torch.tensor(chosen), width) + bright
"""


@pytest.fixture
def shared(asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    (tmp_path / "prompted.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    return ["evaluate", "--model", "python:prompted:Model", "--data", f"table:{asked}", "--canvas", "24x24"]


def test_runs_count_what_is_not_available_and_go_on(shared: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"item": "i0", "question": "Anew?"}\n{"item": "i1", "question": "Anew?"}')
    spec = f"prompt:kind=paraphrase-file,file={file}"
    command = [*shared, "--attack", spec, "--attack", HINTED, "--out", tmp_path / "run"]
    cells = summary_of(*command)["overall"]
    assert (cells[spec]["n"], cells[spec]["correct"], cells[spec]["unavailable"]) == (2, 1, 3)
    assert (cells[HINTED]["n"], cells[HINTED]["correct"], cells["clean"]["correct"]) == (5, 0, 3)
    lines = (tmp_path / "run" / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "records.jsonl").write_text("".join(lines[:-3]))
    assert summary_of(*command)["overall"] == cells
    file.write_text('{"item": "i0", "question": "Otherwise?"}')
    code, text = call(*command)
    assert code == 2 and "sha256" in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"item": "gone", "question": "Anew?"}', "names the item 'gone', which is not in the data"),
        ('{"item": "i0", "question": "Anew?"}\n{"item": "i0"', "line 2: is not JSON"),
        ('{"item": "i0", "text": "Anew?"}', 'line 1: write {"item": "its id", "question": "text"}'),
        ('{"item": "i0", "question": " "}', "line 1: write"),
        ('{"item": 3, "question": "Anew?"}', "line 1: write"),
        ("[]", "line 1: write"),
        ("", "holds no line"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_a_bad_file_is_refused_before_the_run(shared: list[Any], tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(line.encode(errors="surrogateescape"))
    spec = f"prompt:kind=paraphrase-file,file={tmp_path / 'p.jsonl'}"
    code, text = call(*shared, "--attack", spec, "--out", tmp_path / "run")
    assert code == 2 and message in text and len(text.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_under_pseudonyms_no_question_is_written_and_no_file_is_read(shared: list[Any], tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef" * 4)
    (tmp_path / "p.jsonl").write_text('{"item": "i0", "question": "Anew?"}')
    secret = [*shared, "--pseudonymize", tmp_path / "key", "--out", tmp_path / "run"]
    code, text = call(*secret, "--attack", f"prompt:kind=paraphrase-file,file={tmp_path / 'p.jsonl'}")
    assert code == 2 and "leave it out, or --pseudonymize" in text
    assert call(*secret, "--attack", HINTED)[0] == 0
    hinted = [line for line in read_lines(tmp_path / "run") if line["attack"] == HINTED]
    names = Pseudonyms(b"0123456789abcdef" * 4)
    assert all(line["asked"].startswith("question-") and "colleague" not in json.dumps(line) for line in hinted)
    assert hinted[0]["asked"] == names.of("question", "i0", f"Question 0?\n{HINT.format(option='bb0')}")


def test_other_words_cannot_be_timed() -> None:
    import safemed_eval

    with pytest.raises(SpecError, match="takes one answer for each of its wordings"):
        safemed_eval.plan("builtin:sft", "phantom:images=1", attacks=[HINTED])


def test_what_reports_are_told_of_it() -> None:
    facts = attacks.facts_of(PREFIXED, attacks.parse(PREFIXED).described)
    assert (facts.role, facts.aims_at, facts.eps, facts.should_flip) == ("prompt", None, None, False)
    assert [attacks.parse(spec).looks(4) for spec in (HINTED, PREFIXED, f"{PREFIXED},number=1")] == [0, 3, 0]
