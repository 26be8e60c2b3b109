"""Commands ended at random moments and started again until they are done: is each record there, once, and the same?"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safemed_eval.runs import read_lines
from safemed_eval.train.log import LOG, WORK, read_log

SLOW = ("--model", "python:torture.models:slow", "--canvas", "16x16", "--seed", "3")
EVALUATE = ("evaluate", *SLOW, "--batch-size", "2", "--attack", "fgsm:eps=1/255", "--attack", "pgd:eps=1/255,steps=3")
CERTIFY = ("certify", *SLOW, "--batch-size", "16", "--sigma", "0.02", "--n0", "16", "--n", "64", "--alpha", "0.01")
SEQUENTIAL = ("certify", *SLOW, "--batch-size", "16", "--sigma", "0.02", "--sampling", "sequential", "--n", "160")
RAY = ("--ray", "local", "--workers", "2")
COMMANDS = {
    "evaluate": EVALUATE,
    "certify": CERTIFY,
    "certify --sampling sequential": SEQUENTIAL,
    "evaluate --ray": (*EVALUATE, *RAY),
    "certify --ray": (*CERTIFY, *RAY),
    "certify --sampling sequential --ray": (*SEQUENTIAL, *RAY),
}
_EVERY = 2
TRAIN = (
    *("train", "at-sft", "--model", "builtin:sft", "--data", "phantom:split=train,images=16", "--steps", "8"),
    *("--save-every", str(_EVERY), "--batch-size", "4", "--attack-steps", "1", "--device", "cpu"),
    "--keep-checkpoints",
)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE_S = 1800.0
"""What takes longer hangs. Machines differ in pace by a factor of ten, and a busy one by another."""
_AGENTS = ("ray::Dashboard", "ray::RuntimeEnv")
_LAST_BITS = 1e-5
"""Relative difference of floats that other threads and batches may make; see docs/reading.md."""


@dataclass(kw_only=True)
class Kill:
    """One command that was ended, and what it left."""

    signal: str
    when: str
    """"starting", before it has written a record, or "working"."""
    records: int
    """Whole records that the folder had then."""
    exit: int
    traceback: bool
    torn: bool = False
    """Whether half a record was added then, as a machine that fails leaves it."""
    left: list[str] = field(default_factory=list)
    """Processes of the command that were there a minute later."""

    @property
    def agents(self) -> int:
        """How many of these are Ray's own agents, which hold neither a model nor a lock."""
        return sum(name.startswith(_AGENTS) for name in self.left)


@dataclass(kw_only=True)
class Trial:
    """A run that was killed some times, against one that was not."""

    command: str
    kills: list[Kill] = field(default_factory=list)
    records: int = 0
    missing: int = 0
    twice: int = 0
    different: int = 0
    lost: int = 0
    """Records that were whole after a kill and gone later."""
    unsaid: int = 0
    """Torn lines that the next start did not speak of."""

    @property
    def survived(self) -> bool:
        trouble = self.missing + self.twice + self.different + self.lost + self.unsaid
        return not trouble and not any(len(kill.left) > kill.agents for kill in self.kills)


def trial_of(stored: dict[str, Any]) -> Trial:
    """A trial that was stored as plain values."""
    return Trial(**stored | {"kills": [Kill(**kill) for kill in stored["kills"]]})


_LOADED = (
    *("torch", "torchvision", "transformers", "scipy.stats", "pandas", "safemed_eval.api", "safemed_eval.cli"),
    *(
        "safemed_eval.report",
        "safemed_eval.runs.work.evaluate",
        "safemed_eval.runs.work.certify",
        "safemed_eval.models.check",
    ),
)
_fork = multiprocessing.get_context("forkserver")


def start(arguments: Sequence[str], folder: Path, mark: str = "") -> Any:
    """Start a command in a process group of its own; what it says goes to files in the folder.

    It is forked from a process that has the libraries loaded: most of a short run would be spent on that.

    Args:
        mark: is in the environment of the command and of what it starts.
    """
    _fork.set_forkserver_preload([*_LOADED, "ray"] if "--ray" in arguments else [*_LOADED])
    process = _fork.Process(target=_command, args=(tuple(arguments), folder, mark))
    process.start()
    return process


def _command(arguments: Sequence[str], folder: Path, mark: str) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    os.chdir(folder)
    tests = Path(__file__).parents[1]
    os.environ |= {"PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1", "TORTURE": mark}
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    sys.argv = ["safemed-eval", *arguments]
    if arguments[0] == "train":
        from safemed_eval.train import _loop

        _loop.LOG_EVERY = 1  # to see how far it has come
    from safemed_eval.cli import main

    main()


def wait_until(reached: Callable[[], object], alive: Callable[[], bool]) -> None:
    """Wait until something is so, for as long as the process that does it is alive and does not hang."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached() and alive() and time.monotonic() < deadline:
        time.sleep(0.01)


def finish(arguments: Sequence[str], folder: Path) -> None:
    """Run a command to its end."""
    process = start(arguments, folder)
    process.join(PATIENCE_S)
    if process.exitcode != 0:
        said = (folder / "stderr").read_text()[-2000:]
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.exitcode}: {said}")


def bare(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "seconds"}


def alike(a: Any, b: Any) -> bool:
    """Equal, but for the last bits of floats."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=_LAST_BITS, abs_tol=_LAST_BITS)
    return bool(a == b)


