"""Rationales under attack: figures by hand, and where they are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import certified, evaluated, write_run
from test_cli import call

from safemed_eval.core import Question
from safemed_eval.models.answers import parse
from safemed_eval.report import Run
from safemed_eval.report.findings.reasoning import (
    NOT_MEASURED,
    distance,
    reasoning,
    reasoning_sentences,
)
from safemed_eval.report.tables import tables_of
from safemed_eval.stats import clustered_proportion

PGD = "pgd:eps=4/255,steps=10"
LIVER, ROUND = "<think>It is a liver.</think><answer>B</answer>", "<think>Round.</think><answer>B</answer>"
TEXTS = [
    (LIVER, LIVER),
    (LIVER, "<think> it is  a LIVER.</think> <answer>A</answer>"),
    (LIVER, "<think>I see a lung.</think><answer>B</answer>"),
    (LIVER, "<think>I see a lung.</think><answer>A</answer>"),
    (LIVER, "<think>It is a liver.</think><answer>?</answer>"),
    (LIVER, "<answer>B</answer>"),
    (None, ROUND),
    (ROUND, None),
]
"""Clean and attacked: all the same; the answer alone; the rationale alone; both; the answer alone, lost; the rationale
lost; failed when clean; failed when attacked."""


def written(number: int, attack: str, text: str | None, **changes: Any) -> dict[str, Any]:
    if text is None:
        return evaluated(number, attack, False, prediction=None, log_probs=None, error="broken", **changes)
    answer = parse(text, Question(text="?", options=("lung", "liver", "eye")))
    return evaluated(number, attack, answer == 1, prediction=answer, text=text, log_probs=None, **changes)


def run_of(out: Path, copies: int = 1, **meta: Any) -> Path:
    """TEXTS, even items of CT and odd ones of MRI; the circular condition has no texts."""
    records = []
    for number, texts in enumerate(TEXTS * copies):
        about = {"modality": ("CT", "MRI")[number % 2], "question_type": "Disease Diagnosis"}
        records += [written(number, name, text, **about) for name, text in zip(("clean", PGD), texts, strict=True)]
        records.append(evaluated(number, "circular", True, rotations=[1, 1, 1], **about))
    return write_run(out, records, "evaluate", conditions=("clean", PGD, "circular"), **meta)


def test_what_was_written_by_hand(tmp_path: Path) -> None:
    found = reasoning(Run.read(run_of(tmp_path / "a")))
    assert found is not None and list(found.overall) == ["clean", PGD]
    clean, attacked = found.overall["clean"], found.overall[PGD]
    assert [(cell.n, cell.texts, cell.words) for cell in (clean, attacked)] == [(8, 7, 5), (8, 7, 5)]
    shares = ("parsable", "rationale", "self_consistency", "gold_agreement")
    assert [str(getattr(clean, key)) for key in shares] == ["87.5 (7/8)", "87.5 (7/8)", "100.0 (6/6)", "100.0 (6/6)"]
    assert [str(getattr(attacked, key)) for key in shares] == ["75.0 (6/8)", "75.0 (6/8)", "50.0 (2/4)", "60.0 (3/5)"]
    assert str(attacked.answer_alone) == "40.0 (2/5)"
    # "it is a liver." against "i see a lung.": one word of four, twice.
    assert attacked.rationale_changed.distance == pytest.approx(2 * 0.75 / 5)
    assert attacked.rationale_alone.distance == pytest.approx(0.75 / 2)
    assert str(attacked.rationale_changed) == "0.30 (2/5)"
    assert str(attacked.rationale_alone) == "0.38 (1/2)"
    assert clean.answer_alone is clean.rationale_changed is clean.rationale_alone is None
    bounds = clustered_proportion([True] * 2 + [False] * 3, range(5))
    assert attacked.answer_alone.lower == pytest.approx(bounds.lower)
    ct, mri = found.by_modality["CT"][PGD], found.by_modality["MRI"][PGD]
    assert [str(part.answer_alone) for part in (ct, mri)] == ["33.3 (1/3)", "50.0 (1/2)"]
    assert [str(part.self_consistency) for part in (ct, mri)] == ["50.0 (1/2)", "50.0 (1/2)"]
    assert found.by_question_type == {"Disease Diagnosis": found.overall}
    json.dumps(found.to_json(), allow_nan=False)
    changes = list(reasoning_sentences(found))[1]
    assert f": {PGD} rationale 0.30 (2/5), where the answer stayed 0.38 (1/2); answer alone 40.0 (2/5). " in changes
    assert list(reasoning_sentences(found))[-1] == NOT_MEASURED


def test_what_there_is_not_is_not_known(tmp_path: Path) -> None:
    """No texts, no figures; no rationales, nothing to agree with."""
    records = [evaluated(i, name, True) for i in range(3) for name in ("clean", PGD)]
    assert reasoning(Run.read(write_run(tmp_path / "a", records, "evaluate", conditions=("clean", PGD)))) is None
    assert reasoning(Run.read(write_run(tmp_path / "b", [certified(0, 900)], "certify"))) is None
    assert reasoning(Run.read(write_run(tmp_path / "c", [], "evaluate", items=3))) is None
    bare = [written(i, name, "<answer>B</answer>") for i in range(3) for name in ("clean", PGD)]
    found = reasoning(Run.read(write_run(tmp_path / "d", bare, "evaluate", conditions=("clean", PGD))))
    assert found is not None
    attacked = found.overall[PGD]
    unknown = ("self_consistency", "gold_agreement", "answer_alone", "rationale_changed", "rationale_alone")
    assert [getattr(attacked, key).share for key in unknown] == [None] * 5 and attacked.rationale_alone.distance is None
    assert str(attacked.self_consistency) == str(attacked.rationale_changed) == "n/a"
    assert str(attacked.rationale) == "0.0 (0/3)"
    assert len(list(reasoning_sentences(found))) == 2
    half = [record for record in bare if record["attack"] == PGD]
    found = reasoning(Run.read(write_run(tmp_path / "e", half, "evaluate", conditions=("clean", PGD))))
    assert found is not None and list(found.overall) == [PGD]


def test_tables_of_what_was_written(tmp_path: Path) -> None:
    runs = [
        Run.read(run_of(tmp_path / "a", sampled="8 of 80")),
        Run.read(write_run(tmp_path / "b", [certified(0, 9)], "certify")),
    ]
    tables = {table.name: table for table in tables_of(runs, radii="0")}
    assert [name for name in tables if name.startswith("reasoning")] == [
        *("reasoning", "reasoning-by-modality", "reasoning-by-question-type")
    ]
    shown = tables["reasoning"].shown
    assert shown["attack"].tolist() == ["clean", PGD] and "8 of 80" in tables["reasoning"].caption
    columns = ["items", "words", "self-consistent", "leads to gold", "answer alone changed", "rationale changed"]
    assert shown.loc[1, columns].tolist() == ["8", "5", "50.0 (2/4)", "60.0 (3/5)", "40.0 (2/5)", "0.30 (2/5)"]
    assert NOT_MEASURED in tables["reasoning"].caption
    values = tables["reasoning-by-modality"].values.set_index(["modality", "attack", "column"])
    assert values.loc[("CT", PGD, "answer alone changed"), ["count", "items"]].tolist() == [1, 3]
    assert ("CT", "clean", "answer alone changed") not in values.index
    code, _ = call("report", tmp_path / "a", "--out", tmp_path / "r")
    assert code == 0 and "50.0 (2/4)" in (tmp_path / "r/tables/reasoning.md").read_text()
    assert 'id="written"' in (tmp_path / "r/report.html").read_text()
    assert NOT_MEASURED in (tmp_path / "r/report.html").read_text()
    written = pd.read_csv(tmp_path / "r/tables/reasoning.csv")
    assert written["share"].notna().sum() == 4 + 7 and written["distance"].notna().sum() == 2


def test_the_distance_of_rationales_is_graded() -> None:
    said = "the nodule is small and round"
    assert distance(said, said) == 0 and distance(said, "no lesion seen") == 1
    one_word = distance(said, said.replace("small", "large"))
    assert one_word == pytest.approx(1 / 6) and one_word < distance(said, "round and small is the nodule") < 1
    assert distance(said, f"{said} today") == pytest.approx(1 / 13)


def test_rationales_whose_words_are_withheld_have_no_distance(tmp_path: Path) -> None:
    """Pseudonyms show only if texts differ."""
    records = [
        evaluated(i, name, True, text=None, log_probs=None, told={"words": 5, "rationale": said, "conclusion": 1})
        for i in range(4)
        for name, said in (("clean", "rationale-0"), (PGD, f"rationale-{i % 2}"))
    ]
    found = reasoning(Run.read(write_run(tmp_path / "a", records, "evaluate", conditions=("clean", PGD))))
    assert found is not None and str(found.overall[PGD].rationale_changed) == "n/a (2/4)"
