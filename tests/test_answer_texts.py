"""A table of texts in the styles of model families, each with how a careful reader reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safemed_eval.core import Question
from safemed_eval.data import load
from safemed_eval.models.answers import parse, rationale, retell

TABLE = Path(__file__).parent / "answers" / "texts.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]
IDS = [f"{place}-{row['kind']}" for place, row in enumerate(ROWS, 1)]


def asked(row: dict[str, Any]) -> Question:
    return Question(text="Which?", options=tuple(row["options"]))


def read(row: dict[str, Any], text: str) -> str | None:
    option = parse(text, asked(row))
    return None if option is None else asked(row).letters[option]


def test_the_table_is_large_and_holds_no_row_twice() -> None:
    assert len(ROWS) >= 360 and len({(*row["options"], row["text"]) for row in ROWS}) == len(ROWS)
    assert sum(row["expected"] is None for row in ROWS) >= 120
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
