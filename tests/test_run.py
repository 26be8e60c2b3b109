"""The run as a notebook sees it: tables, curves, figures and findings of a folder, and of a run in memory."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic import ATTACKS, SEQUENTIAL, certified, evaluated, failed, sequenced, write_run

from safemed_eval.errors import RunError, SpecError
from safemed_eval.report import Run, read_all
from safemed_eval.report.compare import compare

PGD = ATTACKS[2]


def evaluate_run(out: Path) -> Run:
    """Six items, CT and MRI; under PGD all MRI fail."""
    records = []
    for number in range(6):
        slices = {"modality": "MRI" if number % 2 else "CT", "question_type": None}
        lost = {"prediction": None, "log_probs": None, "error": "broken"}
        records += [evaluated(number, "clean", number < 5, **slices)]
        records += [evaluated(number, PGD, number == 0, **slices, **(lost if number % 2 else {}))]
    return Run.read(write_run(out, records, "evaluate", conditions=("clean", PGD)))


def certify_run(out: Path) -> Run:
    """0.616 right, 0.307 right, 0.495 but wrong, abstained, failed."""
    records = [certified(0, 1000), certified(1, 920), certified(2, 990, chosen=0), certified(3, 500), failed(4)]
    return Run.read(write_run(out, records, "certify"))


def test_accuracy_is_a_table_of_shares_and_unknown_is_nan(tmp_path: Path) -> None:
    run = evaluate_run(tmp_path / "a")
    whole = run.accuracy()
    assert whole.index.tolist() == ["all"] and whole.columns.tolist() == ["clean", PGD, "n"]
    assert whole.loc["all", "clean"] == pytest.approx(5 / 6) and whole.loc["all", "n"] == 6
    by = run.accuracy(by="modality")
    assert by.index.tolist() == ["CT", "MRI"] and by.index.name == "modality"
    assert by.loc["CT", PGD] == pytest.approx(1 / 3) and np.isnan(by.loc["MRI", PGD]), "failed, never 0"
    assert run.accuracy(by="question_type").index.tolist() == ["unknown"]


def test_certified_accuracy_is_read_at_any_radii(tmp_path: Path) -> None:
    run = certify_run(tmp_path / "c")
    assert run.accuracy().columns.tolist() == ["r>=0", "r>=0.5s", "r>=1s", "r>=1.5s", "r>=2s", "n"]
    row = run.at("0,0.4,3s").accuracy().loc["all"]
    assert row.to_dict() == pytest.approx({"r>=0": 0.4, "r>=0.4": 0.2, "r>=3s": np.nan, "n": 5}, nan_ok=True)
    assert run.accuracy().loc["all", "r>=0"] == 0.4, "the run itself stays as it is"
    with pytest.raises(SpecError, match="not a number"):
        run.at("x")


def test_the_curve_ends_at_the_ceiling(tmp_path: Path) -> None:
    run = certify_run(tmp_path / "c")
    curve = run.curve()
    assert curve.columns.tolist() == ["radius", "certified_accuracy", "lower", "upper"]
    assert curve["radius"].iloc[0] == 0 and curve["radius"].iloc[-1] == pytest.approx(run.ceiling)
    assert curve["certified_accuracy"].is_monotonic_decreasing and curve["certified_accuracy"].iloc[0] == 0.4
    assert (curve["lower"] <= curve["certified_accuracy"]).all() and (curve["upper"] <= 1).all()
    assert set(run.curve(by="modality")["modality"]) == {"CT"}
    lost = Run.read(write_run(tmp_path / "lost", [failed(0)], "certify"))
    assert lost.curve().empty and list(lost.curve("modality")) == ["modality", *curve.columns]


def test_a_wrong_call_is_one_clear_line(tmp_path: Path) -> None:
    run = evaluate_run(tmp_path / "a")
    with pytest.raises(SpecError, match=r"a run of evaluate has no certified curve; use accuracy\(\)"):
        run.curve()
    with pytest.raises(SpecError, match=r"--by patient: .* known: modality, question_type, source"):
        run.accuracy(by="patient")


def test_a_frame_has_a_row_per_record(tmp_path: Path) -> None:
    frame = evaluate_run(tmp_path / "a").frame()
    assert len(frame) == 12 and {"item", "attack", "correct", "error", "cluster"} < set(frame)
    assert frame["question_type"].unique().tolist() == ["unknown"]
    radii = certify_run(tmp_path / "c").frame()["radius"]
    assert radii.dtype == float and radii.isna().tolist() == [False, False, False, True, True]
    assert Run.read(write_run(tmp_path / "none", [], "certify", items=3)).frame().empty


def test_a_run_in_memory_is_the_run_of_its_folder(tmp_path: Path) -> None:
    there = certify_run(tmp_path / "c")
    lines = [json.loads(line) for line in (tmp_path / "c/records.jsonl").read_text().splitlines()]
    meta = json.loads((tmp_path / "c/run.json").read_text())
    here = Run.of(meta, lines)
    assert here.out is None and "in memory" in str(here) and not here.has_images
    assert here.summary.to_json() | {"out": ""} == there.summary.to_json() | {"out": ""}
    assert here.findings == there.findings and here.sound
    (laxer,) = read_all([here], alpha=0.05)
    pd.testing.assert_frame_equal(laxer.frame(), Run.read(tmp_path / "c", alpha=0.05).frame())
    with pytest.raises(SpecError, match=r"is read at alpha 0\.05 already"):
        read_all([laxer], alpha=0.01)
    pd.testing.assert_frame_equal(here.frame(), there.frame())
    lines[0]["radius"] = 0.9
    with pytest.raises(RunError, match="in memory: the certificate of item 'i0' does not follow from its votes"):
        Run.of(meta, lines)


def test_runs_in_memory_are_compared_but_not_with_themselves(tmp_path: Path) -> None:
    whole = [certified(number, 990) for number in range(60)]
    write_run(tmp_path / "a", whole, "certify")
    meta = json.loads((tmp_path / "a/run.json").read_text())
    one, two = (Run.of(meta, whole) for _ in range(2))
    assert compare(one, two).verdict == compare(one, tmp_path / "a").verdict == "no regression"
    with pytest.raises(RunError, match="in memory: is compared with itself"):
        compare(one, one)
    assert [run.name for run in read_all([one, tmp_path / "a"])] == [
        "toy, float32, sigma 0.25",
        "toy, float32, sigma 0.25, a",
    ]
    assert [run.name for run in read_all([one, two])] == [
        f"toy, float32, sigma 0.25, in memory {number}" for number in (1, 2)
    ]
    with pytest.raises(SpecError, match="is given twice"):
        read_all([one, one])


def test_a_figure_of_each_kind(tmp_path: Path) -> None:
    lost = Run.read(write_run(tmp_path / "lost", [failed(0)], "certify"))
    for run in (evaluate_run(tmp_path / "a"), certify_run(tmp_path / "c"), lost):
        figure = run.plot()
        assert isinstance(figure, Figure)
        figure.savefig(tmp_path / "figure.png")
        assert run is lost or "%" in figure.axes[0].get_ylabel()


class Tags(HTMLParser):
    """All tags of a text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


