"""Run folders: what was asked is kept, nothing is lost, nothing is mixed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from safemed_eval.errors import RunError
from safemed_eval.files import refuse_unwritable
from safemed_eval.runs import (
    RunFolder,
    count_records,
    default_out,
    provenance,
    read_lines,
    refuse_other_spec,
    session,
)

SPEC = {"command": "certify", "data": "abc", "smoothing": {"sigma": 0.25, "n": 1000}}


def open_run(out: Path, spec: dict[str, Any] = SPEC, model: dict[str, Any] | None = None) -> RunFolder:
    about = {"items": 3, "skipped": [], "sampled": None, "conditions": [], "names": {}, "image_notes": {}}
    return RunFolder(out, spec, model=model or {"dtype": "float32"}, about=about, session=session("cpu"))


def test_records_are_kept_and_found_again(tmp_path: Path) -> None:
    with open_run(tmp_path / "a") as run:
        run.append([{"item": "x"}, {"item": "ä \u2028 <b>"}])
    with open_run(tmp_path / "a") as run:
        assert len(run) == 2 and run.done("x") and not run.done("y") and not run.done("x", "clean")
        run.append([{"item": "y", "attack": "clean"}])
    assert [record["item"] for record in read_lines(tmp_path / "a")] == ["x", "ä \u2028 <b>", "y"]
    meta = json.loads((tmp_path / "a/run.json").read_text())
    assert meta["schema"] == 1 and meta["spec"] == SPEC and len(meta["sessions"]) == 2
    assert {"torch", "transformers"} <= set(meta["sessions"][0]["versions"])
    assert count_records(tmp_path / "a") == 3 and count_records(tmp_path / "none") == 0


def test_another_spec_is_refused_with_the_difference(tmp_path: Path) -> None:
    with open_run(tmp_path):
        pass
    other = {**SPEC, "smoothing": {"sigma": 0.5, "n": 1000}, "extra": 1}
    for refuse in (lambda: open_run(tmp_path, other), lambda: refuse_other_spec(tmp_path, other)):
        with pytest.raises(RunError, match=r"smoothing.sigma was 0.25, now 0.5; extra was null, now 1"):
            refuse()
    with pytest.raises(RunError, match=r"the model as loaded differs: dtype was \"float32\", now \"bfloat16\""):
        open_run(tmp_path, model={"dtype": "bfloat16"})


def test_a_place_where_nothing_can_be_written_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for place in (tmp_path, tmp_path / "new" / "run"):
        refuse_unwritable(place)
    assert list(tmp_path.iterdir()) == [file], "nor is a folder made"
    for place in (file, file / "new" / "run"):
        with pytest.raises(RunError, match=f"^--out {place}: {file} is a file, not a folder$"):
            refuse_unwritable(place)
    with pytest.raises(RunError, match=r"File name too long; choose another --out$"):
        refuse_unwritable(tmp_path / ("x" * 300))
    monkeypatch.setattr(os, "access", lambda folder, rights: Path(folder) != tmp_path)
    with pytest.raises(RunError, match=f"{tmp_path} cannot be written; choose another --out$"):
        refuse_unwritable(tmp_path / "run")


def test_a_checkout_is_known_by_its_commit_and_whether_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false")
        return subprocess.check_output(["git", "-C", str(tmp_path), *who, *words], text=True).strip()

    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "safemed_eval" / "runs" / "provenance.py"))
    (tmp_path / "pyproject.toml").write_text("")
    assert session("cpu")["commit"] is None, "no checkout"
    git("init", "-q")
    assert session("cpu")["commit"] is None, "no commit"
    git("add", ".")
    git("commit", "-qm", "x")
    commit = git("rev-parse", "HEAD")
    assert len(commit) == 40 and session("cpu")["commit"] == commit
    (tmp_path / "pyproject.toml").write_text("changed")
    assert session("cpu")["commit"] == f"{commit}+"
    (tmp_path / "pyproject.toml").unlink()
    assert session("cpu")["commit"] is None, "the checkout of something else, into which the package is installed"


def test_a_torn_last_line_is_cut_off_and_said(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.append([{"item": "x"}])
        assert not run.repaired
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"item": "y", "vot')
    with open_run(tmp_path) as run:
        assert run.repaired and len(run) == 1
        run.append([{"item": "y"}])
    assert len(read_lines(tmp_path)) == 2


@pytest.mark.parametrize("line", ["not json\n", '{"no": "item"}\n', '{"item": "x"}\n'])
def test_edited_records_are_refused(tmp_path: Path, line: str) -> None:
    with open_run(tmp_path) as run:
        run.append([{"item": "x"}])
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(RunError, match="line 2"):
        open_run(tmp_path)


def test_damaged_or_foreign_meta_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="not a run folder"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"schema": 99, "spec": SPEC, "model": {}, "sessions": []}))
    with pytest.raises(RunError, match="schema 99"):
        open_run(tmp_path)


def test_a_start_that_ended_before_it_was_noted_is_begun_again(tmp_path: Path) -> None:
    """Killed, or out of disk, between making the folder and its run.json. Records of unknown origin are not touched."""
    (tmp_path / "run.json.new").write_text('{"schema": 1, "sp')
    (tmp_path / "records.jsonl").write_text("")
    (tmp_path / ".lock").touch()
    refuse_other_spec(tmp_path, SPEC)
    with open_run(tmp_path) as run:
        run.append([{"item": "x"}])
    assert not (tmp_path / "run.json.new").exists() and len(read_lines(tmp_path)) == 1
    (tmp_path / "run.json").unlink()
    with pytest.raises(RunError, match=r"not a run folder, it holds records\.jsonl"):
        open_run(tmp_path)


def test_no_record_is_written_twice_and_no_nan(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.append([{"item": "x"}])
        with pytest.raises(RuntimeError, match="written twice"):
            run.append([{"item": "x"}])
        with pytest.raises(ValueError):
            run.append([{"item": "y", "radius": float("nan")}])
        assert not run.done("y")


def test_two_processes_cannot_write_one_run_but_a_dead_one_holds_no_lock(tmp_path: Path) -> None:
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_runs import open_run
        run = open_run(Path({str(tmp_path)!r}))
        run.append([{{"item": "x"}}])
        print("ready", flush=True)
        sys.stdin.read()
    """
    pipe, command = subprocess.PIPE, [sys.executable, "-c", textwrap.dedent(code)]
    other = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        with pytest.raises(RunError, match="another process is writing"):
            open_run(tmp_path)
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.communicate()
    with open_run(tmp_path) as run:
        assert run.done("x")


