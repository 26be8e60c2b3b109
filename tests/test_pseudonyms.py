"""Data that may leave a hospital: records and reports under pseudonyms, no header fields, no environment variables."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bad.case import called
from bad.images import dicom
from PIL import Image

from safemed_eval.report import Run, figures
from safemed_eval.report.findings.reasoning import reasoning
from safemed_eval.runs import read_lines
from safemed_eval.runs.pseudonyms import WITHHELD, Pseudonyms

SECRET = "ZWIEBACK"
"""A word that no library has in its scripts, in capitals or not."""
"""Is in every text of the data, and must be nowhere in what is passed on."""
MODEL = """
from safemed_eval.models.toy import Brightness
class Talks(Brightness):
    def write(self, canvas, questions):
        return [f"<think>It is {q.text}, so B: {q.options[1]}.</think> <answer> {'AB'[int(row.mean() > 0.5)]} </answer>"
                for row, q in zip(canvas, questions)]
    def scores(self, canvas, questions):
        for question in questions:
            if "breaks" in question.text:
                raise ValueError(question.text)
        return super().scores(canvas, questions)
    def describe(self, question):
        return {"prompt": f"Say: {question.text} {question.options}"}
def talks(): return Talks()
class Dark(Talks):
    def scores(self, canvas, questions): return super().scores(canvas - 0.1, questions)
