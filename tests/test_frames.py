"""Frames of a file by number, options as others write them, and small files that were shown wrongly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import call

from safemed_eval import data
from safemed_eval.data import pixels_of
from safemed_eval.data._images import decode

CASES = Path(__file__).parents[1] / ".." / "shared" / "cases"


@pytest.fixture
def case() -> Path:
    if not CASES.is_dir():
        pytest.skip("the folder of cases is not here")
    return CASES


def table(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"table:{folder / 't.jsonl'}"


def stack(path: Path, frames: int = 9) -> None:
    """Frame k, from 1, is of the grey 20 k."""
    pages = [Image.new("L", (8, 8), 20 * (k + 1)) for k in range(frames)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def asked(image: str, **more: Any) -> dict[str, Any]:
    return {"id": image, "image": image, "question": "Which?", "options": ["CT", "MRI"], "answer": "A", **more}


# ------------------------------------------------------------------------------------------------------------- frames


def test_a_frame_is_named_by_its_number_or_is_the_middle_one(tmp_path: Path) -> None:
    stack(tmp_path / "x.tif")
    names = ["x.tif", "x.tif#1", "x.tif#7", "x.tif#9"]
    found = data.load(table(tmp_path, [asked(name) for name in names])).items
    assert [int(pixels_of(item).mean()) for item in found] == [100, 20, 140, 180]
    verified = data.verify(data.load(table(tmp_path, [asked(name) for name in names])))
    assert verified.notes == {
        f"frame {k} of 9{more}": 1 for k, more in ((5, " (the middle one)"), (1, ""), (7, ""), (9, ""))
    }


@pytest.mark.parametrize("number", [0, 10])
def test_a_frame_that_is_not_there_is_told_with_how_many_there_are(tmp_path: Path, number: int) -> None:
    stack(tmp_path / "x.tif")
    _, text = call("data", "describe", table(tmp_path, [asked(f"x.tif#{number}")]))
    assert f"there is no frame {number}: the image has 9 frames, numbered from 1" in text


def test_a_file_whose_name_has_a_number_sign_is_that_file(tmp_path: Path) -> None:
    stack(tmp_path / "x.tif")
    Image.new("L", (8, 8), 7).save(tmp_path / "x.tif#7", "PNG")
    Image.new("L", (8, 8), 9).save(tmp_path / "plan#b.png")
    found = data.load(table(tmp_path, [asked("x.tif#7"), asked("plan#b.png")])).items
    assert [int(pixels_of(item).mean()) for item in found] == [7, 9]


def test_frames_of_a_file_are_two_images_of_one_cluster(tmp_path: Path) -> None:
    stack(tmp_path / "x.tif")
    verified = data.verify(data.load(table(tmp_path, [asked("x.tif#2"), asked("x.tif#3")])))
    first, second = verified.items
    assert first.pixels_sha256 != second.pixels_sha256
    assert first.cluster == second.cluster, "intervals count the file once"


def test_a_frame_stays_inside_the_root(tmp_path: Path) -> None:
    inner = tmp_path / "in"
    inner.mkdir()
    stack(tmp_path / "x.tif")
    _, text = call("data", "describe", table(inner, [asked("../x.tif#2")]))
    assert "outside" in text or "leaves" in text, text


# ------------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "answer", "read", "label"),
    [
        ({"A": "CT", "B": "MRI"}, "B", ("CT", "MRI"), 1),
        ({"B": "MRI", "A": "CT"}, "MRI", ("CT", "MRI"), 1),
        (["A) CT", "B) MRI"], "B", ("CT", "MRI"), 1),
        (["A. CT", "B. MRI"], "B. MRI", ("CT", "MRI"), 1),
        (["(A) CT", "(B) MRI"], "CT", ("CT", "MRI"), 0),
        (["B) CT", "A) MRI"], "B", ("B) CT", "A) MRI"), 1),
        (["A) CT", "MRI"], "B", ("A) CT", "MRI"), 1),
        (["CT", "MRI", None, float("nan")], "B", ("CT", "MRI"), 1),
    ],
)
def test_options_as_others_write_them(
    tmp_path: Path, options: Any, answer: str, read: tuple[str, ...], label: int
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    (item,) = data.load(table(tmp_path, [asked("x.png", options=options, answer=answer)])).items
    assert item.question.options == read and item.label == label


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("['CT', 'MRI']", "options is \"['CT', 'MRI']\", not a list; write one in JSONL"),
        ({"A": "CT", "C": "MRI"}, "they must be the letters A, B, ... without a gap"),
        ({"first": "CT", "second": "MRI"}, "they must be the letters"),
    ],
)
def test_options_that_cannot_be_read_are_told(tmp_path: Path, options: Any, why: str) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    found = data.load(table(tmp_path, [asked("x.png", options=options, answer="B")]))
    assert not found.items and why in found.bad[0].reason


# -------------------------------------------------------------------------------------------------------------- cases


def test_case_1_shows_an_enhanced_file_as_the_classic_one(case: Path) -> None:
    enhanced, classic = (decode(case / "1" / f"{kind}_ct.dcm") for kind in ("enhanced", "classic"))
    assert np.array_equal(enhanced.pixels, classic.pixels)
    assert "window 40/400" in enhanced.notes
    assert {128, 153, 0} <= set(np.unique(enhanced.pixels).tolist())


def test_case_13_is_read_as_it_stands(case: Path) -> None:
    none = data.load(f"table:{case / '13' / 'none.csv'}").items
    assert [item.id for item in none] == ["007", "008", "009", "010"]
    assert [item.question.options[item.label] for item in none] == ["None", "N/A", "1.0", "O"]
    found = data.load(f"table:{case / '13' / 'nan.jsonl'}")
    options = {item.id: item.question.options for item in found.items}
    assert options["1"] == options["2"] == options["5"] == options["6"] == ("CT", "MRI")
    (refused,) = (bad for bad in found.bad if bad.id == "11")
    assert "not a list" in refused.reason


def test_case_17_shows_no_padding_and_no_overlay(case: Path) -> None:
    one, two, padded = (decode(case / "17" / f"{name}.dcm") for name in ("overlay_bits", "no_overlay_bits", "padding"))
    assert np.array_equal(one.pixels, two.pixels)
    assert "padding left out" in padded.notes and padded.pixels.min() == 0
