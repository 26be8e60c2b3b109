"""A table of texts in the styles of model families, each with how a careful reader reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safemed_eval.core import Question
from safemed_eval.data import load
from safemed_eval.models.answers import parse, rationale, retell

CASES = Path(__file__).parents[2] / "shared" / "cases"
TABLE = Path(__file__).parent / "answers" / "texts.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]
MODALITY = Question(text="Which?", options=("CT", "MRI", "X-Ray", "Ultrasound"))
IDS = [f"{place}-{row['kind']}" for place, row in enumerate(ROWS, 1)]


def asked(row: dict[str, Any]) -> Question:
    return Question(text="Which?", options=tuple(row["options"]))


def read(row: dict[str, Any], text: str) -> str | None:
    option = parse(text, asked(row))
    return None if option is None else asked(row).letters[option]


def test_the_table_is_large_and_holds_no_row_twice() -> None:
    assert len(ROWS) >= 1600 and len({(*row["options"], row["text"]) for row in ROWS}) == len(ROWS)
    assert sum(row["expected"] is None for row in ROWS) >= 400
    assert all(row["expected"] in (None, *asked(row).letters) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_each_text_is_read_as_a_careful_reader_does(row: dict[str, Any]) -> None:
    assert read(row, row["text"]) == row["expected"]


ENDS = [
    "</s>",
    "<|im_end|>\n",
    "<end_of_turn>",
    "<|eot_id|>",
    "<|endoftext|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
]
THOUGHTS = [
    ("<think>", "</think>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<unused94>thought\n", "<unused95>"),
]


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_neither_a_thought_before_nor_the_end_of_the_turn_behind_changes_the_reading(row: dict[str, Any]) -> None:
    for place, end in enumerate(ENDS):
        assert read(row, row["text"] + end) == row["expected"], end
        if row["kind"].endswith(("/harmony", "/headings")):
            continue  # begins the turn with a thought of its own
        opening, closing = THOUGHTS[place % len(THOUGHTS)]
        text = f"{opening}Is it A? The answer is B, or <answer>C</answer>.{closing}{row['text']}"
        assert read(row, text) == row["expected"], opening


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_text_that_is_retold_answers_with_the_other_option(row: dict[str, Any]) -> None:
    question = asked(row)
    for option in range(len(question.options)):
        for bent in (True, False):
            assert parse(retell(row["text"], question, option, bent=bent), question) == option


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_what_is_said_before_the_answer_is_part_of_the_text(row: dict[str, Any]) -> None:
    said = rationale(row["text"], asked(row))
    assert said is None or (said.strip() == said != "" and len(said) <= len(row["text"]))


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the folder of small inputs that showed a fault")
def test_texts_that_were_misread() -> None:
    for line in (CASES / "7" / "t.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found = read(row, row["question"].partition("SAY:")[2])
        assert found != "A" if row["expected"] == "not A" else (found or "none") == row["expected"], row


DARK, HARMONY = "Bone is dark.", "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>B"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{DARK}\n\n\\boxed{{B}}", DARK),
        (f"{DARK}\n\nThe final answer is $\\boxed{{B}}$.", DARK),
        (f"{DARK} **Final Answer: (B) MRI**", DARK),
        (f"{DARK}\n\n### Answer\nB", DARK),
        (f"{DARK} Therefore, the correct answer is B. CT is out.", DARK),
        (f"{DARK} This is an MRI.", DARK),
        (f"<SUMMARY>I look.</SUMMARY><REASONING>{DARK}</REASONING><CONCLUSION>B</CONCLUSION>", f"I look.{DARK}"),
        (f"<unused94>thought\n{DARK}<unused95>B<end_of_turn>", DARK),
        (HARMONY.format(DARK), DARK),
        (f"<think>{DARK}</think><answer><|begin_of_box|>B<|end_of_box|></answer>", DARK),
        *((text, None) for text in ("\\boxed{B}", "The final answer is $\\boxed{B}$.", f"B) MRI\n\n{DARK}")),
        *((text, None) for text in ("This is an MRI.", "答案\uff1aB", "<|begin_of_box|>B<|end_of_box|>", "CT or MRI.")),
    ],
)
def test_rationales_of_these_forms(text: str, said: str | None) -> None:
    assert rationale(text, MODALITY) == said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("An MRI: dark bone. The final answer is $\\boxed{B}$.", "An CT: dark bone. The final answer is $\\boxed{A}"),
        ("Bone is dark, so the answer is B.", "Bone is dark, so the answer is A"),
        ("Bone is dark. The image is an MRI scan.", "Bone is dark. The image is an CT scan."),
        ('{"why": "it is an MRI", "answer": "B"}', '{"why": "it is an CT", "answer": "A"}'),
        ("<REASONING>MRI.</REASONING><CONCLUSION>B</CONCLUSION>", "<think>CT.</think><CONCLUSION> A </CONCLUSION>"),
        ("◁think▷An MRI, option B.◁/think▷**B**", "<think>An CT, option A.</think> A"),
        ("B) MRI\n\nBone is dark.", " A"),
        ("<think>It is an MRI", "<think>It is an MRI</think> A"),
    ],
)
def test_texts_of_these_forms_are_retold(text: str, told: str) -> None:
    assert retell(text, MODALITY, 0) == told


def test_a_rationale_that_is_not_bent_stays_word_for_word() -> None:
    thought = "<think>An MRI, so the answer is B.</think>"
    assert retell(f"{thought}\\boxed{{B}}", MODALITY, 0, bent=False) == f"{thought}\\boxed{{A}}"


def test_a_letter_alone_is_its_option_for_every_question_of_the_phantom() -> None:
    questions = {item.question for item in load("phantom:images=64").items}
    assert len(questions) > 50
    for question in questions:
        assert [parse(letter, question) for letter in question.letters] == [*range(len(question.options))]
        for option, words in enumerate(question.options):
            forms = (
                words,
                f"The answer is {words}.",
                f"<answer>{words}</answer>",
                f"{question.letters[option]}) {words}",
            )
            assert [parse(form, question) for form in forms] == [option] * len(forms), words
