"""Commands that are killed, and two that want one folder. `make torture` kills many more."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from conftest import draw_table
from test_cli import seconds_aside
from torture.kills import COMMANDS, PATIENCE_S, alike, finish, marked, start, torment, wait_until

from safemed_eval.runs import count_records


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed"), [("evaluate", 0), ("certify", 1), ("certify --sampling sequential", 2)], ids=lambda value: value
)
def test_a_killed_command_goes_on_to_the_same_records(name: str, seed: int, tmp_path: Path) -> None:
    """By SIGKILL, SIGTERM and SIGINT, while it is held at its last item."""
    data = draw_table(tmp_path / "data", rows=10)
    finish([*COMMANDS[name], "--data", f"table:{data}", "--out", "whole"], tmp_path)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/hold").write_text("image 9?")
    trial = torment(name, tmp_path / "whole", tmp_path / "cut", data, kills=1, seed=seed, starting=0.5)
    assert trial.survived, trial
    assert trial.records == count_records(tmp_path / "whole") == (30 if name == "evaluate" else 10)
    (kill,) = trial.kills
    assert kill.exit == {0: -9, 1: 130, 2: 130}[seed] and not kill.traceback
    assert kill.records == (24 if name == "evaluate" else 9)


@pytest.mark.slow
def test_a_second_process_is_refused_and_the_first_is_not_disturbed(tmp_path: Path) -> None:
    data = draw_table(tmp_path / "data", rows=6)
    command = [*COMMANDS["certify"], "--data", f"table:{data}", "--out", str(tmp_path / "run")]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one/hold").write_text("image 4?")
    first, held = start(command, tmp_path / "one"), tmp_path / "one/held"
    wait_until(held.exists, first.is_alive)
    second = start(command, tmp_path / "two")
    second.join(PATIENCE_S)
    assert first.is_alive() and second.exitcode == 2
    said = (tmp_path / "two/stderr").read_text()
    assert said.endswith("another process is writing to this run\n") and "Traceback" not in said
    held.unlink()
    first.join(PATIENCE_S)
    assert first.exitcode == 0
    finish([*command[:-1], str(tmp_path / "whole")], tmp_path / "two")
    assert seconds_aside(tmp_path / "run") == seconds_aside(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_whose_node_has_died_ends_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of the raylet that `--ray local` has started: Ray needs some seconds to notice, and then it is one line.

    Ray's own wait never returned, and the command waited with it.
    """
    pytest.importorskip("ray", reason="ray is an extra")
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    command = [*COMMANDS["evaluate --ray"], "--data", f"table:{draw_table(tmp_path / 'data', rows=12)}", "--out", "run"]
    (tmp_path / "hold").write_text("image 11?")
    process = start(command, tmp_path, mark := f"node {tmp_path}")
    wait_until((tmp_path / "held").exists, process.is_alive)
    (raylet,) = [pid for pid, name in marked(mark).items() if name.startswith("raylet")]
    before = count_records(tmp_path / "run")
    os.kill(raylet, signal.SIGKILL)
    process.join(PATIENCE_S)
    said = (tmp_path / "stderr").read_text()
    assert process.exitcode == 2, said
    assert "Ray's node on this machine is gone" in said.splitlines()[-1] and "the same command goes on" in said
    assert "Traceback" not in said and count_records(tmp_path / "run") >= before > 0
    (tmp_path / "held").unlink()
    finish(command, tmp_path)
    assert count_records(tmp_path / "run") == 36


def test_records_are_alike_up_to_the_last_bits_of_floats() -> None:
    one = {"text": "a", "scores": [0.1, -2.0], "none": None}
    assert alike(one, {"text": "a", "scores": [0.1 + 1e-8, -2.0], "none": None})
    for key, value in (("text", "b"), ("scores", [0.1001, -2.0]), ("scores", [0.1]), ("none", 0)):
        assert not alike(one, one | {key: value})
    assert not alike(one, {"text": "a", "scores": [0.1, -2.0]})
