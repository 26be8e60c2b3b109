"""Run folders: edited, mixed, of another version, of another command, or of nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synthetic import SEQUENTIAL, SMOOTHING, sequenced, write_run
from synthetic import certified as certificate
from synthetic import evaluated as answer

from bad.case import Case, Make, certified, evaluated

Json = dict[str, Any]
ATTACK = "fgsm:eps=4/255"
CORRUPTION = "corrupt:kind=blur,severity=2"
REPORT = ("report", "a", "--out", "r")
COMPARE = ("compare", "a", "b")


def attacked(out: Path, **settings: Any) -> None:
    """A good run of evaluate, over three items."""
    records = [answer(i, name, i > 0) for i in range(3) for name in ("clean", ATTACK)]
    write_run(out, records, "evaluate", conditions=("clean", ATTACK), **settings)


def corrupted(out: Path) -> None:
    records = [answer(i, name, i > 0) for i in range(3) for name in ("clean", CORRUPTION)]
    write_run(out, records, "evaluate", conditions=("clean", CORRUPTION))


def certificates(out: Path, **settings: Any) -> None:
    write_run(out, [certificate(i, 990) for i in range(3)], "certify", **settings)


def sequences(out: Path, **settings: Any) -> None:
    write_run(out, [sequenced(i, every) for i, every in enumerate((None, 9, 2))], "certify", smoothing=SEQUENTIAL)


def rotated(out: Path) -> None:
    """Answers in all orders of the options, of a model whose texts are withheld."""
    told = {"words": 9, "rationale": "rationale-1", "conclusion": 1}
    records = [answer(i, "circular", True, rotations=[1, 1, 1], log_probs=None, told=told) for i in range(3)]
    records += [answer(i, "clean", True, told=told) for i in range(3)]
    write_run(out, records, "evaluate", conditions=("clean", "circular"))


def smoothed(out: Path) -> None:
    """Answers by vote, and under an attack that is made of several."""
    votes = {"votes": [0, 100, 0, 0], "abstained": None, "log_probs": None}
    parts = {
        "parts": {"answer": True, "rationale": False},
        "climb": [0.0, 0.1, 0.2, 0.3, 0.4],
        "dead": 0.0,
        "rounded": 0,
    }
    records = [answer(i, "clean", True, **votes) for i in range(3)]
    records += [answer(i, ATTACK, True, **votes, **parts) for i in range(3)]
    smooth = {"sigma": 0.25, "n": 100, "alpha": 0.001, "m": 8}
    write_run(out, records, "evaluate", conditions=("clean", ATTACK), spec={"smooth": smooth})


def falsified(out: Path) -> None:
    """Certificates that were attacked."""
    spec = {"shares": [0.0, 0.5], "steps": 20, "m": 16, "n": 1000, "alpha": 1e-6}
    found = [{"share": share, "length": 0.1, "votes": 990} for share in spec["shares"]]
    records = [certificate(i, 990, falsified=found) for i in range(3)]
    write_run(out, records, "certify", spec={"falsify": spec})


def edited(kind: Callable[..., None], change: Callable[[Json], object]) -> Make:
    """Folder a, and its first record changed."""

    def make(folder: Path) -> None:
        kind(folder / "a")
        file = folder / "a/records.jsonl"
        first, *rest = file.read_text().splitlines()
        record = json.loads(first)
        change(record)
        file.write_text("\n".join([json.dumps(record), *rest]) + "\n")

    return make


def noted(kind: Callable[..., None], change: Callable[[Json], object]) -> Make:
    """Folder a, and its run.json changed."""

    def make(folder: Path) -> None:
        kind(folder / "a")
        file = folder / "a/run.json"
        meta = json.loads(file.read_text())
        change(meta)
        file.write_text(json.dumps(meta))

    return make


def overwritten(name: str, content: str | bytes) -> Make:
    def make(folder: Path) -> None:
        attacked(folder / "a")
        (folder / "a" / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def line(text: str) -> Make:
    """A further line among the records."""

    def make(folder: Path) -> None:
        attacked(folder / "a")
        with (folder / "a/records.jsonl").open("a") as file:
            file.write(text + "\n")

    return make


def put(key: str, value: Any) -> Callable[[Json], object]:
    return lambda record: record.update({key: value})


def drop(key: str) -> Callable[[Json], object]:
    return lambda record: record.pop(key)


def spec(**values: Any) -> Callable[[Json], object]:
    return lambda meta: meta["spec"].update(values)


def pair(kind: Callable[..., None], **changes: Any) -> Make:
    """Folders a and b, of which b differs."""

    def make(folder: Path) -> None:
        kind(folder / "a")
        kind(folder / "b", **changes)

    return make


RECORDS: list[tuple[str, Make, Sequence[str]]] = [
    ("no json", line("not json"), ["records.jsonl: line 7 is not a record"]),
    ("a torn line", line('{"item": "i0", '), ["line 7 is not a record"]),
    ("a list", line("[1]"), ["line 7 is not a record"]),
    ("a number", line("3"), ["line 7 is not a record"]),
    ("not a number", line('{"item": "x", "attack": "clean", "linf": NaN}'), ["line 7 is not a record"]),
    ("without end", line("[" * 100_000), ["line 7 is not a record"]),
    ("an item that is a list", line('{"item": ["x"]}'), ["line 7 is not a record"]),
    ("an item twice", line('{"item": "i0", "attack": "clean"}'), ["line 7 repeats item 'i0'"]),
    ("bytes", overwritten("records.jsonl", bytes(range(256)) + b"\n"), ["line 1 is not a record"]),
    ("another attack", edited(attacked, put("attack", "pgd")), ["i0", "'pgd', which was not asked for"]),
    ("no attack", edited(attacked, drop("attack")), ["i0", "which was not asked for"]),
    ("an answer made right", edited(attacked, put("correct", True)), ["i0", "its prediction says otherwise"]),
    ("a label made right", edited(attacked, put("label", 0)), ["i0", "its prediction says otherwise"]),
    ("correct as a number", edited(attacked, put("correct", 1)), ["i0", "correct cannot be 1"]),
    ("a prediction of half", edited(attacked, put("prediction", 0.5)), ["i0", "prediction cannot be 0.5"]),
    ("a prediction outside", edited(attacked, put("prediction", 99)), ["i0", "prediction"]),
    ("a label outside", edited(attacked, put("label", 99)), ["i0", "label"]),
    ("a label below", edited(attacked, put("label", -1)), ["i0", "label"]),
    ("options of numbers", edited(attacked, put("options", [1, 2, 3])), ["i0", "options"]),
    ("no options", edited(attacked, put("options", [])), ["i0", "options"]),
    ("options as text", edited(attacked, put("options", "abc")), ["i0", "options cannot be 'abc'"]),
    ("no question", edited(attacked, drop("question")), ["i0", "has no question"]),
    ("an image of null", edited(attacked, put("image", None)), ["i0", "image cannot be None"]),
    ("a modality of lists", edited(attacked, put("modality", ["CT"])), ["i0", "modality cannot be ['CT']"]),
    ("an error that is a number", edited(attacked, put("error", 3)), ["i0", "error cannot be 3"]),
    ("no error", edited(attacked, drop("error")), ["i0", "has no error"]),
    ("log-probabilities as text", edited(attacked, put("log_probs", "high")), ["i0", "log_probs"]),
    ("too few log-probabilities", edited(attacked, put("log_probs", [-0.1])), ["i0", "log_probs"]),
    ("a change as text", edited(attacked, put("linf", "large")), ["i0", "linf"]),
    ("a text that is a number", edited(attacked, put("text", 5)), ["i0", "text"]),
    ("steps of text", edited(attacked, put("steps", "many")), ["i0", "steps"]),
    ("a climb of text", edited(attacked, put("climb", "up")), ["i0", "climb"]),
    ("parts of text", edited(attacked, put("parts", "all")), ["i0", "parts"]),
    ("a source that is a list", edited(attacked, put("source", [1])), ["i0", "source"]),
    ("a certificate that grew", edited(certificates, put("radius", 0.9)), ["i0", "does not follow from its votes"]),
    ("a bound that grew", edited(certificates, put("p_lower", 0.999)), ["i0", "does not follow from its votes"]),
    ("an abstention undone", edited(certificates, put("abstained", "x")), ["i0", "does not follow from its votes"]),
    ("votes that grew", edited(certificates, put("votes", [0, 1000, 1, 0])), ["i0", "votes are not 1000 votes"]),
    ("votes below zero", edited(certificates, put("votes", [-1, 1001, 0, 0])), ["i0", "votes are not 1000 votes"]),
    ("votes of halves", edited(certificates, put("votes", [0.5, 999.5, 0, 0])), ["i0", "votes cannot be [0.5"]),
    ("votes that are missing", edited(certificates, drop("votes")), ["i0", "votes are not 1000 votes"]),
    ("votes of another question", edited(certificates, put("votes", [0, 1000])), ["i0", "votes are not 1000"]),
    ("first votes of nobody", edited(certificates, put("votes0", [0, 0, 0, 0])), ["i0", "votes0 are not 100 votes"]),
    ("another sigma", edited(certificates, put("sigma", 0.5)), ["i0", "made with sigma=0.5, the run with another"]),
    ("another alpha", edited(certificates, put("alpha", 0.05)), ["i0", "made with alpha=0.05"]),
    ("hits of text", edited(sequences, put("hits", "all")), ["i0"]),
    ("a stop before its time", edited(sequences, put("stopped_at", 1)), ["i0"]),
    ("radii of another run", edited(sequences, put("radii", {"0": 0.0})), ["i0", "radii"]),
    ("rotations of text", edited(rotated, put("rotations", "x")), ["a"]),
    ("a conclusion outside", edited(rotated, put("told", {"words": 1, "rationale": None, "conclusion": 9})), ["told"]),
    ("a rationale that is a number", edited(rotated, put("told", {"words": 1, "rationale": 2})), ["i0", "told"]),
    ("an answer against its votes", edited(smoothed, put("votes", [100, 0, 0, 0])), ["i0", "does not follow"]),
    ("falsified as a number", edited(falsified, put("falsified", 3)), ["i0", "falsified"]),
    ("votes against a certificate", edited(falsified, put("falsified", [])), ["i0", "falsified does not fit"]),
    ("seconds of text", edited(certificates, put("seconds", "long")), ["i0", "seconds"]),
]

NOTES: list[tuple[str, Make, Sequence[str]]] = [
    ("no json", overwritten("run.json", "{"), ["a: not a run folder", "run.json cannot be read"]),
    ("nothing", overwritten("run.json", ""), ["run.json cannot be read"]),
    ("a list", overwritten("run.json", "[]"), ["run.json cannot be read"]),
    ("bytes", overwritten("run.json", bytes(range(256))), ["run.json cannot be read"]),
    ("without end", overwritten("run.json", "[" * 100_000), ["run.json cannot be read"]),
    ("no schema", noted(attacked, drop("schema")), ["run.json cannot be read", "schema"]),
    (
        "a schema of the future",
        noted(attacked, put("schema", 2)),
        ["written with schema 2, this version reads schema 1"],
    ),
    ("a schema of text", noted(attacked, put("schema", "1")), ["schema"]),
    ("no spec", noted(attacked, drop("spec")), ["run.json has no spec"]),
    ("a spec that is a text", noted(attacked, put("spec", "x")), ["a run of 'None'"]),
    ("no items", noted(attacked, drop("items")), ["run.json has no items"]),
    ("items of text", noted(attacked, put("items", "3")), ["items cannot be '3'"]),
    ("items below zero", noted(attacked, put("items", -3)), ["a", "items"]),
    ("conditions of another run", noted(attacked, put("conditions", ["clean"])), ["conditions are not the attacks"]),
    ("conditions that are a text", noted(attacked, put("conditions", "clean")), ["conditions cannot be 'clean'"]),
    ("sessions of texts", noted(attacked, put("sessions", ["x"])), ["sessions cannot be"]),
    ("versions that are a text", noted(attacked, put("sessions", [{"versions": "x"}])), ["a", "session"]),
    ("a command line that is a number", noted(attacked, put("sessions", [{"argv": 7}])), ["a", "session"]),
    ("skipped items of texts", noted(attacked, put("skipped", ["x"])), ["a", "skipped"]),
    ("names of numbers", noted(attacked, put("names", {"model": 3, "data": 4})), ["model cannot be 3"]),
    (
        "commits that are a text",
        noted(attacked, lambda m: m["names"].update(commits="x", trained="x")),
        ["a", "trained"],
    ),
    ("image notes of texts", noted(attacked, put("image_notes", {"x": "y"})), ["a", "image_notes"]),
    ("an attack of nothing", noted(attacked, lambda m: m["spec"]["attacks"].update(clean={})), ["attacks"]),
    (
        "an attack of negative size",
        noted(attacked, lambda m: m["spec"]["attacks"][ATTACK].update(eps=-0.1)),
        ["eps cannot be -0.1"],
    ),
    (
        "a corruption of no severity",
        noted(corrupted, lambda m: m["spec"]["attacks"][CORRUPTION].pop("severity")),
        [CORRUPTION, "a corruption has no severity"],
    ),
    (
        "a temperature below zero",
        noted(attacked, spec(asking={"readout": "generate", "temperature": -1.0})),
        ["temperature cannot be -1.0"],
    ),
    ("a canvas that is none", noted(attacked, spec(canvas="large")), ["a", "canvas"]),
    ("a seed of text", noted(attacked, spec(seed="x")), ["seed cannot be 'x'"]),
    ("no smoothing", noted(certificates, lambda m: m["spec"].pop("smoothing")), ["has no smoothing"]),
    ("a sigma of 0", noted(certificates, spec(smoothing=asdict(SMOOTHING) | {"sigma": 0})), ["smoothing", "sigma"]),
    ("a sigma of text", noted(certificates, spec(smoothing=asdict(SMOOTHING) | {"sigma": "x"})), ["smoothing"]),
    ("a sigma too many", noted(certificates, spec(smoothing=asdict(SMOOTHING) | {"tau": 1})), ["smoothing", "tau"]),
    ("a smoothing of another run", noted(certificates, spec(smoothing=asdict(SMOOTHING) | {"n": 500})), ["n=1000"]),
    ("a falsification of text", noted(certificates, spec(falsify={"steps": "x", "y": 1})), ["falsify"]),
    (
        "a falsification at no level",
        noted(falsified, lambda meta: meta["spec"]["falsify"].update(alpha=-1)),
        ["falsify"],
    ),
    ("a vote of text", noted(attacked, spec(smooth={"sigma": "x"})), ["smooth"]),
    ("an order of text", noted(attacked, spec(shuffle_options="x")), ["shuffle_options cannot be 'x'"]),
    ("an option order that is none", noted(certificates, spec(option_order="x")), ["option_order"]),
    ("an asking of text", noted(attacked, spec(asking="x")), ["a", "asking"]),
]

PAIRS: list[tuple[str, Make, Sequence[str]]] = [
    ("other data", pair(attacked, spec={"data": "e"}), ["asked for different things", 'data was "d", now "e"']),
    ("another canvas", pair(attacked, spec={"canvas": "64x64 pad"}), ["canvas was", "64x64 pad"]),
    ("another seed", pair(attacked, spec={"seed": 1}), ["seed was 0, now 1"]),
    ("fewer items", lambda f: (attacked(f / "a"), _few(f / "b")), ["has other items", "1 (i2) missing"]),
    ("an empty run", lambda f: (attacked(f / "a"), _empty(f / "b")), ["holds no record"]),
    ("an unfinished run", pair(attacked, items=9), ["lacks 12 records", "the same command goes on"]),
    ("more records than items", pair(attacked, items=1), ["holds more records than its items have"]),
    ("another command", lambda f: (attacked(f / "a"), certificates(f / "b")), ["asked for different"]),
    ("one run twice", lambda f: (attacked(f / "a"), (f / "b").symlink_to("a")), ["compared with itself"]),
    ("a version of the future", pair(attacked, schema=2), ["b: written with schema 2"]),
]


def _few(out: Path) -> None:
    records = [answer(i, name, i > 0) for i in range(2) for name in ("clean", ATTACK)]
    write_run(out, records, "evaluate", conditions=("clean", ATTACK))


def _empty(out: Path) -> None:
    write_run(out, [], "evaluate", conditions=("clean", ATTACK))


def _other_spec(folder: Path) -> None:
    attacked(folder / "run")


def _nothing_new(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run/holiday.jpg").touch()


def _future(folder: Path) -> None:
    attacked(folder / "run", schema=2)


CASES = [
    *(Case(name=f"record: {name}", make=make, argv=REPORT, says=("a", *says)) for name, make, says in RECORDS),
    *(Case(name=f"run.json: {name}", make=make, argv=REPORT, says=("a", *says)) for name, make, says in NOTES),
    *(Case(name=f"compare: {name}", make=make, argv=COMPARE, says=tuple(says)) for name, make, says in PAIRS),
    Case(
        name="compare: a radius above the ceiling",
        make=pair(certificates),
        argv=(*COMPARE, "--radii", "3s"),
        says=("--radii 3s", "certify no radius above", "leave it out"),
    ),
    Case(
        name="compare: no radius",
        make=pair(certificates),
        argv=(*COMPARE, "--radii", "nan"),
        says=("--radii: 'nan' is not a number",),
    ),
    Case(
        name="report: alpha of 0",
        make=lambda f: certificates(f / "a"),
        argv=(*REPORT, "--alpha", "0"),
        says=("--alpha 0", "between 0 and 1"),
    ),
    Case(
        name="report: alpha of nan",
        make=lambda f: certificates(f / "a"),
        argv=(*REPORT, "--alpha", "nan"),
        says=("--alpha nan", "alpha"),
    ),
    Case(
        name="report: alpha too small",
        make=lambda f: certificates(f / "a"),
        argv=(*REPORT, "--alpha", "1e-310"),
        says=("--alpha", "raise n or alpha"),
    ),
    Case(
        name="report: no radius",
        make=lambda f: certificates(f / "a"),
        argv=(*REPORT, "--radii", "1/0"),
        says=("--radii: '1/0' is not a number",),
    ),
    Case(
        name="report: twice", make=lambda f: attacked(f / "a"), argv=("report", "a", *REPORT[1:]), says=("given twice",)
    ),
    Case(
        name="report: one name for two",
        make=pair(attacked),
        argv=("report", "x=a", "x=b", "--out", "r"),
        says=("x: is given twice",),
    ),
    Case(
        name="resume: another command",
        make=_other_spec,
        argv=certified("--sigma", "0.25"),
        says=("--out run holds another run", 'command was "evaluate", now "certify"', "Choose another --out"),
    ),
    Case(
        name="resume: another spec",
        make=_other_spec,
        argv=evaluated("--attack", ATTACK, data="phantom:images=2"),
        says=("--out run holds another run", "data was"),
    ),
    Case(
        name="resume: something else",
        make=_nothing_new,
        argv=evaluated(data="phantom:images=2"),
        says=("--out run: not a run folder, it holds holiday.jpg",),
    ),
    Case(
        name="resume: a version of the future",
        make=_future,
        argv=evaluated(data="phantom:images=2"),
        says=("run: written with schema 2",),
    ),
]
