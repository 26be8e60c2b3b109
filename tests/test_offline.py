"""Nothing is asked of the network unless a user asks for it: proved in a process in which the network is forbidden."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from torture.kills import PATIENCE_S

from safemed_eval.runs import read_lines

NETWORK = 99
"""Exit code of a process that has tried."""

FORBID = f"""
import os, sys
def forbid(event, arguments):
    inet = event == "socket.__new__" and arguments[1] in (2, 10, 23, 30)  # AF_INET, and AF_INET6 of three systems
    if inet or event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect"):
        os.write(2, f"{{event}} {{arguments[1:]}}".encode())
        os._exit({NETWORK})
sys.addaudithook(forbid)
from safemed_eval.cli import app
"""


@lru_cache(maxsize=1)
def _no_network() -> list[str]:
    """Return the command prefix that removes all network devices, where the user is allowed to."""
    command = ["unshare", "--net"]
    if shutil.which(command[0]) and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
        return command
    return []


def alone(folder: Path, *commands: list[str], before: str = "") -> subprocess.CompletedProcess[str]:
    """Some commands, one after the other, in one process that may not use the network."""
    calls = [before, *(f"app({command!r}, standalone_mode=False)" for command in commands)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    return subprocess.run(
        [*_no_network(), sys.executable, "-c", "\n".join([FORBID, *calls])],
        cwd=folder,
        env=environment | {"HF_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


DATA = ["--data", "phantom:images=4", "--limit", "2"]
SHOW = """
import atexit
def show():
    import huggingface_hub.constants as hub
    print(hub.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE"))
atexit.register(show)
"""


def test_the_main_job_asks_the_network_for_nothing(tmp_path: Path) -> None:
    """Neither with the flag, nor without: what ships and what is in a folder needs none."""
    shutil.copytree(Path(__file__).parents[1] / "safemed_eval/models/builtin/sft", tmp_path / "sft")
    few = ["--sigma", "0.1", "--n", "20", "--n0", "5"]
    done = alone(
        tmp_path,
        ["evaluate", "--model", "builtin:sft", *DATA, "--attack", "pgd:eps=4/255,steps=2", "--out", "a"],
        ["certify", "--model", "builtin:sft", *DATA, *few, "--offline", "--out", "b"],
        ["certify", "--model", "./sft", *DATA, *few, "--out", "c"],
        ["report", "a", "b", "--out", "r"],
        ["compare", "a", "a"],
    )
    assert "is compared with itself" in done.stderr, done.stderr[-2000:]  # the last command: all others are done
    assert [len(read_lines(tmp_path / name)) for name in "abc"] == [4, 2, 2]
    assert not [record for name in "abc" for record in read_lines(tmp_path / name) if record["error"]]
    assert (tmp_path / "r/report.html").is_file() and not (tmp_path / "cache/hub").exists()


def test_a_name_of_the_hub_asks_it_unless_that_is_forbidden(tmp_path: Path) -> None:
    """Here that of an adapter's base. The first process shows that the trap sees what it should."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/nonesuch"}))
    run = ["evaluate", "--model", "./m", *DATA, "--out", "a"]
    tried = alone(tmp_path, run)
    assert tried.returncode == NETWORK and "socket" in tried.stderr, tried.stderr[-2000:]
    done = alone(tmp_path, [*run, "--offline"], before=SHOW)
    assert done.returncode == 1 and "org/nonesuch: no such folder here, and not in the local cache" in done.stderr
    assert done.stdout == "True 1\n", "switched off for the hub's library, and for processes that this one starts"
    assert not (tmp_path / "a").exists()
