"""Names are matched without regard to case, and recorded in their own spelling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safemed_eval import attacks, data, models
from safemed_eval.cli import app
from safemed_eval.cli._options import DataOptions
from safemed_eval.errors import DataError, SpecError, canonical
from safemed_eval.models.checkpoints.prompts import TEMPLATES, read_template


def test_one_match_is_taken_and_two_are_not() -> None:
    assert canonical("PGD", ["fgsm", "pgd"]) == "pgd"
    assert canonical("ab", ["Ab", "ab"]) == "ab" and canonical("AB", ["Ab", "ab"]) is None
    assert canonical("pdg", ["pgd"]) is None


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("PGD:EPS=4/255,Steps=10,Loss=MARGIN", "pgd:eps=4/255,steps=10,loss=margin"),
        ("Noise:eps=4/255", "noise:eps=4/255"),
        ("Corrupt:Kind=JPEG,severity=3", "corrupt:kind=jpeg,severity=3"),
        ("ART:squareattack,EPS=4/255,Max_Iter=3", "art:SquareAttack,eps=4/255,max_iter=3"),
    ],
)
def test_attacks_options_and_choices(written: str, canonical: str) -> None:
    assert [str(one) for one in attacks.parse_all([written])] == [canonical]


def test_an_option_in_two_spellings_is_given_twice() -> None:
    for spec in ("pgd:eps=1/255,EPS=2/255", "corrupt:kind=jpeg,Kind=blur", "art:SquareAttack,max_iter=1,MAX_ITER=2"):
        with pytest.raises(SpecError, match="twice"):
            attacks.parse_all([spec])


def test_templates_and_a_file_of_nearly_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_template("THINK") == TEMPLATES["think"]
    monkeypatch.chdir(tmp_path)
    Path("Think").write_text("{question} {options}")
    assert read_template("Think").user == "{question} {options}"


def test_shipped_checkpoints() -> None:
    assert models.resolve("builtin:SFT").name == "builtin:sft"
    with pytest.raises(SpecError, match="did you mean 'sft'"):
        models.resolve("builtin:sfd")


def test_kinds_of_data() -> None:
    assert data.load("Phantom:Images=2,SPLIT=Train").sha256 == data.load("phantom:images=2,split=train").sha256
    assert data.is_made("PHANTOM") and not data.is_made("nothing")
    assert DataOptions(data="Phantom:Images=2,Split=Train").chosen(0)().name == "phantom:images=2,split=train"
    assert data.spelled("Phantom:Split=Train") == "phantom:split=train"
    assert data.spelled("TABLE:My.csv") == "table:My.csv"


def test_slices_that_the_data_name(tmp_path: Path) -> None:
    """Canonical names in any case, and those that only this data has, unless two of them differ by case alone."""
    rows = [
        {
            "id": name,
            "image": "i.png",
            "question": "?",
            "option_a": "a",
            "option_b": "b",
            "answer": "a",
            "modality": name,
        }
        for name in ("Endoscopy", "Scan", "SCAN", "CT")
    ]
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    loaded = data.load(f"table:{file}")
    for asked, items in (("ENDOSCOPY", ["Endoscopy"]), ("scan", None), ("Scan", ["Scan"]), ("ct", ["CT"])):
        if items is None:
            with pytest.raises(SpecError, match="the data has none; did you mean 'Scan'"):
                data.select(loaded, modalities=[asked])
        else:
            found = data.select(loaded, modalities=[asked])
            assert [one.id for one in (*found.items, *found.bad)] == items


def test_commands_options_and_their_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs record the canonical spelling."""
    monkeypatch.chdir(tmp_path)
    asked = ["Certify", "--Model", "builtin:SFT", "--data", "Phantom:Images=1", "--Limit", "1"]
    asked += [
        "--sigma",
        "0.25",
        "--Sampling",
        "Sequential",
        "--n",
        "40",
        "--radii",
        "0.1s",
        "--readout",
        "CHOICE",
        "--out",
        "run",
    ]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0, found.output
    meta = json.loads(Path("run/run.json").read_text())
    assert meta["names"]["model"] == "builtin:sft" and meta["names"]["data"] == "phantom:images=1"
    assert meta["spec"]["sampling"] == "sequential"
    with pytest.raises(DataError):
        data.load("TABLE:none.csv")
