"""Runs of certificates against patches: commands, records, reports, the gate, bad input, and training for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import draw_table
from synthetic import certified, failed, item, numbers, write_run
from test_cli import _records, call, seconds_aside, shared, summary_of
from test_figures import drawn

import safemed_eval as se
from safemed_eval.errors import RunError, SpecError
from safemed_eval.report import Run, read_all
from safemed_eval.report.compare import compare
from safemed_eval.report.curves import curve_of
from safemed_eval.report.findings.falsified import falsified_of
from safemed_eval.report.page import write_page
from safemed_eval.report.tables import cohen, tables_of
from safemed_eval.smoothing import Exhaustive, PatchSearch, View, read_bands

__all__ = ["shared"]  # fixtures
Json = dict[str, Any]
NOISE = "patch:size=4,band=8,stride=4"
BUDGET = Exhaustive(noise="patch:size=32,band=48,stride=4")
VIEW = View(height=384, width=384)


def banded(number: int, *votes: int, **changes: Any) -> Json:
    """A certificate from these votes for the three options and "no answer", 96 in all; option 1 is right."""
    found = read_bands(votes, BUDGET.kind, VIEW)
    values = {
        "sampling": "exhaustive",
        "noise": BUDGET.noise,
        "view": {"height": 384, "width": 384},
        "fill": [0.5, 0.5, 0.5],
        "votes": list(votes),
        "votes0": None,
        "prediction": found.prediction,
        "correct": found.prediction == 1,
        "p_lower": found.p_lower,
        "radius": found.radius,
        "abstained": found.abstained,
        "batch": 16,
        "seconds": 0.1,
        "error": None,
    }
    return {"kind": "certify", **item(number)} | values | changes


def lost(number: int) -> Json:
    gone = dict.fromkeys(("votes", "prediction", "p_lower", "radius", "abstained", "view", "fill"))
    return {**banded(number, 0, 96, 0, 0), **gone, "correct": False, "error": "broken"}


def five() -> list[Json]:
    """Right at 141, at 33 and at 0 pixels, wrong at 145, failed."""
    records = [banded(i, *votes) for i, votes in enumerate([(0, 96, 0, 0), (20, 61, 15, 0), (47, 48, 1, 0)])]
    return [*records, banded(3, 96, 0, 0, 0), lost(4)]


def run(out: Path, records: list[Json] | None = None, **settings: Any) -> Run:
    return Run.read(write_run(out, five() if records is None else records, "certify", smoothing=BUDGET, **settings))


# ------------------------------------------------------------------------------------------------------------ commands


def test_certify_from_images_to_table(shared: list[object], tmp_path: Path) -> None:
    """The toy asks whether the image is bright: each band votes, and the fill, the middle grey, says nothing."""
    arguments = ["certify", *shared, "--noise", NOISE, "--out", tmp_path / "run"]
    found = summary_of(*arguments)
    assert list(found["overall"]["certified"]) == ["0", "2", "4", "8"]
    assert found["asked"]["sampling"] == "exhaustive" and found["asked"]["noise"] == NOISE
    for record in _records(found):
        assert sum(record["votes"]) == 32 // 4 and record["view"] == {"height": 32, "width": 32, "file": None}
        assert record["fill"] == [0.5] * 3 and record["votes0"] is None
        assert not record.keys() & {"sigma", "n", "n0", "alpha"}
        radius = record["radius"]
        assert radius is None or radius == int(radius)
    code, text = call(*arguments)
    assert code == 0 and "8 of 8 items" in text, "a finished run is read again"
    whole = seconds_aside(tmp_path / "run")
    lines = (tmp_path / "run" / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "records.jsonl").write_text("".join(lines[:3]))
    assert call(*arguments, "--radii", "0,3")[0] == 0
    assert seconds_aside(tmp_path / "run") == whole, "resumed"
    assert summary_of(*arguments[:-1], tmp_path / "b", "--batch-size", 3)["overall"] == found["overall"]


def test_falsify_attacks_each_certificate_and_finds_none_false(shared: list[object], tmp_path: Path) -> None:
    found = summary_of(
        "certify", *shared, "--noise", "patch:size=2,band=4,stride=4", "--falsify", "--out", tmp_path / "run"
    )
    attacked = found["notes"]["falsified"]
    radii = [record["radius"] for record in _records(found)]
    assert attacked["certificates"] == sum(radius is not None for radius in radii) > 0
    assert (attacked["sound"], attacked["items"], attacked["allowed"]) == (True, 0, 0)
    shots = [len(record["falsified"]) for record in _records(found) if record["radius"]]
    assert set(shots) == {1 + PatchSearch().positions}


def test_an_automatic_folder_and_a_plan(shared: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "patch" in summary_of("certify", *shared, "--noise", NOISE)["out"]
    planned = json.loads(call("plan", *shared, "--noise", NOISE, "--pilot", 2, "--json")[1])
    (cost,) = planned["costs"]
    assert (cost["what"], cost["each"]) == (f"exhaustive, {NOISE}", 8)


BAD: list[tuple[tuple[str, ...], str]] = [
    (("--sigma", "0.25"), f"--noise {NOISE}: has no --sigma"),
    (("--sampling", "sequential"), "--sampling: has no effect with --noise patch"),
    (("--n", "1000"), "--n: has no effect"),
    (("--n0", "100"), "--n0: has no effect"),
    (("--alpha", "0.001"), "--alpha: has no effect"),
    (("--radii", "0,0.5s"), "--radii 0.5s: patches have no sigma"),
    (("--option-order", "random"), "--option-order random: needs copies that are drawn"),
    (("--grounding",), "--grounding: needs copies that are drawn"),
    (("--stop-when-wrong",), "--stop-when-wrong: has no effect"),
    (("--canvas", "native"), "needs one canvas for all images"),
    (("--noise", "patch:size=0"), "size is a number of pixels, at least 1"),
    (("--noise", "patch:band=0"), "band is a number of pixels"),
    (("--noise", "patch:stride=-1"), "stride is a number of pixels"),
    (("--noise", "patch:stride=99999999"), "at most 65,536"),
    (("--noise", "patch:width=3"), "unknown option 'width'"),
    (("--noise", "patch:band=4.5"), "band: '4.5' is not a whole number"),
    (("--noise", "patch:band=48"), "a patch of one pixel meets 8 of the 8 bands on a canvas 32 wide"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_wrong_input_is_one_line(options: tuple[str, ...], message: str, shared: list[object], tmp_path: Path) -> None:
    noise = [] if "--noise" in options else ["--noise", NOISE]
    code, text = call("certify", *shared, *noise, *options, "--out", tmp_path / "run")
    assert code == 2 and message in text and "\n" not in text.strip()
    assert not (tmp_path / "run").exists()


def test_a_smoothed_model_to_attack_is_of_random_noise(shared: list[object]) -> None:
    code, text = call("evaluate", *shared, "--smooth", "sigma=0.25,noise=patch")
    assert code == 2 and "has no --sigma" in text


# ------------------------------------------------------------------------------------------------------------- records


def test_certified_accuracy_by_hand(tmp_path: Path) -> None:
    read = run(tmp_path / "a")
    assert [record.radius for record in read.certificates] == [141, 33, 0, 145, None]
    found = numbers(read)
    shares = {name: point["certified"] for name, point in found.overall["certified"].items()}
    assert shares == {"0": 3, "16": 2, "32": 2, "64": 1}
    assert found.overall["average_radius"] == (141 + 33) / 5
    assert (found.overall["wrong"], found.overall["abstained"]) == (1, 0)
    assert found.notes["ceiling"] == 145
    assert found.notes["false_certificates_at_most_95"] == 0 == found.notes["false_certificates_expected_at_most"]
    curve = curve_of(read)
    assert curve is not None and (curve.radii, curve.share) == ([0, 33, 141, 145], [0.6, 0.4, 0.2, 0.0])
    assert list(read.at("0,34").points) == ["0", "34"]
    with pytest.raises(SpecError, match=r"--radii 1s: patches have no sigma"):
        read.at("1s")
    empty = numbers(run(tmp_path / "b", [], items=5))
    assert empty.overall["certified"]["32"]["certified_accuracy"] is None


def test_there_is_no_alpha_to_read_at(tmp_path: Path) -> None:
    out = run(tmp_path / "a").out
    assert out is not None
    strict = Run.read(out, alpha=1e-9)
    assert strict.alpha == 0 and strict.frame()["radius"].tolist()[:4] == [141, 33, 0, 145]
    assert strict.at_alpha(0.5) is strict


FIELDS: Json = {
    "radius": 34.0,
    "prediction": 0,
    "p_lower": 0.9,
    "votes": [20, 60, 15, 0],
    "noise": "patch:size=32,band=48,stride=2",
    "view": {"height": 384, "width": 380},
    "sampling": "fixed",
    "abstained": "no answer won",
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_record_that_its_votes_do_not_bear_out_is_refused(field: str, tmp_path: Path) -> None:
    for number, value in enumerate((FIELDS[field], None)):
        if value is None and field == "abstained":
            continue
        records = five()
        records[1][field] = value
        records[1]["correct"] = records[1]["prediction"] == 1
        with pytest.raises(RunError, match="i1"):
            run(tmp_path / str(number), records)


def shot(**changes: Any) -> Json:
    return {"size": 33, "top": 1, "left": 2, "votes": [48, 33, 15, 0], "unexplained": 0} | changes


@pytest.mark.parametrize(
    ("found", "refuted"),
    [
        ([], 0),
        ([{"votes": [40, 41, 15, 0]}], 0),
        ([{}], 1),
        ([{"votes": [20, 61, 15, 0], "unexplained": 1}], 1),
    ],
)
def test_what_refutes_a_certificate(found: list[Json], refuted: int, tmp_path: Path) -> None:
    """The majority, or a vote that no band under the patch explains."""
    same = shot(votes=[20, 61, 15, 0])
    shots = (
        [same | {"size": 0, "top": 0, "left": 0}] + [same | shot(**one) for one in found] + [same] * (4 - len(found))
    )
    spec = {"falsify": {"positions": 4, "steps": 20}}
    read = run(tmp_path / "a", [banded(1, 20, 61, 15, 0, falsified=shots)], spec=spec)
    judged = falsified_of(read)
    assert judged is not None and read.falsification == PatchSearch()
    assert (judged.items, judged.sound, len(judged.refuted)) == (refuted, not refuted, refuted)
    if refuted:
        assert "i1: certified for option 1 against patches of 33 pixels" in str(judged.refuted[0])
    again = [shots[0] | {"votes": [21, 60, 15, 0]}, *shots[1:]]
    unsound = falsified_of(run(tmp_path / "b", [banded(1, 20, 61, 15, 0, falsified=again)], spec=spec))
    assert unsound is not None and not unsound.sound
    for number, wrong in enumerate((shots[:-1], [*shots[:-1], shot(size=32)], [*shots[:-1], shot(votes=[1, 2, 3, 4])])):
        with pytest.raises(RunError, match="falsified does not fit its certificate"):
            run(tmp_path / f"c{number}", [banded(1, 20, 61, 15, 0, falsified=wrong)], spec=spec)


# ------------------------------------------------------------------------------------------------------------- reports


def test_reports_of_both_kinds_of_certificates(tmp_path: Path) -> None:
    """Tables, figures and the page, of such a run alone and beside one of Gaussian noise."""
    alone = run(tmp_path / "a", [record | {"question_type": "Lesion Grading"} for record in five()])
    noisy = Run.read(write_run(tmp_path / "b", [certified(i, 990) for i in range(4)] + [failed(4)], "certify"))
    for name, runs in {"alone": [alone], "both": [noisy, alone]}.items():
        write_page(runs, tmp_path / f"{name}.html", title="t")
        assert tables_of(runs, radii=None)
        for kind in ("certified", "radius", "heatmap", "selective"):
            assert drawn(kind, runs), kind
    assert cohen(alone)["radius"].tolist()[:2] == ["141.000000", "33.000000"]
    assert alone.plot() and "exhaustive" in str(alone.summary.asked)
    assert [entry.name for entry in read_all([tmp_path / "a", tmp_path / "b"])]


def test_a_report_from_the_command_line(tmp_path: Path) -> None:
    run(tmp_path / "a")
    assert call("report", tmp_path / "a", "--out", tmp_path / "r", "--alpha", "0.01", "--radii", "0,8")[0] == 0
    code, text = call("report", tmp_path / "a", "--out", tmp_path / "s", "--radii", "0,1s")
    assert code == 2 and "patches have no sigma" in text


def test_runs_compare_by_size(tmp_path: Path) -> None:
    better = [banded(i, 0, 96, 0, 0) for i in range(60)]
    worse = [banded(i, 40, 56, 0, 0) for i in range(60)]
    base = write_run(tmp_path / "a", better, "certify", smoothing=BUDGET)
    candidate = write_run(tmp_path / "b", worse, "certify", smoothing=BUDGET, weights="v")
    result = compare(base, candidate)
    names = list(dict.fromkeys(change.measure for change in result.overall))
    assert names[:4] == [f"certified at r >= {size}" for size in (0, 16, 32, 64)]
    assert result.verdict == "regression"
    with pytest.raises(SpecError, match="no more than 145"):
        compare(base, candidate, radii="0,146")


def test_the_function_of_the_package(tmp_path: Path) -> None:
    chosen = se.load_data(f"table:{draw_table(tmp_path, 4)}", canvas="32x32")
    made = se.certify("python:safemed_eval.models.toy:brightness", chosen, noise=NOISE)
    assert list(made.points) == ["0", "2", "4", "8"] and len(made.frame()) == 4
    assert replace(made, radii="0,1").points == {"0": 0.0, "1": 1.0}