def torment(name: str, whole: Path, folder: Path, data: Path, *, kills: int, seed: int, starting: float) -> Trial:
    """Kill a command so many times, at moments that the seed draws, then let it end, and compare.

    Args:
        whole: the folder of the same command, undisturbed and in one process.
        folder: where the command is run; `run` in it becomes the run folder.
        starting: seconds that the command takes to write its first record, about.
    """
    rng = random.Random(f"{name} {seed}")
    arguments = [*COMMANDS[name], "--data", f"table:{data}", "--out", "run"]
    trial, out, safe, torn = Trial(command=name), folder / "run", b"", False
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(kills):
        how = SIGNALS[(seed + number) % len(SIGNALS)]
        when = "starting" if rng.random() < 0.25 else "working"
        delay = rng.uniform(0, starting) if when == "starting" else rng.uniform(0, 0.5)
        kill = _ended(arguments, folder, how, when, delay, mark=f"{name} {seed} {number} {os.getpid()}")
        if kill is None:  # it was done before
            trial.unsaid += torn and not _told_of_a_torn_line(folder)
            torn = False
            break
        now = _whole_lines(out)
        trial.lost += not now.startswith(safe)
        trial.unsaid += torn and now != safe and not _told_of_a_torn_line(folder)
        torn, safe = torn and _is_torn(out), now  # it may have been ended just after it had cut the line off
        if now and rng.random() < 0.4 and not torn:
            kill.torn = torn = True
            with (out / "records.jsonl").open("ab") as file:
                line = now.splitlines()[0]
                file.write(line[: rng.randrange(1, len(line))])
        trial.kills.append(kill)
    finish(arguments, folder)
    trial.unsaid += torn and not _told_of_a_torn_line(folder)
    trial.lost += not _whole_lines(out).startswith(safe)
    return _compared(trial, whole, out, ordered="--ray" not in name)


def _told_of_a_torn_line(folder: Path) -> bool:
    return "cut off a torn last line" in (folder / "stderr").read_text()


def _compared(trial: Trial, whole: Path, out: Path, *, ordered: bool) -> Trial:
    expected = [bare(one) for one in read_lines(whole)]
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    found = [bare(one) for one in lines]
    keys = [(one["item"], one.get("attack")) for one in found]
    there = dict(zip(keys, found, strict=True))
    wanted = {(one["item"], one.get("attack")): one for one in expected}
    trial.records = len(found)
    trial.missing = len(wanted.keys() - there.keys())
    trial.twice = len(keys) - len(there)
    if ordered:
        trial.different = sum(a != b for a, b in zip(found, expected, strict=False))
    else:
        trial.different = sum(not alike(one, wanted.get(key)) for key, one in there.items())
    return trial


def _ended(
    arguments: Sequence[str], folder: Path, how: signal.Signals, when: str, delay: float, mark: str
) -> Kill | None:
    """Start the command and end it; None if it came to its end before."""
    out = folder / "run"
    before = _whole_lines(out).count(b"\n")
    process = start(arguments, folder, mark)
    if when == "working":
        hold = folder / "hold"  # see `models.Held`
        wait_until(lambda: _whole_lines(out).count(b"\n") > before and not hold.exists(), process.is_alive)
    time.sleep(delay)
    if not _send(process, how) or process.exitcode == 0:
        return None
    return Kill(
        signal=how.name,
        when=when,
        records=_whole_lines(out).count(b"\n"),
        exit=process.exitcode,
        traceback="Traceback" in (folder / "stderr").read_text(),
        left=_left_behind(mark),
    )


def _send(process: Any, how: signal.Signals) -> bool:
    """End a command and wait; False if it was over before. SIGINT goes to its whole group, as Ctrl-C at a terminal."""
    if not process.is_alive():
        return False
    try:
        if how == signal.SIGINT and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, how)
        else:
            os.kill(process.pid, how)
    except ProcessLookupError:
        return False
    process.join(PATIENCE_S)
    return True


def _left_behind(mark: str) -> list[str]:
    """The processes of a command that outlive it; they are ended then."""
    deadline = time.monotonic() + 60
    while (there := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in there:
        os.kill(pid, signal.SIGKILL)
    return list(there.values())


def marked(mark: str) -> dict[int, str]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"TORTURE={mark}\0".encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "comm").read_text().strip()
        except OSError:
            continue  # gone meanwhile, or not ours
    return found


def _is_torn(out: Path) -> bool:
    return (out / "records.jsonl").stat().st_size > len(_whole_lines(out))


def _whole_lines(out: Path) -> bytes:
    file = out / "records.jsonl"
    raw = file.read_bytes() if file.exists() else b""
    return raw[: raw.rfind(b"\n") + 1]


