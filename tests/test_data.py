"""Loaders, selection and verification, on drawn files and on real ones."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from conftest import draw_table
from PIL import Image

from safemed_eval import data
from safemed_eval.core import MODALITIES, QUESTION_TYPES, Item
from safemed_eval.data.sources.medr1 import split_problem
from safemed_eval.errors import DataError, SpecError

Find = Callable[[str], Path]


# ---------------------------------------------------------------- OmniMedVQA


def raw_record(number: int = 0, **changes: Any) -> dict[str, Any]:
    record = {
        "dataset": "Drawn",
        "question_id": f"Drawn_{number:04}",
        "question_type": "Modality Recognition",
        "question": "What is it?",
        "gt_answer": "MRI",
        "image_path": "Images/Drawn/0.png",
        "option_A": "CT",
        "option_B": "MRI",
        "option_C": "X-Ray",
        "option_D": "PET",
        "modality_type": "MR (Mag-netic Resonance Imaging)",
    }
    return {key: value for key, value in {**record, **changes}.items() if value is not None}


def write_raw(folder: Path, records: list[dict[str, Any]]) -> str:
    (folder / "QA_information/Open-access").mkdir(parents=True)
    (folder / "QA_information/Open-access/Drawn.json").write_text(json.dumps(records))
    (folder / "Images/Drawn").mkdir(parents=True)
    Image.new("RGB", (20, 20), (9, 99, 200)).save(folder / "Images/Drawn/0.png")
    return f"omnimedvqa:{folder}"


def test_omnimedvqa_real_set(real_data: Find) -> None:
    loaded = data.verify(data.load(f"omnimedvqa:{real_data('omnimed_real')}"))
    assert (len(loaded.items), len(loaded.bad)) == (755, 0)
    assert len({item.image_sha256 for item in loaded.items}) == 217
    assert {item.modality for item in loaded.items} == set(MODALITIES)
    assert {item.question_type for item in loaded.items} == set(QUESTION_TYPES)
    assert Counter(len(item.question.options) for item in loaded.items) == {4: 649, 2: 89, 3: 17}


def test_omnimedvqa_spellings(tmp_path: Path) -> None:
    spellings = {
        "CT(Computed Tomography)": "CT",
        "MR (Mag-netic Resonance Imaging)": "MRI",
        "OCT (Optical Coherence Tomography": "OCT",
        "Microscopy Images": "Microscopy",
        "ultrasound": "Ultrasound",
        "X-Ray": "X-Ray",
        "Endoscopy": "Endoscopy",
    }
    records = [raw_record(i, modality_type=raw) for i, raw in enumerate(spellings)]
    records.append(raw_record(99, modality_type=None, modality="Fundus Photography"))
    loaded = data.load(write_raw(tmp_path, records))
    assert [item.modality for item in loaded.items] == [*spellings.values(), "Fundus Photography"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gt_answer": "PET scan"}, "equals none of the options"),
        ({"option_A": "MRI"}, "equals 2 of the options"),
        ({"gt_answer": None}, "no gold answer"),
        ({"question": " "}, "the question is empty"),
        ({"option_B": None, "gt_answer": "CT"}, "an option is empty"),
        (
            {"option_A": "MRI", "option_B": None, "option_C": None, "option_D": None},
            "option_b, ...), has 1",
        ),
        ({"image_path": None}, "no image path"),
        ({"image_path": "Images/Drawn/1.png"}, "image not found"),
        ({"image_path": "../secret.png"}, "leaves the data root"),
        ({"image_path": "/etc/passwd"}, "is not inside"),
        ({"question_id": "Drawn_0000"}, "id occurs twice"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    spec = write_raw(tmp_path / "raw", [raw_record(0), raw_record(**{"number": 1, **changes})])
    loaded = data.verify(data.load(spec))
    assert len(loaded.items) == 1 and len(loaded.bad) == 1
    assert loaded.bad[0].id in ("Drawn_0001", "Drawn_0000")
    assert reason in loaded.bad[0].reason


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    spec = write_raw(tmp_path / "raw", [raw_record(0, image_path="Images/Drawn/link.png")])
    Image.new("RGB", (9, 9)).save(tmp_path / "outside.png")
    (tmp_path / "raw/Images/Drawn/link.png").symlink_to(tmp_path / "outside.png")
    assert "leaves the data root" in data.verify(data.load(spec)).bad[0].reason


def test_two_options_are_enough(tmp_path: Path) -> None:
    spec = write_raw(tmp_path, [raw_record(0, option_C=None, option_D=None)])
    assert data.load(spec).items[0].question.options == ("CT", "MRI")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("omnimed:/tmp", SpecError, "did you mean 'omnimedvqa'"),
        ("omnimedvqa", SpecError, "needs a path"),
        ("omnimedvqa:/nowhere", DataError, "no such file or folder"),
    ],
)
def test_bad_data_names(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        data.load(spec)


def test_not_the_raw_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="QA_information"):
        data.load(f"omnimedvqa:{tmp_path}")
    (tmp_path / "QA_information/x").mkdir(parents=True)
    (tmp_path / "QA_information/x/a.json").write_text('[{"a": 1},')
    with pytest.raises(DataError, match="broken JSON at line 1"):
        data.load(f"omnimedvqa:{tmp_path}")


# ------------------------------------------------------------------- Med-R1


@pytest.mark.parametrize(
    ("problem", "text", "options"),
    [
        ("What is it? A)MRI, B)CT", "What is it?", ["MRI", "CT"]),
        (
            "Which (CTA) is it? A)COPD (COPD), B)Foo (PD), C)a, b",
            "Which (CTA) is it?",
            ["COPD (COPD)", "Foo (PD)", "a, b"],
        ),
        ("Q A)Stage A, T2 N0, B)no, C)It's B), really., D)x.", "Q", ["Stage A, T2 N0", "no", "It's B), really.", "x."]),
    ],
)
def test_problems_are_split_in_sequence(problem: str, text: str, options: list[str]) -> None:
    assert split_problem(problem) == (text, options)


@pytest.mark.parametrize("problem", ["no options", "Q A)x A)y, B)z", "Q A)x, B)y, B)z"])
def test_ambiguous_problems_are_refused(problem: str) -> None:
    with pytest.raises(DataError, match="occurs"):
        split_problem(problem)


def test_medr1_real_splits(real_data: Find) -> None:
    """All 2,600 sampled records parse; 100 questions occur in files of both kinds and are one item each."""
    folder = real_data("medr1_splits")
    loaded = data.load(f"medr1:{folder}")
    assert (len(loaded.items), len(loaded.bad)) == (2500, 0)
    assert Counter((i.modality is None, i.question_type is None) for i in loaded.items) == {
        (False, True): 1500,
        (True, False): 900,
        (False, False): 100,
    }
    for file in sorted(folder.rglob("*_test.json")):
        one = data.load(f"medr1:{file}")
        records = json.loads(file.read_text())
        assert len(one.items) == len(records) == 200
        for item, record in zip(one.items, records, strict=True):
            letter = item.question.letters[item.label]
            assert record["solution"] == f"<answer> {letter} </answer>"
            options = [f"{key}){text}" for key, text in zip("ABCD", item.question.options, strict=False)]
            assert record["problem"].split() == " ".join([item.question.text, ", ".join(options)]).split()


def test_medr1_joins_the_other_slice_from_raw_files(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", [raw_record(0)])
    split = tmp_path / "MR (Mag-netic Resonance Imaging)_test.json"
    problem = "What is it? A)CT, B)MRI, C)X-Ray, D)PET"
    split.write_text(
        json.dumps([{"image": "Images/Drawn/0.png", "problem": problem, "solution": "<answer> B </answer>"}])
    )
    alone = data.load(f"medr1:{split}").items[0]
    assert (alone.modality, alone.question_type, alone.label) == ("MRI", None, 1)
    joined = data.verify(data.load(f"medr1:{split}", tmp_path / "raw")).items[0]
    assert (joined.modality, joined.question_type) == ("MRI", "Modality Recognition")
    assert joined.id == alone.id


def test_medr1_refuses_a_mixture_of_train_and_test(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / f"X-Ray_{part}.json").write_text("[]")
    with pytest.raises(DataError, match="holds train and test"):
        data.load(f"medr1:{tmp_path}")


def test_medr1_bad_records_are_named(tmp_path: Path) -> None:
    file = tmp_path / "X-Ray_test.json"
    good = {"image": "a.png", "problem": "Q? A)x, B)y", "solution": "<answer> A </answer>"}
    bad = [
        {"solution": "<answer> C </answer>"},
        {"solution": "A"},
        {"problem": "Q?"},
        {"image": ["a.png"], "problem": 3},
    ]
    file.write_text(json.dumps([good, good, *({**good, **one} for one in bad)]))
    loaded = data.load(f"medr1:{file}")
    assert [item.id.startswith("a.png#") for item in loaded.items] == [True, True]
    reasons = " | ".join(one.reason for one in loaded.bad)
    for expected in ("gold letter C but only 2", "is not '<answer>", "' A)' occurs 0 times"):
        assert expected in reasons
    assert len(loaded.bad) == 4


# -------------------------------------------------------------------- tables


def test_table_csv(table: Path) -> None:
    loaded = data.verify(data.load(f"table:{table}"))
    assert len(loaded.items) == 8 and not loaded.bad
    first, second = loaded.items[:2]
    assert first.question.options == ("a lung", "a liver") and first.label == 1
    assert second.question.options == ("a lung", "a liver", "an eye")
    assert (first.modality, first.question_type, first.patient_id) == ("CT", "Anatomy Identification", "p0")
    assert first.extra == {"scanner": "S1"}
    assert first.cluster == "p0"


def test_table_jsonl_and_letters(tmp_path: Path) -> None:
    Image.new("L", (5, 5)).save(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "question": "Q?", "options": ["x", "y"], "answer": "b"},
        {"image": "a.png", "question": "Q?", "Option_A": "x", "Option_B": "y", "answer": "x"},
        {"image": "a.png", "question": "Q?", "options": ["B", "A"], "answer": "A"},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    loaded = data.load(f"table:{tmp_path / 't.jsonl'}")
    assert [(item.id, item.label) for item in loaded.items] == [("row 1", 1), ("row 2", 0)]
    assert "letter of one option and the text of another" in loaded.bad[0].reason


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_as_spreadsheets_write_them(tmp_path: Path, delimiter: str) -> None:
    """Other delimiters, absolute paths into the folder, line separators inside a cell, blank lines."""
    Image.new("L", (5, 5)).save(tmp_path / "a.png")
    rows = [
        ["image", "question", "option_a", "option_b", "answer"],
        [str(tmp_path / "a.png"), "Q\u2028?", "x", "y", "b"],
    ]
    (tmp_path / "t.csv").write_text("\r\n\r\n".join(map(delimiter.join, rows)), encoding="utf-8-sig", newline="")
    loaded = data.verify(data.load(f"table:{tmp_path / 't.csv'}"))
    assert not loaded.bad
    (item,) = loaded.items
    assert (item.image, item.question.text, item.label) == ("a.png", "Q\u2028?", 1)


def test_an_answer_that_is_a_number_is_refused(tmp_path: Path) -> None:
    row = {"image": "a.png", "question": "Q?", "options": ["1", "2"], "answer": 2}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    assert "answer 2 is not text" in data.load(f"table:{tmp_path / 't.jsonl'}").bad[0].reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "image,question\na.png,Q?\n", "no column answer"),
        ("t.csv", "image,question,answer,option_a\na.png,Q?,x\n", "line 2 has 3 cells, the header has 4"),
        ("t.csv", 'image;question;answer\na.png;"Q\n1;";x\na.png;Q;1;x\n', "line 4 has 4 cells.*holds ';'"),
        ("t.csv", "image,question,answer,answer\na.png,Q?,x,y\n", "two columns have the same name"),
        ("t.jsonl", '{"image": 1, "Image": 2}', "line 1: two columns have the same name"),
        ("t.csv", b"\xff\xfe\x00", "not UTF-8"),
        ("t.jsonl", '{"image": 1}\n{', "broken JSON at line 2"),
        ("t.jsonl", "[1]", "line 1 is not an object"),
        ("t.xlsx", "x", "a table is a .csv, .tsv or .jsonl file"),
        ("t.csv", "", "found no questions"),
    ],
)
def test_broken_tables_say_where(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        data.load(f"table:{file}")


def test_all_missing_columns_are_named_at_once_with_guesses(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("Image_Path,Question Text,question_type,gold standard answer,Option A\nx,y,z,a,b\n")
    with pytest.raises(DataError) as error:
        data.load(f"table:{file}")
    said = str(error.value)
    assert "no column image, question, answer, option_a; did you mean 'image_path' for image" in said
    assert "'question text' for question, 'gold standard answer' for answer, 'option a' for option_a?" in said
    file.write_text("image,question,x,option_a,option_b\n1,2,3,4,5\n")
    with pytest.raises(DataError, match="no column answer; it has image"):
        data.load(f"table:{file}")


def test_an_option_column_of_another_spelling_is_named(tmp_path: Path) -> None:
    """Else its option would be missing in every row, or the question would have one option less."""
    for first, second, said in (
        ("optionA", "option_b", "no column option_a; did you mean 'optiona' for option_a?"),
        ("option_a", "Option B", "no column option_b; did you mean 'option b' for option_b?"),
        ("option_a", "option_2", "no column option_b; did you mean 'option_2' for option_b?"),
        ("Option_A", "choice_b", "no column option_b; did you mean 'choice_b' for option_b?"),
        ("option_0", "option_1", "no column option_a, option_b; did you mean 'option_0' for option_a, 'option_1'"),
        ("option_1", "option_2", "no column option_a, option_b; did you mean 'option_1' for option_a, 'option_2'"),
        ("option_a", "optoin_b", "no column option_b; did you mean 'optoin_b' for option_b?"),
        ("opt_a", "option_b", "no column option_a; did you mean 'opt_a' for option_a?"),
        ("A", "B", "no column option_a, option_b; did you mean 'a' for option_a, 'b' for option_b?"),
    ):
        (tmp_path / "t.csv").write_text(f"image,question,{first},{second},answer\na.png,Which?,CT,MRI,A\n")
        with pytest.raises(DataError, match=re.escape(said)):
            data.load(f"table:{tmp_path}/t.csv")


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("modalty", "modality"),
        ("PatientID", "patient_id"),
        ("patient", "patient_id"),
        ("subject_id", "patient_id"),
        ("operator_c", None),
        ("position_x", None),
        ("optional", None),
        ("question type", "question_type"),
        ("mortality", None),
        ("patient_age", None),
    ],
)
def test_a_known_column_misspelt_is_refused(tmp_path: Path, column: str, meant: str | None) -> None:
    """Else its items would be of an unknown modality, or each patient's images would count as several patients'."""
    (tmp_path / "t.csv").write_text(f"image,question,option_a,option_b,answer,{column}\na.png,Which?,CT,MRI,A,x\n")
    if meant:
        said = f"the column '{column.lower()}' would not be read as {meant}; rename it"
        with pytest.raises(DataError, match=re.escape(said)):
            data.load(f"table:{tmp_path}/t.csv")
    else:
        assert data.load(f"table:{tmp_path}/t.csv").items[0].extra == {column: "x"}


def test_a_broken_row_does_not_hide_the_others(tmp_path: Path) -> None:
    loaded = data.verify(data.load(f"table:{draw_table(tmp_path, answer='a kidney')}"))
    assert [bad.id for bad in loaded.bad] == ["q3"]
    assert len(loaded.items) == 7


# ---------------------------------------------------------- selection, canvas


def ids(loaded: data.DataSet) -> list[str]:
    return [item.id for item in loaded.items]


def test_samples_are_seeded_nested_and_stratified(tmp_path: Path) -> None:
    loaded = data.load(f"table:{draw_table(tmp_path, rows=40)}")
    two, five = (data.select(loaded, per_group=k, seed=1) for k in (2, 5))
    groups = Counter((item.modality, item.question_type) for item in five.items)
    assert set(groups.values()) == {5} and len(groups) == 4
    assert set(ids(two)) < set(ids(five))
    assert ids(five) == [one for one in ids(loaded) if one in ids(five)], "data order is kept"
    assert ids(data.select(loaded, per_group=5, seed=2)) != ids(five)
    assert set(ids(data.select(loaded, limit=3))) < set(ids(data.select(loaded, limit=9)))
    many = data.select(loaded, per_group=50)
    assert len(many.items) == 40 and many.sampled is None, "nothing was left out"
    assert data.select(loaded, limit=40).sampled is None


def test_filters(tmp_path: Path) -> None:
    loaded = data.load(f"table:{draw_table(tmp_path)}")
    assert len(data.select(loaded, modalities=["ct"]).items) == 4
    assert len(data.select(loaded, modalities=["CT", "MRI"], question_types=["disease diagnosis"]).items) == 4
    with pytest.raises(SpecError, match="did you mean 'MRI'"):
        data.select(loaded, modalities=["MRX"])
    with pytest.raises(SpecError, match="at least 1"):
        data.select(loaded, limit=0)


def test_data_hash_knows_what_matters(tmp_path: Path) -> None:
    base = data.verify(data.load(f"table:{draw_table(tmp_path / 'a')}")).sha256
    assert data.verify(data.load(f"table:{draw_table(tmp_path / 'b')}")).sha256 == base
    changed = data.verify(data.load(f"table:{draw_table(tmp_path / 'c', option_a='a heart')}"))
    assert changed.sha256 != base
    path = draw_table(tmp_path / "d")
    Image.new("RGB", (48, 64)).save(path.parent / "3.png")
    assert data.verify(data.load(f"table:{path}")).sha256 != base


@pytest.mark.parametrize(("text", "shape"), [("32x48", (3, 32, 48)), ("native", (3, 48, 64)), (None, (3, 384, 384))])
def test_canvases(table: Path, text: str | None, shape: tuple[int, ...]) -> None:
    loaded = data.load(f"table:{table}")
    canvas = data.canvas_of(loaded.items[0], data.parse_canvas(text, "stretch", loaded.canvas))
    assert canvas.shape == shape and canvas.dtype == torch.float32
    grey = canvas.double() * 255
    assert (grey - grey.round()).abs().max() < 1e-4, "the canvas lies on 8-bit grey levels"


@pytest.mark.parametrize("text", ["384", "0x10", "4x4", "99999x3", "axb", "-1x20", "384x384x3"])
def test_bad_canvases(text: str) -> None:
    with pytest.raises(SpecError, match="HEIGHTxWIDTH"):
        data.parse_canvas(text, "stretch", data.Canvas(size=None))


def test_padding_keeps_the_aspect_ratio(table: Path) -> None:
    item: Item = data.load(f"table:{table}").items[0]
    canvas = data.canvas_of(item, data.Canvas(size=(64, 64), fit="pad"))
    assert canvas[:, :8].abs().max() == 0 and canvas[:, -8:].abs().max() == 0
    assert canvas[:, 8:-8].mean() > 0.3


# ------------------------------------------------------------ what a breaker found


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"options": ["C) US", "A) CT", "B) MRI"]}, "carry the letters C, A, B; write them in order"),
        ({"options": ["CT", "MRI"], "option_a": "MRI", "option_b": "CT"}, "has both options"),
        ({"options": "CT, MRI", "option_a": "CT", "option_b": "MRI"}, "has both options"),
    ],
)
def test_a_letter_that_could_mean_two_options_is_refused(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    Image.new("L", (5, 5)).save(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.png", "question": "Q?", "answer": "A", **row}))
    assert reason in data.load(f"table:{tmp_path / 't.jsonl'}").bad[0].reason


def test_options_that_only_begin_like_letters_stay_as_they_are(tmp_path: Path) -> None:
    Image.new("L", (5, 5)).save(tmp_path / "a.png")
    row = {"image": "a.png", "question": "Q?", "options": ["S. aureus", "E. coli"], "answer": "B", "a": "x"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    (item,) = data.load(f"table:{tmp_path / 't.jsonl'}").items
    assert (item.question.options, item.label, item.extra) == (("S. aureus", "E. coli"), 1, {"a": "x"})


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
def test_accents_and_folders_are_found_however_they_are_written(tmp_path: Path, disk: Literal["NFC", "NFD"]) -> None:
    """A Mac writes an accent as a character of its own, and Windows separates folders by backslashes."""
    (tmp_path / "scans").mkdir()
    Image.new("L", (5, 5)).save(tmp_path / "scans" / unicodedata.normalize(disk, "caf\u00e9.png"))
    row = {"question": "Q?", "options": ["caf\u00e9", "tea"], "answer": "cafe\u0301"}
    images = ["scans/caf\u00e9.png", "scans\\cafe\u0301.png", "..\\caf\u00e9.png"]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row | {"image": image}) for image in images))
    loaded = data.verify(data.load(f"table:{tmp_path / 't.jsonl'}"))
    assert [item.label for item in loaded.items] == [0, 0]
    assert "image not found" in loaded.bad[0].reason


def test_the_line_that_only_excel_reads_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\nimage;question;option_a;option_b;answer\na.png;Q?;CT;MRI;A\n")
    with pytest.raises(DataError, match=r"line 1 is 'sep=;', which only Excel reads; delete it"):
        data.load(f"table:{tmp_path}/t.csv")


def test_describe_names_patients_and_further_columns(tmp_path: Path) -> None:
    described = data.describe(data.load(f"table:{draw_table(tmp_path)}"))
    assert (described.patients, described.columns) == (4, ("scanner",))


def test_a_gold_letter_whose_text_occurs_twice_is_refused(tmp_path: Path) -> None:
    """A model that chooses the twin would count as wrong."""
    table = draw_table(tmp_path, option_a="a liver", answer="B")
    assert "equals more than one of the options" in data.load(f"table:{table}").bad[0].reason


def test_half_characters_are_bad_items(tmp_path: Path) -> None:
    Image.new("L", (5, 5)).save(tmp_path / "a.png")
    fine = {"image": "a.png", "question": "Q?", "options": ["x", "y"], "answer": "x", "id": "fine", "modality": "CT"}
    half = [fine | {"id": "\ud800"}] + [fine | {key: "\ud800", "id": key} for key in ("question", "modality", "image")]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in [fine, *half]))
    loaded = data.verify(data.load(f"table:{tmp_path / 't.jsonl'}"))
    assert ids(loaded) == ["fine"] and len(loaded.bad) == 4
    for bad in loaded.bad:
        assert "lone surrogate" in bad.reason and str(bad).encode()


def test_a_link_that_leads_to_itself_is_a_bad_item(tmp_path: Path) -> None:
    table = draw_table(tmp_path, image="loop.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert [bad.id for bad in data.verify(data.load(f"table:{table}")).bad] == ["q3"]


def test_json_without_end_is_refused(tmp_path: Path) -> None:
    for content in ("[" * 100_000, '{"image": ' + "9" * 5000 + "}"):
        (tmp_path / "t.jsonl").write_text(content)
        with pytest.raises(DataError, match=r"t\.jsonl"):
            data.load(f"table:{tmp_path / 't.jsonl'}")


def test_an_image_that_changes_during_the_run_is_refused(table: Path) -> None:
    loaded = data.verify(data.load(f"table:{table}"))
    (table.parent / "0.png").write_bytes((table.parent / "1.png").read_bytes())
    for read in (data.pixels_of, lambda item: data.canvas_of(item, loaded.canvas)):
        with pytest.raises(DataError, match="has changed since the run began"):
            read(loaded.items[0])
        read(loaded.items[1])
