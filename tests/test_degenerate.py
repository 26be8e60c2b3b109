"""Models that have not answered by what they saw: named by the summary and the page, from the records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from synthetic import SEQUENTIAL, certified, evaluated, failed, sequenced, write_run
from test_cli import call

from safemed_eval.core import GRADIENT_REPEATS, REPEATS
from safemed_eval.report import Run
from safemed_eval.report.findings.degenerate import degenerate
from safemed_eval.report.page import write_page


def answered(labels: Sequence[int], answers: Sequence[int | None], **changes: Any) -> list[dict[str, Any]]:
    """Clean records with these gold options and these answers, an image each; log-probabilities vary."""
    return [
        evaluated(
            number,
            "clean",
            answer == label,
            label=label,
            prediction=answer,
            log_probs=[-1.0 - number / 100, -1.1, -1.2],
            **changes,
        )
        for number, (label, answer) in enumerate(zip(labels, answers, strict=True))
    ]


def said(out: Path, records: list[dict[str, Any]], command: str = "evaluate", **meta: Any) -> list[str]:
    conditions = ["clean"] if command == "evaluate" else []
    return degenerate(Run.read(write_run(out, records, command, conditions=conditions, **meta)))


GOLD = [0, 1, 2] * 10
SEEN = [label if number % 6 else 0 for number, label in enumerate(GOLD)]
"""25 of 30 are right."""


def test_a_model_that_sees_is_left_alone(tmp_path: Path) -> None:
    assert said(tmp_path / "run", answered(GOLD, SEEN)) == []


def test_a_constant_is_named(tmp_path: Path) -> None:
    found = said(tmp_path / "run", answered(GOLD, [1] * 30))
    assert found[0].startswith("The model answers B to each of 30 questions; it is gold in 33.3 %. It is a constant")
    assert "cannot be told from chance, 33.3 %" in found[1]


@pytest.mark.parametrize(
    ("labels", "answers"),
    [
        (GOLD[:9], [1] * 9),
        ([1] * 30, [1] * 30),
        ([1] * 29 + [0], [1] * 30),
        (GOLD, [1] * 29 + [0]),
    ],
)
def test_what_is_no_constant(labels: list[int], answers: list[int], tmp_path: Path) -> None:
    """Too few answers, gold answers that are all the same, or one other answer."""
    assert not any("constant" in one for one in said(tmp_path / "run", answered(labels, answers)))


def test_accuracy_at_chance_is_named_with_its_interval(tmp_path: Path) -> None:
    guesses = [(label + number) % 3 for number, label in enumerate(GOLD)]
    right = sum(a == b for a, b in zip(guesses, GOLD, strict=True))
    (found,) = said(tmp_path / "run", answered(GOLD, guesses))
    assert f"Of 30 clean answers {100 * right / 30:.1f} % [" in found and "chance, 33.3 %" in found
    above = [label if number % 5 < 2 else (label + 1) % 3 for number, label in enumerate(GOLD * 40)]
    assert said(tmp_path / "above", answered(GOLD * 40, above)) == [], "40 % of 1,200 is more than chance"
    worse = said(tmp_path / "worse", answered(GOLD, [(label + 1) % 3 for label in GOLD]))
    assert "Of 30 clean answers 0.0 % [0.0-" in worse[0]


def test_silence_and_failure_are_no_guesses(tmp_path: Path) -> None:
    """25 of 30 answers are right; 60 more items have none."""
    labels, answers = [*GOLD, *[0] * 60], [*SEEN, *[None] * 60]
    assert said(tmp_path / "run", answered(labels, answers)) == []
    broken = [
        {**record, "error": "x"} if record["prediction"] is None else record for record in answered(labels, answers)
    ]
    assert said(tmp_path / "broken", broken) == []
    nothing = [{**record, "prediction": None, "correct": False, "error": "x"} for record in broken]
    assert said(tmp_path / "nothing", nothing) == []


def same_question(records: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    """The same question every time, about another image."""
    return [{**record, "question": "What is shown?", **changes} for record in records]


def test_an_image_that_never_matters_is_named(tmp_path: Path) -> None:
    records = same_question(answered(GOLD, SEEN), log_probs=[-1.0, -1.1, -1.2])
    assert said(tmp_path / "same", records) == [
        "The image never matters: 30 questions that differ in the image alone have the same log-probabilities."
    ]
    records[7]["log_probs"] = [-1.1, -1.1, -1.2]
    assert said(tmp_path / "other", records) == []
    one_image = [{**record, "image_sha256": "h", "image": "x"} for record in records]
    assert said(tmp_path / "one", one_image) == [], "about one image the answer may be one"


def test_answers_that_never_follow_the_image_are_named(tmp_path: Path) -> None:
    """Without log-probabilities: each of 12 questions about three images gets one answer, whatever is gold."""
    records = []
    for number in range(36):
        group = number // 3
        label = (0, 0, 1)[number % 3]
        answer = group % 2 * 2 if group % 4 else 0
        records.append(
            evaluated(
                number, "clean", answer == label, label=label, prediction=answer, log_probs=None, question=f"Q{group}"
            )
        )
    assert "have one answer a group, though in 12 of these the gold answers differ" in said(tmp_path / "a", records)[-1]
    records[0] |= {"prediction": 1, "correct": False}
    assert not any("image never" in one for one in said(tmp_path / "b", records))


def test_certificates_of_a_constant_and_of_a_guess(tmp_path: Path) -> None:
    """All certified for the same option; two of three are wrong. Abstentions are no guesses."""
    records = [certified(n, 1000, chosen=1, label=GOLD[n], correct=GOLD[n] == 1) for n in range(30)]
    found = said(tmp_path / "run", [*records, *(certified(n, 500) for n in range(30, 90)), failed(90)], "certify")
    assert found[0].startswith("The model answers B to each of 30 questions")
    assert found[1].startswith("Of 30 certified answers 33.3 % [")


def test_sequential_certificates_of_a_constant(tmp_path: Path) -> None:
    """They speak of the gold answer alone: those of one letter, all of these, and no others."""
    records = [sequenced(n, None) for n in range(12)] + [sequenced(n, 1, label=0) for n in range(12, 27)]
    (found,) = said(tmp_path / "run", records, "certify", smoothing=SEQUENTIAL)
    assert found.startswith("All 12 questions whose gold answer is B are certified, and none of the other 15")
    assert said(tmp_path / "miss", [*records, sequenced(27, 1)], "certify", smoothing=SEQUENTIAL) == []
    assert said(tmp_path / "few", records[3:], "certify", smoothing=SEQUENTIAL) == []


def test_chance_in_the_model_itself_is_said(tmp_path: Path) -> None:
    checks = [
        {"name": REPEATS, "status": "warn", "detail": "largest difference 0.01"},
        {"name": GRADIENT_REPEATS, "status": "pass", "detail": "largest difference 0"},
    ]
    (found,) = said(tmp_path / "run", answered(GOLD, SEEN), checks=checks)
    assert found == f"Asked twice, the model does not say the same ({REPEATS}): largest difference 0.01."
    checks[1]["status"] = "warn"
    assert len(said(tmp_path / "two", answered(GOLD, SEEN), checks=checks)) == 2


def test_the_terminal_and_the_page_say_it(tmp_path: Path, table: Path) -> None:
    (tmp_path / "same.py").write_text(
        "import torch\n"
        "class Same:\n"
        "    def scores(self, canvas, questions):\n"
        "        k = max(len(q.options) for q in questions)\n"
        "        return canvas.mean((1, 2, 3))[:, None] * torch.arange(float(k)) / 99 + 9 * (torch.arange(k) == 0)\n"
        "def make():\n"
        "    return Same()\n"
    )
    rows = table.read_text().splitlines()
    more = [line.replace("q", f"r{i}", 1) for i in range(2) for line in rows[1:]]
    table.write_text("\n".join([*rows, *more]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        shared = ["--model", "python:same:make", "--data", f"table:{table}", "--canvas", "32x32"]
        code, text = call("evaluate", *shared, "--out", "run")
        sure = call("certify", *shared, "--sigma", 0.25, "--n", 50, "--n0", 5, "--out", "sure")[1]
        checked = call("models", "check", "python:same:make", "--canvas", "32x32")[1]
        write_page([Run.read(Path("run"))], Path("page.html"), title="t")
        page = Path("page.html").read_text()
    constant = "The model answers A to each of 24 questions; it is gold in 0.0 %"
    assert code == 0 and constant in text and constant in sure and constant in page
    assert "A is the answer to all of 8 combinations" in checked
