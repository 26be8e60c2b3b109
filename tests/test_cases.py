"""Small inputs that showed a fault, each a public report's situation; skipped where their folder is absent.

The texts of case 7 are in `test_answer_texts`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_cli import call, summary_of

from safemed_eval import data
from safemed_eval.core import Question
from safemed_eval.data.images.files import decode
from safemed_eval.models import Asking, load, resolve
from safemed_eval.runs import read_lines

CASES = Path(__file__).parents[1] / ".." / "shared" / "cases"
SOME = Question(text="Which?", options=("CT", "MRI", "X-Ray", "Ultrasound"))


@pytest.fixture
def case() -> Path:
    if not CASES.is_dir():
        pytest.skip("the folder of cases is not here")
    return CASES


def test_1_an_enhanced_file_is_shown_as_the_classic_one(case: Path) -> None:
    enhanced, classic = (decode(case / "1" / f"{kind}_ct.dcm") for kind in ("enhanced", "classic"))
    assert np.array_equal(enhanced.pixels, classic.pixels)
    assert "window 40/400" in enhanced.notes
    assert {128, 153, 0} <= set(np.unique(enhanced.pixels).tolist())


@pytest.mark.parametrize("name", ["6/eos", "6/eos_both", "7/box"])
def test_6_and_7_what_a_checkpoint_writes_is_read(case: Path, name: str, tmp_path: Path) -> None:
    asked = ["--model", case / name, "--data", "phantom:images=8", "--limit", 2, "--attack", "clean"]
    summary_of("evaluate", *asked, "--readout", "generate", "--max-new-tokens", 24, "--out", tmp_path / "run")
    assert {record["prediction"] for record in read_lines(tmp_path / "run")} == {1}


def test_12_no_letter_is_read_inside_an_open_thought(case: Path) -> None:
    model = load(resolve(str(case / "12" / "think")), device="cpu", asking=Asking())
    assert model.describe(SOME)["prompt"].endswith("<think>\n\n</think>\n\nAnswer:")


def test_13_tables_are_read_as_they_stand(case: Path) -> None:
    none = data.load(f"table:{case / '13' / 'none.csv'}").items
    assert [item.id for item in none] == ["007", "008", "009", "010"]
    assert [item.question.options[item.label] for item in none] == ["None", "N/A", "1.0", "O"]
    found = data.load(f"table:{case / '13' / 'nan.jsonl'}")
    options = {item.id: item.question.options for item in found.items}
    assert options["1"] == options["2"] == options["5"] == options["6"] == ("CT", "MRI")
    (refused,) = (bad for bad in found.bad if bad.id == "11")
    assert "not a list" in refused.reason


@pytest.mark.parametrize("name", ["llava_next", "deepseek_vl"])
def test_15_families_that_passed_keep_passing(case: Path, name: str) -> None:
    code, text = call("models", "check", case / "15" / name)
    assert code == 0, text


def test_17_padding_is_black_and_overlays_are_no_pixels(case: Path) -> None:
    one, two, padded = (decode(case / "17" / f"{name}.dcm") for name in ("overlay_bits", "no_overlay_bits", "padding"))
    assert np.array_equal(one.pixels, two.pixels)
    assert "padding left out" in padded.notes and padded.pixels.min() == 0