# --------------------------------------------------------------------------------------------------- training


@dataclass(kw_only=True)
class Training:
    """A training that was killed, against one that was not."""

    signal: str
    exit: int
    reached: int
    """The last step that it had logged."""
    saved: int
    """The last step that it had saved."""
    steps: int
    went_on: bool
    """Whether it went on from there."""
    same: bool
    """Whether each step is logged once, with the losses of the undisturbed training."""

    @property
    def survived(self) -> bool:
        return self.same and self.went_on and self.reached - self.saved <= _EVERY


def torment_training(whole: Path, folder: Path, how: signal.Signals, *, seed: int) -> Training:
    """Kill a training some time after its first save, and let the same command go on.

    Args:
        whole: the folder of the same training, undisturbed.
    """
    folder.mkdir(parents=True)
    arguments, out = [*TRAIN, "--out", "new"], folder / "new"
    process = start(arguments, folder)
    wait_until(lambda: _saved(out), process.is_alive)
    time.sleep(random.Random(seed).uniform(0, 1.0))
    _send(process, how)
    reached, saved = max([0, *_losses(out)]), _saved(out)
    places = [out / WORK / "checkpoints" / f"checkpoint-{saved + more}" for more in (0, _EVERY)]
    kept, following = (place / "trainer_state.json" for place in places)
    before, again = kept.stat().st_mtime_ns, start(arguments, folder)
    went_on = False
    while again.is_alive():
        if following.exists():  # until then the one before is not deleted
            went_on = went_on or (kept.exists() and kept.stat().st_mtime_ns == before)
        time.sleep(0.01)
    finish(arguments, folder)
    there, expected = _losses(out), _losses(whole)
    return Training(
        signal=how.name,
        exit=process.exitcode,
        reached=reached,
        saved=saved,
        steps=len(there),
        went_on=went_on,
        same=list(there) == list(expected) == list(range(1, len(expected) + 1))
        and all(math.isclose(there[step], loss, rel_tol=1e-4) for step, loss in expected.items()),
    )


def _losses(out: Path) -> dict[int, float]:
    """The loss of each step in the log; a step that is there twice counts as step -1."""
    found: dict[int, float] = {}
    log = out / WORK / LOG
    for line in read_log(log) if log.exists() else []:
        if "loss" in line:
            found[-1 if line["step"] in found else line["step"]] = line["loss"]
    return found


def _saved(out: Path) -> int:
    """The last step with a whole checkpoint: its state is written last."""
    places = (out / WORK / "checkpoints").glob("checkpoint-*/trainer_state.json")
    return max([0, *(int(place.parent.name.rpartition("-")[2]) for place in places)])


# --------------------------------------------------------------------------------------------------- all of it


def run(place: Path, data: Path, trials: Sequence[Trial], *, each: int) -> Iterator[Trial]:
    """Kill all commands in turn, in folders below `place`, and yield what became of each run.

    Args:
        trials: those of earlier calls, which are gone on from: no two have the same seed.
        each: kills of a command in one process; half as many under Ray.
    """
    wholes: dict[str, Path] = {}
    starting: dict[str, float] = {}
    kills, attempts = Counter[str](), Counter(trial.command for trial in trials)
    for trial in trials:
        kills[trial.command] += len(trial.kills)
    wanted = {name: each // 2 if name.endswith(" --ray") else each for name in COMMANDS}
    while left := {name: most - kills[name] for name, most in wanted.items() if kills[name] < most}:
        for name, more in left.items():
            plain = name.removesuffix(" --ray")
            if plain not in wholes:
                wholes[plain], starting[plain] = _undisturbed(plain, place, data)
            folder = place / name.replace(" ", "") / str(attempts[name])
            wait = starting[plain] * (1 if plain == name else 3)
            whole, seed = wholes[plain], attempts[name]
            trial = torment(name, whole, folder, data, kills=min(4, more), seed=seed, starting=wait)
            kills[name], attempts[name] = kills[name] + len(trial.kills), attempts[name] + 1
            shutil.rmtree(folder)
            yield trial


def _undisturbed(name: str, place: Path, data: Path) -> tuple[Path, float]:
    """Run a command to its end; its folder, and the seconds until it has written a record."""
    arguments, whole = COMMANDS[name], place / name / "whole"
    finish([*arguments, "--data", f"table:{data}", "--limit", "2", "--out", str(place / name / "warm")], place)
    began, process = time.monotonic(), start([*arguments, "--data", f"table:{data}", "--out", str(whole)], place)
    wait_until(lambda: _whole_lines(whole), process.is_alive)
    starting = time.monotonic() - began
    process.join(PATIENCE_S)
    return whole, starting


def run_trainings(place: Path) -> Iterator[Training]:
    """Kill a training by each signal, in folders below `place`."""
    finish([*TRAIN, "--out", str(place / "trained")], place)
    for number, how in enumerate(SIGNALS):
        yield torment_training(place / "trained", place / f"train{number}", how, seed=number)
