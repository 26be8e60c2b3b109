"""Nothing is asked of the network unless a user asks for it: proved in a process in which the network is forbidden."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import typer
from torture.kills import PATIENCE_S

from safemed_eval.cli import app
from safemed_eval.runs import read_lines

NETWORK = 99
"""Exit code of a process that has tried."""

FORBID = f"""
import os, sys
def forbid(event, arguments):
    inet = event == "socket.__new__" and arguments[1] in (2, 10, 23, 30)  # AF_INET, and AF_INET6 of three systems
    if inet and sys._getframe(2).f_code.co_name == "_has_ipv6":  # urllib3, when it is imported: it binds and closes it
        return
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


FEW = ["--sigma", "0.1", "--n", "20", "--n0", "5"]
TRAIN = ["--model", "builtin:sft", "--data", "phantom:split=train,images=2", "--steps", "1", "--batch-size", "2"]
SMALL = "from safemed_eval.cli import demo; demo.DRAWN = 'phantom:images=4'"
BY_DEMO = ["data describe", "models check", "evaluate", "certify", "report"]
"""Commands that the demo runs."""
JOBS = [
    ["demo", "--out", "demo"],
    ["evaluate", "--model", "builtin:sft", *DATA, "--attack", "pgd:eps=4/255,steps=2", "--offline", "--out", "a"],
    ["certify", "--model", "./sft", *DATA, *FEW, "--out", "b"],
    ["plan", "--model", "builtin:sft", *DATA, "--attack", "fgsm:eps=4/255", "--pilot", "2"],
    ["data", "audit", "phantom:split=train,images=2", "phantom:images=2", "--near"],
    ["data", "export", "phantom:images=2", "exported"],
    ["compare", "demo/evaluate-sft", "demo/evaluate-at-grpo", "--json", "compared.json"],
]
TRAININGS = [
    ["train", "at-sft", *TRAIN, "--out", "at-sft"],
    *(["train", method, *TRAIN, "--group-size", "2", "--out", method] for method in ("at-grpo", "grpo")),
    ["train", "sft", *TRAIN, "--lora", "r=2", "--out", "sft-lora"],
    ["train", "denoiser", *TRAIN, "--sigma", "0.1", "--out", "denoiser"],
    ["models", "merge", "sft-lora", "--out", "merged"],
]


def test_the_lists_are_of_all_commands() -> None:
    def names(command: Any, *above: str) -> set[tuple[str, ...]]:
        below = getattr(command, "commands", None)
        return {above} if below is None else {leaf for name in below for leaf in names(below[name], *above, name)}

    known = names(typer.main.get_command(app))
    jobs = (*JOBS, *TRAININGS, *(command.split() for command in BY_DEMO))
    told = {tuple(job[:length]) for job in jobs for length in (1, 2)}
    assert known <= told and len(known) == 16


@pytest.mark.slow
def test_the_main_job_asks_the_network_for_nothing(tmp_path: Path) -> None:
    """Neither with the flag, nor without: what ships and what is in a folder needs none."""
    shutil.copytree(Path(__file__).parents[1] / "safemed_eval/models/builtin/sft", tmp_path / "sft")
    done = alone(tmp_path, *JOBS, before=SMALL)
    assert done.returncode == 0 and (tmp_path / "compared.json").is_file(), done.stderr[-2000:]
    assert all(f"$ safemed-eval {command} " in done.stdout for command in BY_DEMO)
    runs = ["a", "b", *(f"demo/{command}-{name}" for command in ("evaluate", "certify") for name in ("sft", "at-grpo"))]
    assert [len(read_lines(tmp_path / name)) for name in runs[:2]] == [4, 2]
    assert not [record for name in runs for record in read_lines(tmp_path / name) if record["error"]]
    assert (tmp_path / "demo/report/report.html").is_file()
    assert not (tmp_path / "cache/hub").exists()


@pytest.mark.slow
def test_trainings_ask_the_network_for_nothing(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is in the train extra")
    done = alone(tmp_path, *TRAININGS)
    assert done.returncode == 0 and (tmp_path / "merged/model.safetensors").is_file(), done.stderr[-2000:]


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
