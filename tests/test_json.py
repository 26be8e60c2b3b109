"""The --json output of every command, checked strictly against docs/schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import draw_table
from jsonschema import Draft202012Validator
from synthetic import certified, evaluated, failed, write_run
from test_cli import TOY, call

from safemed_eval.cli import app
from safemed_eval.cli._show import JSON_SCHEMA, show_run
from safemed_eval.report.run import Run

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"
SCHEMAS = {file.stem: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}
PGD = "pgd:eps=4/255,steps=10"
MODEL = ("--model", TOY, "--canvas", "24x24")
SEQUENTIAL = ("--n", "60", "--sampling", "sequential", "--radii", "0.5s")
CASES: list[tuple[str, tuple[str, ...]]] = [
    ("evaluate", ("evaluate", *MODEL, "--attack", "pgd", "--attack", "noise", "--circular", "--out", "run")),
    ("evaluate", ("evaluate", *MODEL, "--attack", "pgd:eps=1", "--smooth", "sigma=0.1,n=30", "--out", "run")),
    ("evaluate", ("evaluate", *MODEL, "--attack", "suite:steps=2,queries=9", "--limit", "3", "--out", "run")),
    (
        "evaluate",
        ("evaluate", "--model", "builtin:sft", "--official", "--canvas", "64x64", "--limit", "2", "--out", "run"),
    ),
    ("certify", ("certify", *MODEL, "--sigma", "0.25", "--n", "60", "--falsify", "--limit", "3", "--out", "run")),
    ("certify", ("certify", *MODEL, "--sigma", "0.25", "--n", "60", "--stop-when-wrong", "--out", "run")),
    ("certify", ("certify", *MODEL, "--noise", "patch:size=4,band=4,stride=4", "--falsify", "--out", "run")),
    (
        "certify",
        (
            "certify",
            *MODEL,
            "--sigma",
            "0.25",
            "--n",
            "60",
            "--sampling",
            "sequential",
            "--radii",
            "0.5s",
            "--out",
            "run",
        ),
    ),
    ("evaluate", ("evaluate", *MODEL, "--attack", "pgd:steps=1", "--grounding", "--out", "run")),
    ("certify", ("certify", *MODEL, "--sigma", "0.25", "--n", "60", "--grounding", "--out", "run")),
    ("plan", ("plan", *MODEL, "--sigma", "0.25", "--n", "60", "--radii", "0.1s", "--attack", "pgd", "--pilot", "2")),
    ("data-describe", ("data", "describe")),
    ("data-audit", ("data", "audit")),
    ("models-check", ("models", "check", TOY, "--canvas", "24x24")),
    ("models-check", ("models", "check", "python:safemed_eval.models.toy:nothing")),
]
NAMES = {"data-describe": "data describe", "data-audit": "data audit", "data-audit-pair": "data audit"}
NAMES |= {"models-check": "models check"}


def checked(name: str, text: str) -> Any:
    """Return the printed JSON of a command, after checking it against its schema."""
    told = json.loads(text)
    Draft202012Validator(SCHEMAS[name]).validate(told)
    assert told["schema"] == JSON_SCHEMA
    for place in closed(SCHEMAS[name], told, SCHEMAS[name]):
        for key in list(place):
            value = place.pop(key)
            place[f"{key}_"] = value
            assert not Draft202012Validator(SCHEMAS[name]).is_valid(told), f"{key} may be renamed"
            place[key] = place.pop(f"{key}_")
    return told


def closed(schema: Any, told: Any, root: Any) -> Iterator[dict[str, Any]]:
    """All objects in it with names of their own, not those of slices, conditions or radii; one of each list."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        schema = schema["anyOf"][0]
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if isinstance(told, list) and told:
        yield from closed(schema["items"], told[0], root)
    elif isinstance(told, dict) and "properties" in schema:
        yield told
        for key, value in list(told.items()):
            yield from closed(schema["properties"][key], value, root)
    elif isinstance(told, dict) and told:
        yield from closed(schema["additionalProperties"], next(iter(told.values())), root)


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=[" ".join(arguments)[:60] for _, arguments in CASES])
def test_a_command_prints_what_is_documented(
    name: str, arguments: tuple[str, ...], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = [f"table:{table}"] if arguments[0] == "data" else ["--data", f"table:{table}"]
    checked(name, call(*arguments, *(data if arguments[0] != "models" else []), "--json")[1])


def test_data_that_is_bad_or_shared(table: Path, tmp_path: Path) -> None:
    broken = draw_table(tmp_path / "broken", answer="a kidney")
    assert checked("data-describe", call("data", "describe", f"table:{broken}", "--json")[1])["bad"]
    told = checked("data-audit-pair", call("data", "audit", *[f"table:{table}"] * 2, "--near", "--json")[1])
    assert told["verdict"] == "shared" and told["shared"]
    checked("data-audit-pair", call("data", "audit", *[f"table:{table}"] * 2, "--paths-only", "--json")[1])


def test_a_plan_that_was_stopped(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of an attack whose model is never shown anything."""
    (tmp_path / "unwilling.py").write_text(
        "class Model:\n    def scores(self, canvas, questions):\n        raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = ["--model", "python:unwilling:Model", "--data", f"table:{table}", "--canvas", "24x24", "--attack", "pgd"]
    told = checked("plan", call("plan", *asked, "--json")[1])
    assert told["stopped"] and told["costs"][0]["hours"] == {"1": None, "8": None, "64": None}


def test_runs_of_models_that_write_and_items_that_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {"text": "<think>B is brighter.</think><answer> B </answer>", "log_probs": None}
    records = [evaluated(i, name, True, **texts) for i in range(4) for name in ("clean", PGD)]
    lost = {"prediction": None, "log_probs": None, "error": "broken"}
    records += [evaluated(4, name, False, **lost) for name in ("clean", PGD)]
    show_run(Run.read(write_run(tmp_path / "a", records, "evaluate", conditions=["clean", PGD])), json=True)
    told = checked("evaluate", capsys.readouterr().out)
    assert told["reasoning"]["overall"][PGD]["rationale_changed"] and told["overall"]["clean"]["without_failed"]
    show_run(Run.read(write_run(tmp_path / "b", [certified(0, 970), failed(1)], "certify")), json=True)
    assert checked("certify", capsys.readouterr().out)["failed"] == 1
    show_run(Run.read(write_run(tmp_path / "c", [failed(1)], "certify")), json=True)
    assert checked("certify", capsys.readouterr().out)["all_failed"]


@pytest.mark.parametrize("kind", ["evaluate", "certify"])
def test_a_comparison(kind: str, tmp_path: Path) -> None:
    for out, right in (("a", 15), ("b", 12)):
        records = [certified(i, 990 if i < right else 400) for i in range(20)]
        if kind == "evaluate":
            records = [evaluated(i, "clean", i < right) for i in range(20)]
        write_run(tmp_path / out, records, kind, **({"conditions": ["clean"]} if kind == "evaluate" else {}))
    file = tmp_path / "found.json"
    assert call("compare", tmp_path / "a", tmp_path / "b", "--json", file)[0] in (1, 3)
    checked("compare", file.read_text())


def leaves(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield from leaves(command, f"{path}{name} ") if hasattr(command, "commands") else [(f"{path}{name}", command)]


def test_every_command_with_json_has_a_schema() -> None:
    known = {
        path
        for path, one in leaves(typer.main.get_command(app))
        if any("--json" in option.opts for option in one.params)
    }
    assert known == {NAMES.get(name, name) for name in SCHEMAS}
    page = (FOLDER.parent / "json.md").read_text()
    for name, schema in SCHEMAS.items():
        Draft202012Validator.check_schema(schema)
        assert f"(schemas/{name}.json)" in page and schema["properties"]["schema"] == {
            "const": JSON_SCHEMA,
            "description": "Version of this schema.",
        }
        assert all("additionalProperties" in one for one in objects(schema))


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema of an object in it."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)