def dark(): return Dark()
"""


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """A folder with data, a model of one's own, and a key."""
    data = tmp_path / f"{SECRET}-folder"
    data.mkdir()
    rng, rows = np.random.default_rng(0), []
    for number in range(8):
        name = f"{SECRET}-{number // 2}.png"
        shade = 60 * (number % 4)
        Image.fromarray(rng.integers(shade, shade + 70, (16, 16, 3), dtype=np.uint8)).save(data / name)
        row = {
            **{"id": f"{SECRET}-q{number}", "image": name, "patient_id": f"{SECRET} p{number // 4}", "modality": "CT"},
            "question": f"What has {SECRET} {'that breaks' if number == 5 else number}?",
            **{"options": [f"{SECRET} a lung", f"{SECRET} a liver"], "answer": "B"},
            **{"source": f"{SECRET} ward", "born": f"{SECRET} 1970", "sex": "F" if number < 4 else "M"},
        }
        rows.append(row | ({"image": f"{SECRET}-gone.png"} if number == 7 else {}))
    (data / f"{SECRET}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "talkative.py").write_text(MODEL)
    (tmp_path / "key").write_text(f"{secrets.token_hex(32)}\n")
    (tmp_path / "key2").write_bytes(secrets.token_bytes(32))
    return tmp_path


def command(name: str, out: str, *more: str, model: str = "talks", key: str | None = "key") -> tuple[str, ...]:
    data = ["--data", f"table:{SECRET}-folder/{SECRET}.jsonl", f"--data-root={SECRET}-folder", "--skip-bad"]
    few = ["--sigma", "0.25", "--n", "30", *([] if "sequential" in more else ["--n0", "5"])]
    own = {"evaluate": ["--attack", "pgd:eps=8/255,steps=2"], "certify": few}[name]
    under = ["--pseudonymize", key] if key else []
    model = f"python:talkative:{model}"
    return (name, "--model", model, *data, "--canvas", "16x16", *own, *under, "--out", out, *more)


def run(hospital: Path, *argv: str) -> str:
    """Run a command that must succeed, and return its stderr."""
    found = called(argv, hospital)
    assert found.crash is None and found.code == 0, (found.err, found.crash)
    return found.err


def leaks(folder: Path, word: str = SECRET) -> list[str]:
    """Files that hold the word, or have it in their name."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    word = word.lower()
    named = [str(file) for file in files if word in str(file.relative_to(folder)).lower()]
    return named + [str(file) for file in files if word.encode() in file.read_bytes().lower()]


def numbers(record: dict[str, Any]) -> dict[str, Any]:
    """A record without texts, and without what differs from run to run."""
    kept = ("kind", "attack", "modality", "question_type", "label", "prediction", "correct", "log_probs", "linf", "l2")
    kept += ("steps", "climb", "dead", "rounded", "rotations", "votes", "votes0", "radius", "p_lower", "abstained")
    kept += ("sampling", "falsified", "radii", "certified", "stopped", "stopped_at", "successes", "hits")
    return {name: record[name] for name in kept if name in record}


def test_nothing_of_the_data_is_in_a_run_nor_in_its_report(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = run(hospital, *command("evaluate", "a", "--keep-images", "2", "--circular", "--shuffle-options", "1"))
    run(hospital, *command("certify", "c"))
    monkeypatch.setattr(figures, "kinds", lambda: ["attacked_items", "certified"])
    run(hospital, "report", "a", "c", "--out", "report")
    assert "Ids, paths and texts are pseudonyms" in (hospital / "report/report.html").read_text()
    for folder in ("a", "c", "report"):
        assert leaks(hospital / folder) == []
    meta = json.loads((hospital / "a/run.json").read_text())
    assert meta["skipped"] == [{"item": Pseudonyms(key_of(hospital)).item(f"{SECRET}-q7"), "reason": WITHHELD}]
    assert meta["sessions"][0]["argv"][:7] == [
        *("evaluate", "--model", "python:talkative:talks"),
        *("--data", WITHHELD, f"--data-root={WITHHELD}", "--skip-bad"),
    ]
    assert meta["names"]["data"].startswith("table:data-") and "question-" in meta["model"]["prompt"]
    failed = [record for record in read_lines(hospital / "c") if record["error"]]
    assert not failed, "certify asks for texts only"
    failed = [record for record in read_lines(hospital / "a") if record["error"]]
    assert {record["error"] for record in failed} == {WITHHELD}
    assert f"{SECRET}-q5 failed: the model raised ValueError" in told, "the terminal is the user's own"


def key_of(hospital: Path) -> bytes:
    return (hospital / "key").read_bytes().strip()


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("evaluate", ()),
        ("evaluate", ("--smooth", "sigma=0.1,n=20")),
        ("certify", ("--falsify",)),
        ("certify", ("--sampling", "sequential", "--radii", "0,0.5s")),
    ],
)
def test_numbers_and_clusters_are_those_of_the_plain_run(hospital: Path, name: str, more: tuple[str, ...]) -> None:
    run(hospital, *command(name, "plain", *more, key=None))
    run(hospital, *command(name, "veiled", *more))
    plain, veiled = (read_lines(hospital / out) for out in ("plain", "veiled"))
    assert len(plain) == (14 if name == "evaluate" else 7)
    assert list(map(numbers, plain)) == list(map(numbers, veiled))
    for field in ("item", "image", "patient_id", "image_sha256", "source"):
        pairs = {(one[field], other[field]) for one, other in zip(plain, veiled, strict=True)}
        assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}), "one to one"
    assert [one["extra"]["sex"] for one in veiled[:1]] != ["F"]
    assert {tuple(one["options"]) for one in plain} == {(f"{SECRET} a lung", f"{SECRET} a liver")}
    assert len({option for one in veiled for option in one["options"]}) == 14, "not even how often one occurs"
    if name == "evaluate" and not more:
        assert reasoning(Run.read(hospital / "plain")) is not None
        assert reasoning(Run.read(hospital / "plain")) == reasoning(Run.read(hospital / "veiled"))
        assert all(record["text"] is None for record in veiled) and veiled[0]["told"]["words"] > 5


def test_a_run_goes_on_under_its_key_only(hospital: Path) -> None:
    run(hospital, *command("certify", "whole"))
    run(hospital, *command("certify", "cut"))
    records = hospital / "cut/records.jsonl"
    whole = records.read_text()
    records.write_text("".join(whole.splitlines(keepends=True)[:3]))
    assert "going on, 3 records are there" in run(hospital, *command("certify", "cut"))
    strip = [{k: v for k, v in record.items() if k != "seconds"} for record in read_lines(hospital / "cut")]
    assert strip == [{k: v for k, v in record.items() if k != "seconds"} for record in read_lines(hospital / "whole")]
    for key in ("key2", None):
        refused = called(command("certify", "cut", key=key), hospital)
        assert refused.code == 2 and "pseudonyms was" in refused.err


def compared(hospital: Path, *runs: str) -> dict[str, Any]:
    found = called(("compare", *runs, "--radii", "0,0.5s", "--json", "found.json"), hospital)
    assert found.code in (0, 1, 3), found.err
    result: dict[str, Any] = json.loads((hospital / "found.json").read_text())
    return {key: result[key] for key in ("verdict", "items", "overall", "slices", "detectable", "same_weights")}


def test_runs_under_one_key_are_compared_and_others_are_not(hospital: Path) -> None:
    table = hospital / f"{SECRET}-folder/{SECRET}.jsonl"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if "breaks" not in line))
    for model in ("talks", "dark"):
        run(hospital, *command("certify", f"plain-{model}", model=model, key=None))
        run(hospital, *command("certify", f"veiled-{model}", model=model))
    run(hospital, *command("certify", "other", model="dark", key="key2"))
    assert compared(hospital, "plain-talks", "plain-dark") == compared(hospital, "veiled-talks", "veiled-dark")
    for two in ("other", "plain-dark"):
        refused = called(("compare", "veiled-talks", two), hospital)
        assert refused.code == 2 and "pseudonyms was" in refused.err


def test_pseudonyms_hang_on_the_key_and_on_what_they_stand_for() -> None:
    one, two = Pseudonyms(b"k" * 32), Pseudonyms(b"l" * 32)
    assert one.item("x") == one.item("x") != two.item("x") and one.fingerprint != two.fingerprint
    assert len({one.of("item", "x"), one.of("image", "x"), one.of("item", "x", ""), one.digest("x")[:25]}) == 4
    # printf '["digest", "x"]' | openssl dgst -sha256 -hmac Jefe
    found = Pseudonyms(b"Jefe").digest("x")
    assert found == "8f44b45e548028dbc6f4100dc0a80e25154b405e15247e000fe2ae793f0f166b"


def test_what_a_checkpoint_was_trained_on_is_not_told() -> None:
    names = Pseudonyms(secrets.token_bytes(32))
    about = {
        "names": {"model": "m", "data": f"table:{SECRET}", "trained": {"method": "sft", "data": f"medr1:{SECRET}"}},
        "skipped": [],
    }
    found = names.about(about)
    assert SECRET not in json.dumps(found) and found["names"]["trained"]["method"] == "sft"
    assert found["names"]["data"].startswith("table:data-")
    assert SECRET in json.dumps(about), "the given is left as it is"


def test_only_drawings_keep_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that a plug-in makes may be a ward's: their options are replaced, unless its images are drawings."""
    names = Pseudonyms(secrets.token_bytes(32))
    assert names.data("phantom:split=train") == "phantom:split=train" and names.data("phantom") == "phantom"
    made = SimpleNamespace(make=lambda options: None)
    module = import_module("safemed_eval.data.kinds")
    monkeypatch.setattr(module, "kinds", lambda: ["ward"])
    monkeypatch.setattr(module, "_imported", lambda kind: made)
    assert names.data("ward:seven").startswith("ward:data-") and names.data("nothing:seven").startswith("nothing:data-")
    made.draws, made.for_tests = (lambda options, item: False), (lambda options: False)
    assert names.data("ward:seven") == "ward:seven"


def test_a_field_that_nobody_knows_is_not_passed_on() -> None:
    names = Pseudonyms(secrets.token_bytes(32))
    record = {"item": SECRET, "later": [{"deep": SECRET, "n": 3}], "question": SECRET, "options": [SECRET], "x": None}
    found = names.record(record)
    assert SECRET not in json.dumps(found) and found["later"][0]["n"] == 3 and found["x"] is None


# ------------------------------------------------------------------------ images, headers, environment


@pytest.fixture
def kept(hospital: Path) -> Iterator[Path]:
    run(hospital, *command("evaluate", "a", "--keep-images", "2", key=None))
    yield hospital


def test_a_report_can_leave_images_out(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "kinds", lambda: ["attacked_items", "security"])
    for name, options in (("with", ()), ("without", ("--no-images",))):
        run(kept, "report", "a", "--out", name, *options)
        page, drawn = (kept / name / "report.html").read_text(), [f.name for f in (kept / name / "figures").iterdir()]
        shown = "data:image/png;base64" in page.partition('id="images"')[2].partition("</script>")[0]
        assert shown == any(file.startswith("attacked") for file in drawn) == (name == "with")
        assert any(file.startswith("security") for file in drawn)


def test_no_header_of_a_dicom_file_and_no_environment_variable_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", f"{SECRET}-token")
    header = {
        **{"PatientName": f"{SECRET}^Jane", "PatientID": SECRET, "InstitutionName": SECRET, "StudyDescription": SECRET},
        **{"WindowCenter": 2000, "WindowWidth": 900, "WindowCenterWidthExplanation": SECRET},
    }
    (tmp_path / "good.dcm").write_bytes(dicom(**header))
    (tmp_path / "bad.dcm").write_bytes(dicom(keep=-500, **header))
    assert SECRET.encode() in (tmp_path / "good.dcm").read_bytes()
    row = {"question": "Q?", "options": ["a", "b"], "answer": "A"}
    lines = [json.dumps(row | {"id": name, "image": f"{name}.dcm"}) for name in ("good", "bad")]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    data = ("--data", "table:t.jsonl", "--canvas", "16x16", "--skip-bad", "--keep-images", "1", "--attack", "fgsm")
    run(tmp_path, "evaluate", "--model", "python:safemed_eval.models.toy:brightness", *data, "--out", "a")
    assert leaks(tmp_path / "a") == []
    meta = json.loads((tmp_path / "a/run.json").read_text())
    assert meta["image_notes"] == {"DICOM": 1, "window 2000/900": 1} and "bad.dcm" in meta["skipped"][0]["reason"]
