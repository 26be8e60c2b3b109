"""A run most of whose texts or votes are no answer is named: on stderr, on the page, in JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import SEQUENTIAL, certified, evaluated, failed, sequenced, write_run
from typer.testing import CliRunner

from safemed_eval.cli import app
from safemed_eval.core import Question
from safemed_eval.report import Run
from safemed_eval.report.findings.unanswered import silence
from safemed_eval.report.page import write_page

MARK = "\x1b[31m<b>[bold]I cannot"


class Mumbles:
    """Answers the last of four questions."""

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        return [
            "The answer is A." if q.text.endswith(("3?", "7?")) else f"{MARK} {q.text} {'x' * 99}" for q in questions
        ]


def written(number: int, text: str | None, answer: int | None = None, **changes: Any) -> dict[str, Any]:
    return evaluated(number, "clean", answer == 1, text=text, prediction=answer, log_probs=None, **changes)


def found(out: Path, records: list[dict[str, Any]], command: str = "evaluate", **meta: Any) -> Any:
    """The JSON of a silence, with its sentence."""
    meta.setdefault("conditions", ["clean"])
    told = silence(Run.read(write_run(out, records, command, **meta)))
    return told and vars(told) | {"sentence": str(told)}


def test_most_is_more_than_half_of_the_clean_texts(tmp_path: Path) -> None:
    half = [written(0, "?"), written(1, "A", 0), written(2, None, error="broken"), written(3, "B", 1), written(4, "")]
    assert found(tmp_path / "half", half) is None
    records = [*half, written(5, "?"), written(6, "so  it\nis " + 99 * "x"), written(7, "why?"), written(8, "who?")]
    told = found(tmp_path / "most", records)
    sentence = told.pop("sentence")
    assert told == {
        "none": 6,
        "n": 8,
        "what": "texts",
        "texts": ["?", "", "so it is " + 68 * "x" + "..."],
        "options": True,
    }
    assert sentence.startswith('Most of what the model said is no answer: 6 of 8 texts, such as "?"; ""; "so it is xx')
    assert "--template" in sentence and "--readout choice" in sentence and sentence.endswith("an answer.")


def test_an_attack_that_silences_a_model_is_another_matter(tmp_path: Path) -> None:
    name = "pgd:eps=4/255,steps=10"
    records = [written(number, "B", 1) for number in range(4)]
    records += [written(number, "?") | {"attack": name} for number in range(4)]
    assert found(tmp_path / "run", records, conditions=["clean", name]) is None


def test_letters_are_no_texts(tmp_path: Path) -> None:
    """A readout without texts lacks none, even if every item has failed."""
    lost = [written(number, None, error="broken") for number in range(4)]
    assert found(tmp_path / "run", lost) is None
    assert found(tmp_path / "none", []) is None


def test_pseudonyms_leave_the_count(tmp_path: Path) -> None:
    told = {"words": 3, "rationale": None, "conclusion": None}
    records = [written(number, None, told=told) for number in range(3)] + [written(3, None, 1, told=told)]
    veiled = found(tmp_path / "run", records)
    assert veiled and (veiled["none"], veiled["n"], veiled["texts"]) == (3, 4, [])
    assert "3 of 4 texts. Ask it" in veiled["sentence"]


def test_votes_for_no_answer_are_counted(tmp_path: Path) -> None:
    """Of both stages together: 100 and 900 of 1,100 for each of two items, and of a third none."""
    records = [certified(0, 900, chosen=3), certified(1, 900, chosen=3), certified(2, 400), failed(3)]
    told = found(tmp_path / "run", records, "certify")
    assert told.pop("sentence") and told == {"none": 2000, "n": 3300, "what": "votes", "texts": [], "options": True}
    assert found(tmp_path / "half", records[1:], "certify") is None
    assert found(tmp_path / "other", [certified(number, 900) for number in range(3)], "certify") is None


def test_a_sequential_run_does_not_know(tmp_path: Path) -> None:
    records = [sequenced(number, 2) for number in range(3)]
    assert found(tmp_path / "run", records, "certify", smoothing=SEQUENTIAL) is None


@pytest.mark.parametrize("command", ["evaluate", "certify"])
def test_the_commands_say_so_on_stderr(
    command: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tables and under --json, of a model from Python without options that it could not obey; and on the page."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    noise = [] if command == "evaluate" else ["--sigma", "0.25", "--n0", "5", "--n", "30"]
    asked = [command, "--model", "python:test_silence:Mumbles", "--data", f"table:{table}", "--canvas", "16x16", *noise]
    for form in ([], ["--json"]):
        result = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "run"), *form], catch_exceptions=False)
        assert result.exit_code == 0
        what = "6 of 8 texts, such as" if command == "evaluate" else "210 of 280 votes. See how"
        assert f"warning: Most of what the model said is no answer: {what}" in result.stderr
        assert "--readout" not in result.stderr and "\x1b[31m" not in result.stderr
        assert ("\\x1b[31m<b>[bold]I cannot What" in result.stderr) == (command == "evaluate")
    noted = json.loads(result.stdout)["notes"]["silence"]
    assert noted["none"] * 2 > noted["n"] and len(noted["texts"]) == (3 if command == "evaluate" else 0)
    page = tmp_path / "report.html"
    write_page([Run.read(tmp_path / "run")], page, title="t")
    text = page.read_text()
    assert "Most of what the model said is no answer" in text and "<b>[bold]I" not in text.partition("<script")[0]