def test_an_unwritable_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        open_run(tmp_path / "file" / "run")


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with open_run(tmp_path) as run:
        run.append([{"item": "x"}])
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left on device; 1 records are safe"):
            run.append([{"item": "y"}])


def test_default_names_are_readable_and_stable() -> None:
    out = default_out("certify", ["my model!", "OmniMedVQA", "sigma0.25"], SPEC)
    assert out == default_out("certify", ["my model!", "OmniMedVQA", "sigma0.25"], SPEC)
    assert str(out).startswith("runs/certify-my-model-OmniMedVQA-sigma0.25-")
    assert default_out("certify", ["a"], {**SPEC, "seed": 1}) != default_out("certify", ["a"], SPEC)


def test_a_torn_line_behind_the_last_record_is_not_a_complete_run(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.append([{"item": "x"}])
    assert count_records(tmp_path) == 1
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"item": ')
    assert count_records(tmp_path) is None


def test_meta_that_lacks_something_is_refused(tmp_path: Path) -> None:
    open_run(tmp_path).__exit__(None, None, None)
    meta = json.loads((tmp_path / "run.json").read_text())
    del meta["conditions"]
    (tmp_path / "run.json").write_text(json.dumps(meta))
    with pytest.raises(RunError, match=r"run\.json has no conditions"):
        open_run(tmp_path)


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    """The file may grow to 4 KiB; what fits is kept."""
    code = f"""
        import resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_runs import open_run
        from safemed_eval.errors import RunError
        run = open_run(Path({str(tmp_path)!r}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            with run:
                for number in range(100):
                    run.append([{{"item": f"{{number}}", "text": "x" * 200}}])
        except RunError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout and "records are safe" in done.stdout
    assert done.stderr == ""
    with open_run(tmp_path) as run:
        assert run.repaired and len(run) > 10
