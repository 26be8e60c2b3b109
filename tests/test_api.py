"""The Python API: what it lists, and that the command line is the same thing with printing around it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import typer
from typer.testing import CliRunner

import safemed_eval as se
from safemed_eval.cli import app
from safemed_eval.core import Question
from safemed_eval.errors import SafemedError, Stopped
from safemed_eval.runs import Memory, read_lines
from safemed_eval.runs.folder import RunFolder
from safemed_eval.train import recipe_of

ROOT = Path(__file__).parents[1]
DATA = ["--data", "phantom", "--limit", "4"]
SFT = ["--model", "builtin:sft", *DATA]
COMMANDS = typer.main.get_command(app)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def data() -> se.Data:
    return se.load_data("phantom", limit=4)


@pytest.fixture(scope="module")
def model() -> se.Model:
    return se.load_model("builtin:sft")


def cli(*arguments: str) -> str:
    """Run a command; return what it prints."""
    outcome = CliRunner().invoke(app, list(arguments))
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


# ---------------------------------------------------------------------------------------------------------- the list


def test_the_list_is_what_the_docs_list() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    table = page.split("| name | command | returns |\n")[1].split("\n\n")[0]
    names = {name for row in table.splitlines()[1:] for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    assert names == set(se.__all__)
    assert sorted(se.__all__) == se.__all__
    assert dir(se) == se.__all__


FUNCTIONS = [name for name in se.__all__ if callable(getattr(se, name)) and name.islower()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_typed_and_have_an_example(name: str) -> None:
    function = getattr(se, name)
    function = function if inspect.isfunction(function) else type(function).__call__
    assert all(part.annotation is not part.empty for part in inspect.signature(function).parameters.values())
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty
    assert ">>> " in (function.__doc__ or ""), f"{name} has no example"


@pytest.mark.parametrize("name", ["Run", "Model", "Data"])
def test_nouns_are_typed_and_documented(name: str) -> None:
    noun = getattr(se, name)
    assert noun.__doc__
    for attribute, value in vars(noun).items():
        function = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", value)
        if not attribute.startswith("_") and inspect.isfunction(function):
            assert function.__doc__, f"{name}.{attribute} has no docstring"
            assert "return" in function.__annotations__, f"{name}.{attribute} is not typed"


def test_other_names_are_refused_in_words() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'certifi'"):
        _ = se.certifi


# ---------------------------------------------------------------------------------------------------------- defaults


def options_of(*names: str) -> dict[str, Any]:
    """The defaults of a command's options, by parameter."""
    command: Any = COMMANDS
    for name in names:
        command = command.commands[name]
    return {parameter.name: parameter.default for parameter in command.params}


def defaults_of(*functions: Callable[..., object]) -> dict[str, Any]:
    """The defaults of several functions' arguments, the first function's where they share one."""
    defaults: dict[str, Any] = {}
    for function in reversed(functions):
        parameters = inspect.signature(function).parameters.values()
        defaults |= {part.name: part.default for part in parameters if part.default is not part.empty}
    return defaults


ELSEWHERE = {"out": "auto"}
"""The command line's default where it is not the API's: a run that is not kept would be of no use there."""
SPELLED = {"attack": "attacks", "data_root": "root", "no_images": "images"}
"""The API's names of options that are called otherwise on the command line."""


