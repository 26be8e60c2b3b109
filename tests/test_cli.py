"""The commands as a user meets them: output, exit codes, resuming, and clear words for wrong input."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from conftest import draw_table
from torture.kills import CERTIFY, PATIENCE_S, wait_until
from typer.testing import CliRunner

from safemed_eval import data as datasets
from safemed_eval import progress
from safemed_eval.cli import _show, app, demo, main
from safemed_eval.errors import UserError
from safemed_eval.report import make
from safemed_eval.runs import read_lines

TOY = "python:safemed_eval.models.toy:brightness"
MAIN = [sys.executable, "-c", "from safemed_eval.cli import main; main()"]


def call(*arguments: object) -> tuple[int, str]:
    """Run a command in this process; an error for the user gives (2, its text)."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, UserError):
        return 2, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def summary_of(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


@pytest.fixture
def shared(table: Path) -> list[object]:
    return ["--model", TOY, "--data", f"table:{table}", "--canvas", "32x32"]


def _records(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return read_lines(Path(summary["out"]))


def seconds_aside(out: Path) -> list[dict[str, Any]]:
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in read_lines(out)]
    return sorted(records, key=lambda r: (r["item"], r.get("attack", "")))


# ---------------------------------------------------------------- main paths


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str]]:
    """What the program does with these words in this process: its exit code, and what it says on stderr."""

    def enter(*words: str, then: Exception | None = None) -> tuple[object, str]:
        def report(*asked: object, **options: object) -> None:
            if then:
                raise then

        monkeypatch.setattr(make, "report", report)
        monkeypatch.setattr(sys, "argv", ["/bin/safemed-eval", *words])
        monkeypatch.setattr(signal, "signal", lambda *ways: None)
        capsys.readouterr()
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return enter


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "--nonsense"], "No such option: --nonsense"),
        (["plan", "--pilot", "x"], "'--pilot'"),
        (["report", "run"], "'--out'"),
        (["data", "nonsense"], "No such command 'nonsense'"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr_that_leads_to_the_help(
    words: list[str], said: str, entered: Callable[..., tuple[object, str]]
) -> None:
    code, err = entered(*words)
    assert code == 2 and err.startswith("error: ") and said in err
    assert err.endswith(f"{words[0]} --help` explains the options\n") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("then", "code", "said"),
    [
        (UserError("a \x1b[31m line\nand another"), 2, "error: a \\x1b[31m line\nand another\n"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device\n"),
        (OSError(28, "No space left on device", "/full"), 2, "error: No space left on device /full\n"),
        (typer.Exit(3), 3, ""),
    ],
)
def test_errors_have_a_line_and_an_exit_code(
    then: Exception, code: int, said: str, entered: Callable[..., tuple[object, str]]
) -> None:
    assert entered("report", "run", "--out", "x", then=then) == (code, said)


def test_a_bug_keeps_its_traceback(entered: Callable[..., tuple[object, str]]) -> None:
    with pytest.raises(ZeroDivisionError):
        entered("report", "run", "--out", "x", then=ZeroDivisionError())


def test_a_demo_shows_each_command_before_it_runs_it_and_stops_at_the_first_that_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What is shown can be typed again as it stands."""
    ran: list[list[str]] = []

    def run(arguments: list[str], *, standalone_mode: bool) -> int:
        assert not standalone_mode and capsys.readouterr().out == f"\n$ safemed-eval {shlex.join(arguments)}\n"
        ran.append(arguments)
        return 3 if len(ran) == ends else 0

    context: Any = SimpleNamespace(find_root=lambda: SimpleNamespace(command=SimpleNamespace(main=run)))
    ends = 0
    demo.demo(context, out=tmp_path / "the demo")
    whole, ran = ran, []
    names = ["data", "models", *["evaluate", "certify"] * 2, "report"]
    assert [arguments[0] for arguments in whole] == names and str(tmp_path / "the demo" / "report") in whole[-1]
    ends = 4
    with pytest.raises(typer.Exit) as ended:
        demo.demo(context, out=tmp_path / "the demo")
    assert ended.value.exit_code == 3 and ran == whole[:4]


def test_evaluate_from_checkpoint_to_table(checkpoint: Callable[[str], Path], table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [
        *("evaluate", "--model", checkpoint("qwen2_5_vl"), "--data", f"table:{table}", "--canvas", "56x56"),
        *("--attack", "fgsm:eps=4/255", "--attack", "pgd:eps=16/255,steps=3", "--official", "--out", out),
    ]
    found = summary_of(*arguments)
    assert (found["items"], found["failed"], found["out"]) == (8, 0, str(out))
    assert set(found["overall"]) == {"clean", "fgsm:eps=4/255", "pgd:eps=16/255,steps=3", "official"}
    for slices in (found["by_modality"], found["by_question_type"]):
        for attack, whole in found["overall"].items():
            assert sum(part[attack]["correct"] for part in slices.values()) == whole["correct"]
    accuracies = [found["overall"][a]["accuracy"] for a in ("clean", "fgsm:eps=4/255", "pgd:eps=16/255,steps=3")]
    assert accuracies == sorted(accuracies, reverse=True)
    meta = json.loads((out / "run.json").read_text())
    assert meta["model"]["architecture"] == "Qwen2_5_VLForConditionalGeneration"
    assert "What is shown in image 0?" in meta["model"]["prompt"] and meta["model"]["device"] == "cpu"
    assert meta["spec"]["attacks"]["pgd:eps=16/255,steps=3"]["restarts"] == 1, "defaults are written down"
    assert len(meta["spec"]["model"]["weights_sha256"]) == 64
    assert meta["names"]["model"] == str(checkpoint("qwen2_5_vl"))
    code, text = call(*arguments)
    assert code == 0 and "fgsm:eps=4/255" in text and "8 of 8 items" in text


def test_certify_from_checkpoint_to_table(checkpoint: Callable[[str], Path], table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [
        *("certify", "--model", checkpoint("llava"), "--data", f"table:{table}", "--canvas", "56x56"),
        *("--sigma", 0.25, "--n0", 10, "--n", 60, "--radii", "0,0.5s,0.05,2s", "--out", out),
    ]
    found = summary_of(*arguments)
    assert list(found["overall"]["certified"]) == ["0", "0.5s", "0.05", "2s"]
    assert found["overall"]["certified"]["0.5s"]["radius"] == 0.125
    assert found["overall"]["certified"]["2s"]["above_ceiling"]
    for record in read_lines(out):
        assert (sum(record["votes0"]), sum(record["votes"])) == (10, 60)
        assert len(record["votes"]) == len(record["options"]) + 1
    code, text = call(*arguments)
    assert code == 0 and ">ceiling" in text and "certifies no radius above" in text


@pytest.mark.slow
def test_the_real_set_end_to_end(
    checkpoint: Callable[[str], Path], real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    data = f"omnimedvqa:{real_data('omnimed_real')}"
    shared = ["--model", checkpoint("qwen2_5_vl"), "--data", data, "--per-group", 1]
    found = summary_of("evaluate", *shared, "--attack", "fgsm:eps=4/255", "--out", tmp_path / "a")
    assert found["items"] == 32 and len(found["by_modality"]) == 8 and len(found["by_question_type"]) == 5
    found = summary_of("certify", *shared, "--limit", 4, "--sigma", 0.25, "--n", 60, "--out", tmp_path / "b")
    assert found["items"] == 4 and "1 per modality x question type" in found["sampled"]


def test_python_models_and_default_folders(
    shared: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = summary_of("certify", *shared, "--sigma", 0.5, "--n", 50, "--n0", 5)
    assert found["out"].startswith("runs/certify-python-safemed-eval.models.toy-brightness-questions-sigma0.5-")
    assert summary_of("certify", *shared, "--sigma", 0.5, "--n", 50, "--n0", 5)["out"] == found["out"]


def test_models_check(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    code, text = call("models", "check", checkpoint("gemma3"), "--canvas", "56x56")
    assert code == 0 and "float path against 8-bit path" in text and "fail" not in text
    rows = json.loads(call("models", "check", TOY, "--json")[1])["checks"]
    assert {row["status"] for row in rows} == {"pass"}
    (tmp_path / "empty").mkdir()
    code, text = call("models", "check", tmp_path / "empty")
    assert code == 1 and "no config.json" in text


def test_only_what_is_made_is_exported(tmp_path: Path) -> None:
    """Files are refused, even where none of their questions can be used; a folder's name is no markup."""
    (tmp_path / "t.csv").write_text("image,question,answer,option_a\na.png,Q?,x,x\n")
    code, text = call("data", "export", f"table:{tmp_path / 't.csv'}", tmp_path / "out")
    assert code == 2 and "these are files already" in text and not (tmp_path / "out").exists()
    code, text = call("data", "export", "phantom:images=2", tmp_path / "a[red]b")
    assert code == 0 and "a[red]b --canvas 64x64" in text


@pytest.mark.slow
def test_all_real_questions(
    checkpoint: Callable[[str], Path], real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """The issue's own commands on every real image; the tables add up."""
    data = ["--data", f"omnimedvqa:{real_data('omnimed_real')}"]
    model = ["--model", checkpoint("qwen2_5_vl")]
    attacks = ["--attack", "fgsm:eps=4/255", "--attack", "pgd:eps=4/255,steps=10"]
    found = summary_of("evaluate", *model, *data, *attacks, "--out", tmp_path / "a")
    assert (found["items"], found["failed"], found["skipped"]) == (755, 0, 0)
    for name in ("clean", "fgsm:eps=4/255", "pgd:eps=4/255,steps=10"):
        for groups in (found["by_modality"], found["by_question_type"]):
            for count in ("n", "correct"):
                assert sum(group[name][count] for group in groups.values()) == found["overall"][name][count]
    assert found["overall"]["clean"]["n"] == 755
    found = summary_of("certify", *model, *data, "--per-group", 1, "--sigma", 0.25, "--n", 100, "--out", tmp_path / "b")
    assert found["items"] == found["overall"]["n"] == 32 and found["failed"] == 0
    for groups in (found["by_modality"], found["by_question_type"]):
        for count in ("n", "abstained", "wrong"):
            assert sum(group[count] for group in groups.values()) == found["overall"][count]
        for radius, point in found["overall"]["certified"].items():
            parts = [group["certified"][radius]["certified"] for group in groups.values()]
            assert point["above_ceiling"] or sum(parts) == point["certified"]


def test_narrow_terminals_get_the_same_figures_in_blocks(
    shared: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["certify", *shared, "--sigma", 0.25, "--n", 60, "--out", tmp_path / "run"]
    wide = call(*run)[1].split("8 of 8 items")[0].split()
    monkeypatch.setattr(_show.out, "width", 70)
    text = call(*run)[1].split("8 of 8 items")[0]
    assert max(map(len, text.splitlines())) <= 70
    assert text.count("Disease Diagnosis") > 1 and "\u2026" not in text
    assert set(text.split()) == set(wide)


def test_progress_without_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, passes = [0.0], [0]
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 30.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with progress.progress("certifying", forwards=lambda: passes[0]) as tick:
        tick(10, 100)  # of an earlier start
        clock[0], passes[0] = 40.0, 4000
        tick(30, 100)
        clock[0] = 41.0
        tick(31, 100)
    told = capsys.readouterr().err
    assert told == "certifying: 30 of 100, 0.5 items/s, 100 forward passes/s, 0:02:20 left\n"


def test_data_describe(table: Path, tmp_path: Path) -> None:
    code, text = call("data", "describe", f"table:{table}")
    assert code == 0 and "8 questions, 8 of them usable, on 8 images" in text and "Disease Diagnosis" in text
    broken = draw_table(tmp_path / "broken", answer="a kidney")
    code, text = call("data", "describe", f"table:{broken}")
    assert code == 1 and "q3: gold answer 'a kidney' equals none of the options" in text
    facts = json.loads(call("data", "describe", f"table:{broken}", "--json")[1])
    assert (facts["questions"], facts["usable"], facts["bad"][0]["item"]) == (8, 7, "q3")
    assert sum(row["n"] for row in facts["counts"]) == 8


def test_bad_items_refuse_the_run_or_are_skipped_and_counted(tmp_path: Path) -> None:
    table = draw_table(tmp_path / "data", image="../gone.png")
    shared = [
        "certify",
        "--model",
        TOY,
        "--data",
        f"table:{table}",
        "--sigma",
        0.5,
        "--n",
        20,
        "--out",
        tmp_path / "run",
    ]
    code, text = call(*shared)
    assert code == 2 and "1 of 8 items cannot be used" in text and "q3: image path leaves the data root" in text
    assert not (tmp_path / "run").exists()
    found = summary_of(*shared, "--skip-bad")
    assert (found["items"], found["skipped"]) == (7, 1)
    assert "1 bad left out" in call(*shared, "--skip-bad")[1]
    assert json.loads((tmp_path / "run/run.json").read_text())["skipped"][0]["item"] == "q3"


def test_skipped_items_are_replaced_as_far_as_there_are_any(tmp_path: Path) -> None:
    """A sample under --skip-bad is the sample of what can be used: groups do not shrink below N."""
    table = draw_table(tmp_path / "data", rows=16)
    shared = [
        "evaluate",
        "--model",
        TOY,
        "--data",
        f"table:{table}",
        "--per-group",
        2,
        "--canvas",
        "32x32",
        "--skip-bad",
    ]
    before = {r["item"] for r in _records(summary_of(*shared, "--out", tmp_path / "a"))}
    gone = sorted(before)[0]
    (table.parent / f"{gone[1:]}.png").unlink()
    found = summary_of(*shared, "--out", tmp_path / "b")
    after = {r["item"] for r in _records(found)}
    assert len(before) == len(after) == 8 and gone not in after and found["skipped"] == 1
    assert {cell["clean"]["n"] for cell in found["by_modality"].values()} == {4}


def test_a_filter_leaves_the_bad_items_of_other_slices_alone(tmp_path: Path) -> None:
    table = draw_table(tmp_path / "data", answer="a kidney")
    arguments = ["--model", TOY, "--data", f"table:{table}", "--canvas", "32x32", "--out", tmp_path / "run"]
    assert call("evaluate", *arguments, "--modality", "CT")[0] == 2, "the bad row is a CT"
    assert summary_of("evaluate", *arguments, "--modality", "MRI")["items"] == 4


def test_gradient_attacks_on_a_model_that_only_votes_are_refused(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "voter_for_test.py").write_text(
        "class M:\n    def vote(self, canvas, question): return (canvas.mean((1, 2, 3)) > 0.5).long()\n"
        "def make(): return M()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    shared = ["--model", "python:voter_for_test:make", "--data", f"table:{table}", "--canvas", "32x32"]
    code, text = call("evaluate", *shared, "--attack", "fgsm", "--out", tmp_path / "a")
    assert code == 2 and "only votes" in text
    assert summary_of("evaluate", *shared, "--attack", "noise", "--out", tmp_path / "b")["items"] == 8
    assert summary_of("certify", *shared, "--sigma", 0.1, "--n", 30, "--out", tmp_path / "c")["items"] == 8


def test_a_model_that_fails_its_check_is_refused_and_leaves_no_run(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blind_for_test.py").write_text(
        "import torch\n"
        "class M:\n    def scores(self, canvas, questions): return torch.zeros(len(canvas), 4)\n"
        "def make(): return M()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ["--model", "python:blind_for_test:make", "--data", f"table:{table}", "--out", tmp_path / "run"]
    code, text = call("certify", *arguments, "--sigma", 0.5)
    assert code == 2 and "the image matters" in text and "models check shows all" in text
    assert not (tmp_path / "run").exists()


def test_models_check_ends_with_a_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, text = call("models", "check", "builtin:sft", "--canvas", "64x64")
    assert code == 0 and "64x64 whatever the canvas" in text
    last = text.rstrip().splitlines()[-1]
    assert last.startswith("verdict: can be attacked and certified; --canvas 64x64 suits it")
    (tmp_path / "blind_here.py").write_text(
        "import torch\n"
        "class M:\n    def scores(self, canvas, questions): return torch.zeros(len(canvas), 4)\n"
        "def make(): return M()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, text = call("models", "check", "python:blind_here:make", "--canvas", "16x16", "--json")
    told = json.loads(text)
    assert code == 1 and told["verdict"]["status"] == "fail" and told["canvas"] is None
    assert "the image matters" in told["verdict"]["detail"]


@pytest.mark.slow
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safemed_eval.cli.demo.DRAWN", "phantom:images=2")
    code, text = call("demo", "--out", tmp_path / "demo")
    assert code == 0
    for expected in ("$ safemed-eval models check", "$ safemed-eval evaluate", "$ safemed-eval certify", "Ceiling"):
        assert expected in text
    for name in ("sft", "at-grpo"):
        assert len(list((tmp_path / f"demo/evaluate-{name}/images").rglob("*.adv.npy"))) == 8


# ------------------------------------------------------- resuming, refusing


def test_a_run_goes_on_where_it_stopped(shared: list[object], tmp_path: Path) -> None:
    command = ["certify", *shared, "--sigma", 0.5, "--n", 50, "--n0", 5]
    summary_of(*command, "--out", tmp_path / "whole")
    summary_of(*command, "--out", tmp_path / "cut")
    records = tmp_path / "cut/records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:3]) + lines[3][:40])
    assert call(*command, "--out", tmp_path / "cut")[0] == 0
    assert seconds_aside(tmp_path / "cut") == seconds_aside(tmp_path / "whole")


def test_a_different_command_on_the_same_folder_is_refused(shared: list[object], tmp_path: Path) -> None:
    out = ["--out", tmp_path / "run"]
    summary_of("certify", *shared, "--sigma", 0.5, "--n", 50, *out)
    code, text = call("certify", *shared, "--sigma", 0.25, "--n", 50, *out)
    assert code == 2 and "smoothing.sigma was 0.5, now 0.25" in text
    code, text = call("evaluate", *shared, *out)
    assert code == 2 and 'command was "certify", now "evaluate"' in text
    code, text = call("certify", *shared, "--sigma", 0.5, "--n", 50, "--limit", 3, *out)
    assert code == 2 and "data was" in text


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_clean_resumable_run(
    table: Path, tmp_path: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    command = [*CERTIFY, "--data", f"table:{table}", "--out", "run"]
    Path("hold").write_text("image 4?")
    process = subprocess.Popen(
        [*MAIN, *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    wait_until(Path("held").exists, lambda: process.poll() is None)
    os.kill(process.pid, how)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert "the same command goes on" in err and "Traceback" not in err
    assert len(read_lines(Path("run"))) == 4
    code, text = call(*command)
    assert code == 0 and "going on, 4 records are there" in text
    assert len(read_lines(Path("run"))) == 8


# ---------------------------------------------------------------- wrong input


WRONG = [
    (["evaluate", "--attack", "pgd:esp=4/255"], "did you mean 'eps'"),
    (["evaluate", "--attack", "pdg:eps=4/255"], "did you mean 'pgd'"),
    (["evaluate", "--data", "omnimedvqa:/nowhere"], "no such file or folder"),
    (["evaluate", "--model", "/nowhere"], "no such folder"),
    (["evaluate", "--modality", "PET"], "the data has none"),
    (["evaluate", "--canvas", "big"], "HEIGHTxWIDTH"),
    (["evaluate", "--limit", "0"], "at least 1"),
    (["evaluate", "--data", "."], "say what it is, medr1:."),
    (["evaluate", "--out", "/dev/null/run"], "/dev/null is a file"),
    (["evaluate", "--out", "."], "not a run folder, it holds"),
    (["evaluate", "--official"], "only a transformers checkpoint"),
    (["evaluate", "--device", "GPU"], "not a device"),
    (["evaluate", "--dtype", "float16"], "no effect on a python: model"),
    (["evaluate", "--readout", "generate"], "no effect on a python: model"),
    (["evaluate", "--temperature", "1"], "no effect where nothing is written"),
    (["evaluate", "--template", "thnik"], "did you mean 'think'"),
    (["evaluate", "--data", "phantom:images=0"], "images must be at least 1"),
    (["certify", "--sigma", "0"], "sigma must be above 0"),
    (["certify", "--sigma", "nan"], "--sigma: 'nan' is not a number"),
    (["certify", "--sigma", "0.25", "--alpha", "1"], "alpha must lie between"),
    (["certify", "--sigma", "0.25", "--n", "5"], "cannot certify anything"),
    (["certify", "--sigma", "0.25", "--radii", "1x"], "--radii: '1x' is not a number"),
    (
        ["certify", "--sigma", "0.25", "--sampling", "both"],
        "'--sampling': 'both' is not one of 'fixed', 'sequential'",
    ),
]


def test_wrong_input_is_one_clear_line_without_torch(table: Path) -> None:
    """Exit code 2, one line on stderr, no traceback; and torch has not been imported for it."""
    given = {"--model": TOY, "--data": f"table:{table}", "--out": str(table.parent / "run")}
    lines = [
        [command, *(part for key, value in given.items() if key not in rest for part in (key, value)), *rest]
        for (command, *rest), _ in WRONG
    ]
    code = """
import contextlib, io, json, sys
from safemed_eval.cli import main
for line in json.load(sys.stdin):
    sys.argv, ended = ["safemed-eval", *line], 0
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            main()
        except SystemExit as end:
            ended = end.code
    print(json.dumps([ended, said.getvalue(), "torch" in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(lines), capture_output=True, text=True, cwd=table.parent
    )
    assert done.returncode == 0, done.stderr
    for (arguments, message), answer in zip(WRONG, done.stdout.splitlines(), strict=True):
        ended, said, torch_is_there = json.loads(answer)
        assert (ended, torch_is_there) == (2, False), arguments
        assert message in said and said.startswith("error: ") and said.count("\n") == 1, arguments
    assert not (table.parent / "run").exists()


def test_unknown_options_and_missing_ones_are_usage_errors() -> None:
    assert call("certify", "--nonsense")[0] == 2
    code, text = call("certify", "--model", "builtin:sft", "--data", "phantom")
    assert code == 2 and "--sigma" in text


@pytest.mark.parametrize(
    "command", [[], ["evaluate"], ["certify"], ["models"], ["models", "check"], ["data", "describe"]]
)
def test_help_teaches(command: list[str]) -> None:
    code, text = call(*command, "--help")
    assert code == 0 and "Usage" in text


def test_version() -> None:
    assert call("--version") == (0, "0.2.0\n")


def test_kinds_of_data_are_found_by_name() -> None:
    files = {file.stem for file in (Path(datasets.__file__).parent / "sources").glob("[!_]*.py")}
    assert datasets.kinds() == sorted(files) and {"medr1", "omnimedvqa", "phantom", "table"} <= files


# ------------------------------------------------------------ what a breaker found


def test_a_slice_named_all_does_not_hide_the_total(tmp_path: Path) -> None:
    table = draw_table(tmp_path / "data", modality="all")
    run = ["evaluate", "--model", TOY, "--data", f"table:{table}", "--canvas", "24x24", "--out", tmp_path / "run"]
    text = call(*run)[1]
    rows = [line.split()[:2] for line in text.splitlines() if line.startswith("all ")]
    assert rows == [["all", "8"], ["all", "1"], ["all", "8"]]


def test_names_of_data_cannot_steer_the_terminal_nor_squeeze_figures(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[31m\x9b2J [red]x[/] " + "long " * 60
    table = draw_table(tmp_path / "data", modality=evil, question_type="a \x07 bell")
    run = ["evaluate", "--model", TOY, "--data", f"table:{table}", "--canvas", "24x24", "--out", tmp_path / "run"]
    text = call(*run)[1] + call("data", "describe", f"table:{table}")[1]
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    assert "[red]x" in text and "\\x1b]0;owned" in text and "a \\x07 bell" in text
    row = next(line for line in text.splitlines() if "owned" in line)
    assert ("\u2026" in row and "100.0" in row) or "0.0" in row
    bad = draw_table(tmp_path / "bad", id="\x1b[2Jforged\r\nall fine", image="gone.png")
    code, text = call("evaluate", "--model", TOY, "--data", f"table:{bad}", "--out", tmp_path / "no")
    done = subprocess.run([*MAIN, *run[:3], "--data", f"table:{bad}"], capture_output=True, text=True, cwd=tmp_path)
    assert code == 2 and done.returncode == 2
    assert "\\x1b[2Jforged\\nall fine" in done.stderr and "\x1b" not in done.stderr


def test_paths_with_markup_and_paths_too_long(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "a[" / "b]"
    folder.parent.mkdir()
    folder.symlink_to(checkpoint("qwen2_5_vl"))
    assert call("models", "check", folder, "--canvas", "56x56")[0] == 0
    done = subprocess.run(
        [*MAIN, "data", "describe", f"table:{'x' * 300}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2 and done.stderr.startswith("error: --data table:xxx")
    assert done.stderr.endswith(": File name too long\n")


def test_skipped_items_are_part_of_what_was_asked(tmp_path: Path) -> None:
    table = draw_table(tmp_path / "data", image="gone.png")
    run = ["evaluate", "--model", TOY, "--data", f"table:{table}", "--canvas", "24x24", "--out", tmp_path / "run"]
    assert call(*run, "--skip-bad")[0] == 0
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith("q3")))
    code, text = call(*run)
    assert code == 2 and "skipped was 1, now 0" in text