def test_a_notebook_shows_numbers_and_findings_as_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m"
    records = [evaluated(i, "clean", True, modality=hostile, question_type=hostile) for i in range(3)]
    folder = write_run(
        tmp_path / "a", records, "evaluate", conditions=("clean",), items=4, sampled=hostile, names={"model": hostile}
    )
    run = Run.read(folder)
    html = run._repr_html_()
    assert "script" not in Tags(html).tags and "\x1b" not in html and "&lt;script&gt;" in html
    assert html.count("100.0 ") == 3 and "1 of 4 records are missing" in html
    assert "\n" not in str(run) and "\x1b" not in repr(run)


def test_findings_say_each_fact_once(tmp_path: Path) -> None:
    run = evaluate_run(tmp_path / "a")
    keys = [finding.key for finding in run.findings]
    assert len(set(run.findings)) == len(run.findings) and "failed" in keys
    assert all(finding.text[0] == finding.text[0].upper() and finding.sentence for finding in run.findings)
    sequential = Run.read(
        write_run(tmp_path / "s", [sequenced(0, None), sequenced(1, 9)], "certify", smoothing=SEQUENTIAL, items=3)
    )
    texts = {finding.key: finding.text for finding in sequential.findings}
    assert "radii 0, 1s, 2s only" in texts["sequential"] and "1 of 3 records are missing" in texts["unfinished"]
    assert "noisy copies an item on average" in texts["draws"]