@pytest.mark.parametrize(
    ("command", "functions"),
    [
        (("evaluate",), (se.evaluate, se.load_model, se.load_data)),
        (("certify",), (se.certify, se.load_model, se.load_data)),
        (("plan",), (se.plan, se.load_model, se.load_data)),
        (("models", "check"), (se.check_model, se.load_model)),
        (("report",), (se.report.__call__,)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value[0], str) else "",
)
def test_defaults_are_those_of_the_command_line(
    command: tuple[str, ...], functions: Sequence[Callable[..., object]]
) -> None:
    given, expected = options_of(*command), defaults_of(*functions)
    compared = 0
    for option, default in given.items():
        name = SPELLED.get(option, option)
        if name in expected and name not in ELSEWHERE:
            api = not expected[name] if option == "no_images" else expected[name]
            assert (default or None) == (api or None), option
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("method", ["sft", "at-sft", "grpo", "at-grpo", "denoiser"])
def test_defaults_of_training_are_those_of_the_command_line(method: str) -> None:
    required = {"sigma": 0.25} if method == "denoiser" else {}
    apart = {"model", "template", "out", "data", "device", "dtype", "attn", "help", "eval_limit", *required}
    apart |= set(inspect.signature(se.load_data).parameters) | set(inspect.signature(se.load_model).parameters)
    apart = (apart | {"data_root"}) - {"seed", "temperature", "max_new_tokens", "readout"}
    given = {name: value for name, value in options_of("train", method).items() if name not in apart}
    assert len(given) >= 5
    assert recipe_of(method, **required, **given) == recipe_of(method, **required)  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------- same folders


def written(folder: Path) -> tuple[Any, list[Any]]:
    """run.json without what every start writes, and the records without their seconds."""
    meta = json.loads((folder / "run.json").read_text())
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return {key: meta[key] for key in meta if key != "sessions"}, [line | {"seconds": 0} for line in lines]


@pytest.mark.parametrize(
    ("out", "safe"), [("run", "1 records are safe in run, the same command goes on"), (None, "nothing is kept")]
)
def test_ctrl_c_says_what_is_safe(out: str | None, safe: str, data: se.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a run goes on from there."""
    append = (kind := RunFolder if out else Memory).append

    def interrupted(folder: Any, lines: Sequence[Mapping[str, Any]]) -> None:
        append(folder, lines)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kind, "append", interrupted)
        with pytest.raises(Stopped, match=f"^stopped; {safe}$"):
            se.certify(Brightness(), data, sigma=0.25, n0=4, n=16, out=out)
    if out:
        assert len(read_lines(Path(out))) == 1
        whole = se.certify(Brightness(), data, sigma=0.25, n0=4, n=16, out=out)
        assert [record.item for record in whole.records] == [item.id for item in data.items]


def test_evaluate_writes_the_folder_of_the_command(data: se.Data, model: se.Model) -> None:
    cli("evaluate", *SFT, "--attack", "pgd:eps=4/255,steps=2", "--circular", "--quantize", "--out", "cli")
    options: dict[str, Any] = {"attacks": ["pgd:eps=4/255,steps=2"], "circular": True, "quantize": True}
    run = se.evaluate(model, data, **options, out="api")
    assert written(Path("cli")) == written(Path("api"))
    kept = se.evaluate(model, data, **options)
    pd.testing.assert_frame_equal(run.frame().drop(columns="seconds"), kept.frame().drop(columns="seconds"))
    assert kept.out is None
    printed = json.loads(
        cli("evaluate", *SFT, "--attack", "pgd:eps=4/255,steps=2", "--circular", "--quantize", "--json", "--out", "cli")
    )
    assert kept.summary.to_json()["overall"] == run.summary.to_json()["overall"] == printed["overall"]
    assert [str(finding) for finding in run.findings] == [str(finding) for finding in kept.findings]


def test_certify_writes_the_folder_of_the_command(data: se.Data, model: se.Model) -> None:
    budget = {"sigma": "0.25", "n0": "4", "n": "16", "alpha": "0.01"}
    cli("certify", *SFT, *(part for name, value in budget.items() for part in (f"--{name}", value)), "--out", "cli")
    options: dict[str, Any] = {"sigma": 0.25, "n0": 4, "n": 16, "alpha": 0.01}
    run, kept = (se.certify(model, data, **options, out=out) for out in ("api", None))
    assert written(Path("cli")) == written(Path("api"))
    pd.testing.assert_frame_equal(run.frame().drop(columns="seconds"), kept.frame().drop(columns="seconds"))
    pd.testing.assert_frame_equal(run.curve(), kept.curve())
    pd.testing.assert_frame_equal(run.accuracy(by="modality"), kept.accuracy(by="modality"))


def test_train_writes_the_folder_of_the_command() -> None:
    pytest.importorskip("trl", reason="TRL is in the train extra")
    train = "phantom:split=train,images=2"
    made = ["--model", "builtin:sft", "--data", train, "--steps", "2", "--batch-size", "2", "--out", "cli"]
    cli("train", "sft", *made)
    assert se.train("sft", "builtin:sft", train, out="api", steps=2, batch_size=2) == Path("api")
    specs = [json.loads((Path(folder) / "training" / "run.json").read_text())["spec"] for folder in ("cli", "api")]
    assert specs[0] == specs[1]
    weights = [(Path(folder) / "model.safetensors").read_bytes() for folder in ("cli", "api")]
    assert weights[0] == weights[1]


def test_auto_is_the_folder_of_the_command_line(data: se.Data, model: se.Model) -> None:
    cli("evaluate", *SFT)
    run = se.evaluate(model, data, out="auto")
    assert [run.out] == [*Path("runs").iterdir()]


# -------------------------------------------------------------------------------------------------------------- errors

WRONG: list[tuple[list[str], Callable[[], object]]] = [
    (["evaluate", *SFT, "--attack", "pdg"], lambda: se.evaluate("builtin:sft", "phantom", attacks=["pdg"])),
    (["evaluate", *SFT, "--batch-size", "0"], lambda: se.evaluate("builtin:sft", "phantom", batch_size=0)),
    (["certify", *SFT, "--sigma", "25"], lambda: se.certify("builtin:sft", "phantom", sigma=25)),
    (["certify", *SFT, "--sigma", "0.25", "--n", "3"], lambda: se.certify("builtin:sft", "phantom", sigma=0.25, n=3)),
    (["evaluate", "--model", "builtin:stf", *DATA], lambda: se.load_model("builtin:stf")),
    (["evaluate", "--model", "builtin:sft", "--data", "phantm"], lambda: se.load_data("phantm")),
    (["plan", *SFT], lambda: se.plan("builtin:sft", "phantom")),
    (["report", "nowhere", "--out", "report"], lambda: se.report(["nowhere"], "report")),
    (["compare", "nowhere", "there"], lambda: se.compare("nowhere", "there")),
    (
        ["train", "sft", "--model", "builtin:sft", "--data", "phantom", "--out", "ckpt"],
        lambda: se.train("sft", "builtin:sft", "phantom", out="ckpt"),
    ),
]


@pytest.mark.parametrize(("command", "call"), WRONG, ids=[" ".join(command) for command, _ in WRONG])
def test_errors_have_the_words_of_the_command_line(command: list[str], call: Callable[[], object]) -> None:
    with pytest.raises(SafemedError) as raised:
        call()
    told = CliRunner().invoke(app, command).exception  # `cli.main` prints it; see test_cli.py
    assert (type(told), str(told)) == (type(raised.value), str(raised.value))


EARLY: list[tuple[list[str], Callable[[], object]]] = [
    *WRONG[:4],
    *[
        ([command, *SFT, *options], partial(call, "builtin:sft", "phantom", **given))
        for command, call, options, given in (
            ("evaluate", se.evaluate, ["--attack", "pgd:eps=9"], {"attacks": ["pgd:eps=9"]}),
            ("evaluate", se.evaluate, ["--attack", "adaptive"], {"attacks": ["adaptive"]}),
            ("evaluate", se.evaluate, ["--smooth", "sigma=-1"], {"smooth": "sigma=-1"}),
            ("evaluate", se.evaluate, ["--workers", "2"], {"workers": 2}),
            ("evaluate", se.evaluate, ["--pseudonymize", "nowhere"], {"pseudonymize": "nowhere"}),
            ("evaluate", se.evaluate, ["--out", __file__], {"out": __file__}),
            ("certify", se.certify, ["--sigma", "0.1", "--radii", "x"], {"sigma": 0.1, "radii": "x"}),
            ("plan", se.plan, ["--sigma", "0.1", "--n", "3"], {"sigma": 0.1, "n": 3}),
            ("train", partial(se.train, "sft", out="x"), ["--steps", "0"], {"steps": 0}),
        )
    ],
]


@pytest.mark.parametrize(("command", "call"), EARLY, ids=[" ".join(command) for command, _ in EARLY])
def test_wrong_options_are_refused_before_data_are_read(
    command: list[str], call: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> object:
        raise AssertionError("the data were read")

    monkeypatch.setattr("safemed_eval.data.choose.load", read)
    with pytest.raises(SafemedError) as raised:
        call()
    method = [command[0], *["sft"] * (command[0] == "train"), *command[1:], *["--out", "x"] * (command[0] == "train")]
    assert str(CliRunner().invoke(app, method).exception) == str(raised.value)


def test_images_can_be_kept_in_a_run_folder_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the command line there always is one."""
    monkeypatch.setattr("safemed_eval.data.choose.load", None)
    with pytest.raises(SafemedError, match="--keep-images: are kept in the run folder"):
        se.evaluate("builtin:sft", "phantom", keep_images=1)


# ----------------------------------------------------------------------------------------------------- models of users


class Brightness:
    """Answers with the first option where the image is brighter than mid-grey."""

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[torch.Tensor]:
        bright = canvas.mean((1, 2, 3)) - 0.5
        return [
            row * row.new_tensor([1.0] + [-1.0] * (len(q.options) - 1))
            for row, q in zip(bright, questions, strict=True)
        ]


def test_an_object_is_evaluated_and_certified(data: se.Data) -> None:
    assert len(se.evaluate(Brightness(), data, attacks=["pgd:steps=1"]).frame()) == 8
    assert len(se.certify(Brightness(), data, sigma=0.25, n0=4, n=16).frame()) == 4


def test_a_loaded_network_answers_as_its_folder_does(data: se.Data, model: se.Model) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = Path(se.__file__).parent / "models" / "builtin" / "sft"
    network = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    pair = se.load_model((network, AutoProcessor.from_pretrained(folder)), template=model.asking.template)
    first, second = (se.evaluate(asked, data).frame()["log_probs"] for asked in (pair, model))
    for own, other in zip(first, second, strict=True):
        assert own == pytest.approx(other, abs=1e-3)


# ------------------------------------------------------------------------------------------ comparing, resuming, costs


def test_two_runs_in_memory_are_compared(data: se.Data, model: se.Model) -> None:
    first, again = se.evaluate(model, data), se.evaluate(model, data)
    comparison = se.compare(first, again)
    assert (comparison.verdict, comparison.exit_code(), comparison.same_weights) == ("no regression", 0, True)


def test_the_same_call_goes_on_after_ctrl_c(data: se.Data, model: se.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = se.evaluate(model, data, attacks=["noise"])
    append = RunFolder.append

    def interrupted(folder: RunFolder, lines: Sequence[Mapping[str, Any]]) -> None:
        append(folder, lines)
        raise KeyboardInterrupt

    go = partial(se.evaluate, model, data, attacks=["noise"], batch_size=1, out="run")
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", interrupted)
        with pytest.raises(Stopped, match="4 records are safe in run, the same command goes on"):
            go()
    run = go()
    assert run.frame()["prediction"].tolist() == whole.frame()["prediction"].tolist()
    assert len(json.loads(Path("run/run.json").read_text())["sessions"]) == 2


def test_a_canvas_that_the_processor_shrinks_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same sigma is milder there, since noise averages out; nothing else in the numbers would tell."""
    for canvas, warned in (("64x64", False), ("256x256", True)):
        caplog.clear()
        data, out = se.load_data("phantom:images=1", canvas=canvas, limit=1), tmp_path / canvas
        run = se.evaluate("builtin:sft", data, attacks=["clean"], out=out)
        said = f"--canvas {canvas}: the image processor shrinks it to"
        assert (said in caplog.text) == warned
        assert any(said in finding.sentence for finding in run.findings) == warned, "in tables and reports, too"
