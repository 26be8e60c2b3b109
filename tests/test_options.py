"""Options as tables hold them: columns, lists, objects, with letters in front, and with nothing at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safemed_eval import data
from safemed_eval.core import Item
from safemed_eval.data.records.questions import unlettered
from safemed_eval.errors import DataError

NAN = float("nan")
ROW = {"image": "x.png", "question": "Which?", "answer": "B"}


def read(tmp_path: Path, **fields: Any) -> Item | data.Bad:
    (tmp_path / "t.jsonl").write_text(json.dumps(ROW | fields))
    found = data.load(f"table:{tmp_path / 't.jsonl'}")
    return (*found.items, *found.bad)[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"options": ["CT", "MRI"]},
        {"options": {"A": "CT", "B": "MRI"}},
        {"options": {"B": "MRI", "A": "CT"}},
        {"options": {"a": "CT", " b ": "MRI", "c": None}},
        {"options": ["CT", "MRI", None, NAN, ""]},
        {"options": ["A) CT", "B) MRI"]},
        {"options": ["A. CT", "B. MRI"], "answer": "B. MRI"},
        {"options": ["(A) CT", "(B) MRI"], "answer": "MRI"},
        {"options": ["a)CT", "b: MRI"], "answer": "b: MRI"},
        {"options": {"A": "A) CT", "B": "B) MRI"}},
        {"option_a": "A) CT", "option_b": "B) MRI", "answer": "B) MRI"},
        {"option_a": "CT", "option_b": "MRI", "option_c": NAN, "option_d": None, "options": NAN},
    ],
)
def test_the_same_question_in_every_writing(tmp_path: Path, fields: dict[str, Any]) -> None:
    item = read(tmp_path, **fields)
    assert isinstance(item, Item) and item.question.options == ("CT", "MRI") and item.label == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"options": "['CT', 'MRI']"}, "options is \"['CT', 'MRI']\", not a list; write one in JSONL, or columns"),
        ({"options": 7}, "options is 7, not a list"),
        ({"options": {"A": "CT", "C": "MRI"}}, "the keys of options are ['A', 'C']; they must be the letters"),
        ({"options": {"1": "CT", "2": "MRI"}}, "they must be the letters A, B, ..."),
        ({"options": {"A": "CT", "a": "MRI"}}, "they must be the letters A, B, ..."),
        ({"options": {}}, "needs 2 to"),
        ({"options": ["CT", None, "MRI"]}, "an option is empty"),
        ({"options": ["A) CT", "B) CT"]}, "equals more than one of the options"),
        ({"options": ["A) CT", "B) CT"], "answer": "B) CT"}, "equals more than one of the options"),
        ({"options": ["A) CT", "B) MRI"], "answer": "B) CT"}, "equals none of the options"),
        ({"options": ["CT", "MRI"], "answer": NAN}, "is not text"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    bad = read(tmp_path, **fields)
    assert isinstance(bad, data.Bad) and reason in bad.reason


@pytest.mark.parametrize(
    "options",
    [
        ["A) CT", "MRI"],  # not all carry one
        ["A. baumannii", "E. coli"],
        ["A", "B"],
        ["A.B. Smith", "B.C. Jones"],
        ["A)", "B)"],
    ],
)
def test_letters_that_belong_to_the_text_stay(options: list[str]) -> None:
    assert unlettered(options) == options


def test_letters_in_another_order_are_refused() -> None:
    """The answer A could be the first option, or the one that says A."""
    with pytest.raises(DataError, match="carry the letters B, A; write them in order"):
        unlettered(["B) CT", "A) MRI"])


def test_nan_is_no_name(tmp_path: Path) -> None:
    item = read(tmp_path, options=["CT", "MRI"], modality=NAN, question_type=NAN, patient_id=NAN, id=NAN)
    assert isinstance(item, Item)
    assert (item.modality, item.question_type, item.patient_id, item.id) == (None, None, None, "row 1")


def test_the_words_of_a_csv_are_kept(tmp_path: Path) -> None:
    """None, N/A and 1.0 are options, 007 is an id, and O is no nought."""
    lines = [
        "\ufeffid;image;question;option_a;option_b;option_c;option_d;answer",
        '007;x.png;"How many nodules; count";None;Two;One;Three;A',
        "008;x.png;Which?;N/A;NULL;nan;NA;N/A",
        "009;x.png;Size?;1.0;1.00;2;10;1.0",
        "010;x.png;Which class?;A;B;O;AB;O",
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    found = data.load(f"table:{tmp_path / 't.csv'}")
    assert not found.bad
    assert [(item.id, item.question.options, item.label) for item in found.items] == [
        ("007", ("None", "Two", "One", "Three"), 0),
        ("008", ("N/A", "NULL", "nan", "NA"), 0),
        ("009", ("1.0", "1.00", "2", "10"), 0),
        ("010", ("A", "B", "O", "AB"), 2),
    ]


def test_raw_omnimedvqa_shares_it(tmp_path: Path) -> None:
    record = {"question_id": "q", "question": "Which?", "image_path": "x.png", "gt_answer": "B) MRI"}
    record |= {"option_A": "A) CT", "option_B": "B) MRI"}
    (tmp_path / "QA_information" / "Open-access").mkdir(parents=True)
    (tmp_path / "QA_information" / "Open-access" / "x.json").write_text(json.dumps([record]))
    (item,) = data.load(f"omnimedvqa:{tmp_path}").items
    assert item.question.options == ("CT", "MRI") and item.label == 1
