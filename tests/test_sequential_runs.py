"""Runs of sequential certificates, and fixed ones that end when wrong: commands, records, reports, the gate."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_table
from running import certificates
from scipy import stats as sps
from synthetic import SEQUENTIAL, certified, failed, item, numbers, sequenced, write_run
from test_cli import _records, call, seconds_aside, shared, summary_of
from test_figures import drawn, titles, words_of
from test_page import Open, Write, open_page, swift

from safemed_eval import data
from safemed_eval.errors import RunError
from safemed_eval.models.toy import Brightness
from safemed_eval.models.waist import Waist
from safemed_eval.report import Run, read_all
from safemed_eval.report.compare import compare
from safemed_eval.report.compare.aligned import AVERAGE_RADIUS
from safemed_eval.report.curves import curve_of
from safemed_eval.report.findings.falsified import falsified_of
from safemed_eval.report.tables import cohen, tables_of
from safemed_eval.runs.work.certify import Certification
from safemed_eval.smoothing import Falsification, Ladder, Sequential
from safemed_eval.smoothing.sequential import Hits, pack

__all__ = ["open_page", "shared", "swift"]  # fixtures
Json = dict[str, Any]
SEQUENCE = {"smoothing": SEQUENTIAL}
GONE = dict.fromkeys(
    (
        "prediction",
        "p_lower",
        "radius",
        "abstained",
        "certified",
        "max_log_e",
        "stopped_at",
        "successes",
        "stopped",
        "draws",
    )
)


ENDED: Json = {"votes0": [100, 0, 0, 0], "votes": None, "prediction": None, "p_lower": None, "radius": None}
ENDED |= {"abstained": "wrong answer selected", "correct": False}


def five() -> list[Json]:
    """Certified at 2, 1 and 0 sigma, not at all, failed: each n-th vote is not gold."""
    records = [sequenced(i, every) for i, every in enumerate((None, 20, 3, 1))]
    assert [record["radius"] for record in records] == [0.5, 0.25, 0.0, None]
    return [*records, sequenced(4, None) | GONE | {"correct": False, "error": "broken"}]


def run(out: Path, records: list[Json] | None = None, **settings: Any) -> Run:
    return Run.read(write_run(out, five() if records is None else records, "certify", **SEQUENCE, **settings))


# --------------------------------------------------------------------------------------------------------- breakdowns


@pytest.mark.parametrize(
    ("asked", "wrong", "counted"), [(True, 2, 2), (True, 0, 0), (True, None, None), (False, 0, None)]
)
def test_items_that_ended_wrong_are_counted(
    asked: bool, wrong: int | None, counted: int | None, tmp_path: Path
) -> None:
    """An abstention and a failed item are none of them; in a run without records nothing is known."""
    records = [certified(0, 900), certified(1, 500), failed(2)] if wrong is not None else []
    records += [certified(3 + i, 900) | ENDED for i in range(wrong or 0)]
    found = Run.read(write_run(tmp_path / "run", records, "certify", spec={"stop_when_wrong": asked}))
    assert numbers(found).notes["ended_wrong"] == counted
    said = [finding.text for finding in found.findings if finding.key == "ended-wrong"]
    assert len(said) == bool(counted) and all(text.startswith(f"{counted} of the items without") for text in said)


def test_certified_accuracy_by_hand(tmp_path: Path) -> None:
    found = numbers(run(tmp_path / "a"))
    curve = found.overall["certified"]
    assert {name: point["certified"] for name, point in curve.items()} == {"0": 3, "1s": 2, "2s": 1}
    assert curve["1s"]["certified_accuracy"] == 0.4 and curve["1s"]["asked"]
    assert found.overall["average_radius"] == pytest.approx((0.5 + 0.25) / 5)
    assert (found.overall["abstained"], found.overall["wrong"], found.overall["no_answer"]) == (1, None, None)
    draws = found.notes["draws"]
    stops = [record["stopped_at"] for record in five()[:4]]
    assert (draws["total"], draws["mean"]) == (sum(stops), sum(stops) / 4) and stops[0] == 352
    assert (draws["certified"], draws["futile"], draws["cap"]) == (1, 3, 0)
    assert found.notes["ceiling"] == 0.5
    assert found.asked["sampling"] == "sequential" and found.asked["radii"] == "0,1s,2s"
    empty = numbers(run(tmp_path / "b", [], items=5))
    assert empty.overall["certified"]["1s"]["certified_accuracy"] is None and empty.notes["draws"] is None


def test_radii_that_were_not_asked_for_are_not_known(tmp_path: Path) -> None:
    found = numbers(run(tmp_path / "a"), {"0.5s": 0.125, "0.25": 0.25, "3s": 0.75}).overall["certified"]
    assert [(point["certified_accuracy"], point["asked"]) for point in found.values()] == [
        (None, False),
        (0.4, True),
        (None, False),
    ]
    beyond = Sequential(noise="float32", sigma=0.25, radii={"1s": 0.25, "2s": 0.5}, n=100)
    made = Run.read(write_run(tmp_path / "b", [sequenced(0, None, budget=beyond)], "certify", smoothing=beyond))
    assert made.frame()["stopped"][0] == "certified" and made.frame()["radius"][0] == 0.25 == made.budget.ceiling
    point = numbers(made).overall["certified"]["2s"]
    assert point["above_ceiling"] and point["asked"] and point["certified_accuracy"] is None


def test_the_curve_steps_at_the_radii_that_were_asked_for(tmp_path: Path) -> None:
    curve = curve_of(run(tmp_path / "a"))
    assert curve is not None
    assert (curve.radii, curve.share) == ([0.0, 0.25, 0.5], [0.6, 0.4, 0.2])


def test_another_alpha_is_read_from_the_evidence(tmp_path: Path) -> None:
    out = run(tmp_path / "a").out
    strict, laxer = Run.read(out, alpha=1e-5), Run.read(out, alpha=0.01)
    assert strict.frame()["radius"].fillna(-1).tolist() == [0.25, 0.0, -1, -1, -1]
    assert laxer.frame()["radius"].fillna(-1).tolist() == [0.5, 0.25, 0.0, -1, -1]
    assert [record["certified"]["2s"] for record in strict.frame().to_dict("records")[:2]] == [False, False]
    assert strict.frame()["stopped_at"][0] == 352, "the draws are those of the run's own alpha"
    code, text = call("report", out, "--out", tmp_path / "r", "--alpha", "1e-60")
    assert code == 2 and "certify none of the radii" in text


FIELDS: dict[str, Any] = {
    "radius": 0.5,
    "prediction": 0,
    "correct": False,
    "p_lower": 0.97,
    "stopped_at": 353,
    "successes": 1,
    "stopped": "cap",
    "certified": {"0": True, "1s": True, "2s": True},
    "max_log_e": {"0": 99.0, "1s": 99.0, "2s": 99.0},
    "draws": "B" * 352,
    "abstained": "no radius certified",
    "n": 1000,
    "alpha": 0.01,
    "radii": {"0": 0.0, "1s": 0.25, "2s": 0.4},
    "sampling": "fixed",
    "sigma": 0.5,
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_record_that_its_votes_do_not_bear_out_is_refused(tmp_path: Path, field: str) -> None:
    records = five()
    broken = [value for value in (FIELDS[field], None, "x") if value != records[1][field]]
    for number, value in enumerate(broken):
        records = five()
        records[1][field] = value
        out = write_run(tmp_path / str(number), records, "certify", **SEQUENCE)
        with pytest.raises(RunError, match=r"'i1'.*(follow from|says otherwise|was made with|cannot be)"):
            Run.read(out)


def test_draws_beyond_the_end_of_the_rule_are_refused(tmp_path: Path) -> None:
    """A run that went on until it had what it wanted."""
    longer = Ladder(Sequential(noise="float32", sigma=0.25, radii={"0": 0.0, "1s": 0.25, "2s": 0.5}, n=500, alpha=1e-4))
    found = vars(longer.follow([np.ones(500, dtype=int)], 1, 4))
    assert found["stopped_at"] > 400 and sequenced(0, None)["stopped_at"] == 352
    for changes in (
        found,
        found | {"stopped_at": 600, "draws": "B" * 600},
        {"stopped_at": 340, "draws": "B" * 340},
        {"draws": "B" * 351 + "D"},
        {"draws": None, "hits": "ff" * 44},
    ):
        out = write_run(tmp_path / "a", [sequenced(0, None) | changes], "certify", **SEQUENCE)
        with pytest.raises(RunError, match="does not follow from its votes"):
            Run.read(out)
        (out / "run.json").unlink()
        (out / "records.jsonl").unlink()
        out.rmdir()


def old(out: Path, hits: list[Hits]) -> Path:
    """A run as versions left it that asked only if gold has more votes than all others."""
    spec = {name: value for name, value in asdict(SEQUENTIAL).items() if name not in ("test", "noise")}
    records = []
    for number, seen in enumerate(hits):
        made = vars(Ladder(replace(SEQUENTIAL, test=None)).follow([np.where(seen, 1, 0)], 1, 4))
        stopped_at = made["stopped_at"]
        values = {"sampling": "sequential", **spec, **made, "hits": pack(seen[:stopped_at])}
        del values["draws"]
        own = item(number) | values | {"correct": made["prediction"] == 1, "batch": 16, "seconds": 0.1, "error": None}
        records.append({"kind": "certify", **own})
    return write_run(out, records, "certify", smoothing=SEQUENTIAL, spec={"smoothing": spec})


def test_runs_of_older_versions_are_read(tmp_path: Path) -> None:
    hits = [np.random.default_rng(i).random(500) < p for i, p in enumerate((1.0, 0.95, 0.7, 0.3))]
    out = old(tmp_path / "a", hits)
    found = Run.read(out)
    assert found.frame()["radius"].fillna(-1).tolist() == [0.5, 0.25, 0.0, -1]
    assert found.frame()["p_lower"][0] == pytest.approx(float(sps.norm.cdf(2.0))), "the one-class bound"
    assert Run.read(out, alpha=1e-5).frame()["radius"].fillna(-1).tolist()[0] == 0.25
    new = run(tmp_path / "b", [sequenced(i, every) for i, every in enumerate((None, 20, 3, 1))]).out
    code, text = call("compare", out, new)
    assert code == 2 and "two classes" in text
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert all("test" not in line and "draws" not in line for line in lines)
    lines[1]["hits"] = lines[1]["hits"][:-2] + "00"
    (out / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RunError, match="does not follow from its votes"):
        Run.read(out)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"sampling": "other"}, "sampling cannot be 'other'"),
        ({"sampling": "fixed"}, "smoothing: .*radii"),
        ({"smoothing": {"sigma": 0.25, "radii": {"0": 0.0}}}, "a radius above 0"),
        ({"smoothing": {"sigma": 0.25, "radii": [0.25]}}, "smoothing: "),
        ({"stop_when_wrong": "yes"}, "stop_when_wrong cannot be 'yes'"),
    ],
)
def test_a_spec_that_asks_for_nothing_sensible_is_refused(tmp_path: Path, spec: Json, message: str) -> None:
    with pytest.raises(RunError, match=message):
        run(tmp_path / "a", spec=spec)


# ------------------------------------------------------------------------------------------------------------ reports


def test_tables_say_what_is_a_lower_bound_and_what_is_not_known(tmp_path: Path) -> None:
    fixed = write_run(tmp_path / "b", [certified(i, 1000) for i in range(3)], "certify")
    runs = [run(tmp_path / "a"), Run.read(fixed, name="fixed")]
    table = next(tables_of(runs, radii=None))
    assert list(table.shown)[6:] == [
        *(f"r>={r}" for r in ("0", "0.5s", "1s", "1.5s", "2s")),
        "abstain",
        "ACR",
        "median r",
    ]
    ours, other = table.shown.to_dict("records")
    assert (ours["r>=0.5s"], ours["r>=1s"][:4], ours["ACR"], ours["median r"]) == (
        "not asked",
        "40.0",
        ">=0.150",
        ">=0.000",
    )
    assert (other["r>=0.5s"][:5], other["ACR"]) == ("100.0", "0.615")
    assert "toy: sequential certificates, of the gold answer" in table.caption and "lower bounds" in table.caption
    assert "sequential" not in next(tables_of(runs[1:], radii=None)).caption
    assert list(next(tables_of(runs[:1], radii=None)).shown)[6:9] == ["r>=0", "r>=1s", "r>=2s"]
    assert cohen(runs[0])["radius"].tolist() == ["0.500000", "0.250000", "0.000000", "0.000000", "0.000000"]
    assert cohen(runs[0])["predict"].tolist() == [1, 1, 1, -1, -1]


def test_runs_that_draw_in_two_ways_are_told_apart(tmp_path: Path) -> None:
    run(tmp_path / "a")
    write_run(tmp_path / "b", [certified(0, 1000)], "certify")
    names = [one.name for one in read_all([str(tmp_path / "a"), str(tmp_path / "b")])]
    assert names == ["toy, float32, sigma 0.25, sequential", "toy, float32, sigma 0.25"]


def test_figures_of_sequential_runs(tmp_path: Path) -> None:
    records = [sequenced(i, (None, 20, 3, 1)[i % 4], question_type="Disease Diagnosis") for i in range(12)]
    ours = run(tmp_path / "a", records)
    curve = drawn("certified", [ours])["certified"]
    assert curve.axes[0].lines[0].get_xdata() == pytest.approx([0, 0.25, 0.5])
    assert "toy: sequential certificates, of the gold answer and at the radii 0, 1s, 2s only: in between," in words_of(
        curve
    )
    assert len(drawn("radius", [ours])) == 1
    assert titles(drawn("heatmap", [ours])["certified-heatmap"])[:2] == ["at radius 0", "at radius 0.25 (1 sigma)"]
    one = Sequential(noise="float32", sigma=0.25, radii={"0.2": 0.2})
    records = [sequenced(i, None, budget=one, question_type="Disease Diagnosis") for i in range(6)]
    single = Run.read(write_run(tmp_path / "c", records, "certify", smoothing=one))
    heat = drawn("heatmap", [single])["certified-heatmap"]
    assert [title for title in titles(heat) if title] == ["at radius 0.2 (the ceiling)"]


def test_the_page_shows_the_evidence(open_page: Open, swift: Write, tmp_path: Path) -> None:
    ended = certified(0, 900) | ENDED
    fixed = write_run(tmp_path / "b", [ended], "certify", spec={"stop_when_wrong": True}, names={"model": "other"})
    opened = open_page(swift([run(tmp_path / "a"), Run.read(fixed)]), link="#item=i1")
    said = opened.inner_text("#item-body")
    assert "Certified radius 0.2500" in said and "p lower 0.7390" in said
    stop = five()[1]["stopped_at"]
    assert f"{five()[1]['successes']} of {stop} noisy copies were answered with gold; then the next radius was" in said
    rows = [row.split("\t") for row in opened.locator(".votes tbody tr").all_inner_texts()]
    assert [(row[0], row[2]) for row in rows] == [("0", "✓ yes"), ("1s = 0.2500", "✓ yes"), ("2s = 0.5000", "no")]
    assert float(rows[1][1]) >= 6.9077 > float(rows[2][1])
    opened.goto(opened.url.replace("i1", "i0"))
    opened.keyboard.press("Escape")
    opened.locator("[data-item='0'] button").click()
    said = opened.inner_text("#item-body")
    assert "all radii up to the ceiling were certified" in said
    assert "No certificate: the selected answer is wrong, and no more was drawn." in said
    assert "≥0.150" in opened.inner_text("#summary") and "not asked" in opened.inner_text("#summary")
    assert "lower bounds" in opened.inner_text("#summary") and "did not draw noise alike" in opened.inner_text(
        ".notices"
    )


def test_what_attacks_refute_follows_from_the_radius(tmp_path: Path) -> None:
    """A certificate of one sigma says that gold has 0.84 of the votes for it and any rival: 700 of 1,000 refute it.

    820 of 1,000 do not, nor do 500 with 60 for the strongest rival: gold is further ahead of it than it claims.
    """
    spec = {"falsify": vars(Falsification(shares=(0.0,)))}
    shot = {"share": 0.0, "length": 0.0, "votes": 820, "rival": 180}
    records = [sequenced(i, 20) | {"falsified": [dict(shot)]} for i in range(20)]
    records[3]["falsified"][0] |= {"votes": 700, "rival": 300}
    records[4]["falsified"][0] |= {"votes": 500, "rival": 60}
    records[5]["falsified"][0] |= {"votes": 350, "rival": 150}
    found = falsified_of(run(tmp_path / "a", records, spec=spec))
    assert found is not None
    assert (found.certificates, found.items) == (20, 2)
    assert found.refuted[0].claimed == pytest.approx(0.8413, abs=1e-4)
    assert "700 of 1000 votes for it and its strongest rival, a share of at most 0.7" in str(found.refuted[0])
    records[0]["falsified"] = [{"share": 0.0, "length": 0.0, "votes": 820}]
    with pytest.raises(RunError, match="falsified does not fit"):
        run(tmp_path / "b", records, spec=spec)


# ----------------------------------------------------------------------------------------------------------- the gate


def paths(one: Run, two: Run) -> tuple[Path, Path]:
    return one.out, two.out


def test_sequential_runs_are_compared_at_the_radii_that_they_know(tmp_path: Path) -> None:
    before = [sequenced(i, None) for i in range(40)]
    after = [sequenced(i, None if i < 10 else 20) for i in range(40)]
    pair = paths(run(tmp_path / "a", before), run(tmp_path / "b", after, weights="v"))
    found = compare(*pair)
    drops = {change.measure: change.drop for change in found.overall}
    assert drops == {
        "certified at r >= 0": 0.0,
        "certified at r >= 1s": 0.0,
        "certified at r >= 2s": 0.75,
        AVERAGE_RADIUS: 0.375,
    }
    assert found.verdict == "regression" and any("lower bounds" in note for note in found.notes)
    assert compare(*pair, radii="0.25").overall[0].measure == "certified at r >= 0.25"
    assert call("compare", *pair, "--radii", "0,0.5s") == (
        2,
        "--radii 0.5s: these sequential runs know 0, 1s, 2s only, as they were asked",
    )


def test_sequential_runs_are_not_compared_with_fixed_ones(tmp_path: Path) -> None:
    other = write_run(tmp_path / "b", [certified(i, 1000) for i in range(5)], "certify")
    code, text = call("compare", run(tmp_path / "a").out, other)
    assert code == 2 and 'sampling was "sequential", now "fixed"' in text


# ------------------------------------------------------------------------------------------------------- the commands


def certification(**changes: Any) -> Certification:
    settings = {
        "model": Waist(Brightness(), torch.device("cpu")),
        "canvas": data.parse_canvas("32x32", "stretch", None),
    }
    settings |= {"smoothing": SEQUENTIAL, "seed": 3, "batch": 32}
    return Certification(**settings | changes)


def test_records_do_not_depend_on_batch_order_or_restart(table: Path) -> None:
    items = data.verify(data.load(f"table:{table}", None)).items

    def made(batch: int, order: slice = slice(None)) -> dict[str, Json]:
        records = certificates(certification(batch=batch), items[order])
        return {r["item"]: {k: v for k, v in r.items() if k not in ("seconds", "batch")} for r in records}

    base = made(32)
    assert made(7) == made(1) == made(1000, slice(None, None, -1)) == base
    for record in base.values():
        assert record["votes0"] is record["votes"] is None and record["radii"] == SEQUENTIAL.radii
        draws = record["draws"]
        assert (len(draws), draws.count("ABCD"[record["label"]])) == (record["stopped_at"], record["successes"])
        assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_certify_from_command_to_table(shared: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["certify", *shared, "--sigma", 0.1, "--sampling", "sequential", "--radii", "1s,0,0.05", "--n", 300]
    found = summary_of(*command, "--out", tmp_path / "a")
    assert list(found["overall"]["certified"]) == ["1s", "0", "0.05"]
    assert found["notes"]["draws"]["total"] == sum(record["stopped_at"] for record in _records(found))
    meta = json.loads((tmp_path / "a" / "run.json").read_text())
    assert meta["spec"]["sampling"] == "sequential"
    assert meta["spec"]["smoothing"] == {
        "sigma": 0.1,
        "noise": "gaussian",
        "radii": {"1s": 0.1, "0": 0.0, "0.05": 0.05},
        "n": 300,
        "alpha": 0.001,
        "test": "two classes",
    }
    whole = seconds_aside(tmp_path / "a")
    lines = (tmp_path / "a" / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a" / "records.jsonl").write_text("".join(lines[:3]))
    code, text = call(*command, "--out", tmp_path / "a")
    assert code == 0 and seconds_aside(tmp_path / "a") == whole
    assert "lower bounds (>=)" in text and "noisy copies an item on average" in text and ">=0." in text
    assert "-sigma0.1-sequential-" in summary_of(*command[:-2])["out"]
    code, text = call("certify", *shared, "--sigma", 0.1, "--out", tmp_path / "a")
    assert code == 2 and 'sampling was "sequential", now "fixed"' in text


def test_sequential_certificates_can_be_attacked(tmp_path: Path) -> None:
    table = draw_table(tmp_path / "data", rows=4)
    command = ["certify", "--model", "python:safemed_eval.models.toy:brightness", "--data", f"table:{table}"]
    command += ["--canvas", "8x8", "--sigma", 0.05, "--sampling", "sequential", "--radii", "0,1s", "--falsify"]
    found = summary_of(*command, "--out", tmp_path / "a")
    assert found["notes"]["falsified"]["sound"]
    certificates = [record["falsified"] for record in _records(found) if record["radius"] is not None]
    assert found["notes"]["falsified"]["certificates"] == len(certificates)
    assert all([one["share"] for one in attacked] == [0.0, 0.5, 0.9, 0.99] for attacked in certificates)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampling", "sequential", "--n0", "50"], "--n0: has no effect with --sampling sequential"),
        (["--sampling", "sequential", "--stop-when-wrong"], "--stop-when-wrong: has no effect with --sampling sequ"),
        (["--sampling", "sequential", "--radii", "0"], "need a radius above 0"),
        (["--sampling", "sequential", "--radii", "9s"], "radius 9s must lie between 0 and 8 sigma"),
        (
            ["--sampling", "sequential", "--radii", "0,2s", "--n", "300"],
            "n=300 unanimous votes certify none of the radii",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(shared: list[object], arguments: list[str], message: str) -> None:
    code, text = call("certify", *shared, "--sigma", 0.25, *arguments)
    assert code == 2 and message in text


# ---------------------------------------------------------------------------- fixed certificates that end when wrong


def test_stop_when_wrong_changes_nothing_but_what_it_did_not_draw(shared: list[object], tmp_path: Path) -> None:
    command = ["certify", *shared, "--sigma", 0.25, "--n", 60, "--n0", 20, "--radii", "0,0.5s"]
    whole = summary_of(*command, "--out", tmp_path / "a")
    ended = summary_of(*command, "--stop-when-wrong", "--out", tmp_path / "b")
    wrong = 0
    for record, other in zip(_records(whole), _records(ended), strict=True):
        if record["votes0"].index(max(record["votes0"])) == record["label"]:
            assert {**record, "seconds": 0} == {**other, "seconds": 0}
        else:
            wrong += 1
            assert {key: other[key] for key in ENDED} == ENDED | {"votes0": record["votes0"]}
    assert 0 < wrong < 8 and ended["notes"]["ended_wrong"] == wrong and whole["notes"]["ended_wrong"] is None
    for radius in ("0", "0.5s"):
        key = (radius, "certified_accuracy")
        assert ended["overall"]["certified"][key[0]][key[1]] == whole["overall"]["certified"][key[0]][key[1]]
    assert ended["overall"]["wrong"] is None and whole["overall"]["wrong"] is not None
    assert json.loads((tmp_path / "b" / "run.json").read_text())["spec"]["stop_when_wrong"] is True
    assert "stop_when_wrong" not in json.loads((tmp_path / "a" / "run.json").read_text())["spec"]
    same = compare(tmp_path / "a", tmp_path / "b")
    assert not same.same_weights and same.verdict == "inconclusive", "whose weights nobody has hashed, on eight items"
    assert not any(change.lost or change.won or change.drop for change in same.overall)
    assert f"{wrong} of the items without a certificate: the selected answer is wrong" in call(
        *command, "--stop-when-wrong", "--out", tmp_path / "b"
    )[1].replace("\n", " ")


def test_votes_may_be_missing_only_where_the_selection_is_wrong(tmp_path: Path) -> None:
    asked = {"stop_when_wrong": True}
    silent = ENDED | {"votes0": [0, 0, 0, 100], "abstained": "no answer won"}
    found = Run.read(
        write_run(tmp_path / "a", [certified(0, 900) | ENDED, certified(1, 900) | silent], "certify", spec=asked)
    )
    assert found.frame()["abstained"].tolist() == ["wrong answer selected", "no answer won"]
    assert Run.read(tmp_path / "a", alpha=0.5).frame()["radius"].isna().all()
    for number, (record, spec) in enumerate(
        [
            (certified(0, 900) | ENDED, {}),
            (certified(0, 900) | ENDED | {"votes0": [0, 100, 0, 0]}, asked),
            (certified(0, 900) | ENDED | {"radius": 0.3}, asked),
            (certified(0, 900) | ENDED | {"abstained": "no answer won"}, asked),
            (failed(0) | {"abstained": "wrong answer selected"}, asked),
        ]
    ):
        with pytest.raises(RunError, match=r"'i0'.*(follow from its votes|are not \d+ votes)"):
            Run.read(write_run(tmp_path / f"bad{number}", [record], "certify", spec=spec))


def test_help_teaches_both_ways() -> None:
    text = re.sub(r"[\s│]+", " ", call("certify", "--help")[1])
    assert "--sampling" in text and "decided which of --radii are certified for the gold answer" in text
