"""Machine faults during a run: full and read-only disks, quotas, memory, clocks, moved folders, other versions."""

from __future__ import annotations

import ast
import json
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import draw_table
from running import answers, certificates
from safetensors.torch import save_file
from test_cli import TOY, call, seconds_aside
from test_pipeline import CANVAS, CPU, Hungry, evaluation, items
from torture.models import Quarters

import safemed_eval
from safemed_eval import attacks, faults
from safemed_eval.core import Question
from safemed_eval.errors import RunError
from safemed_eval.files import write_whole
from safemed_eval.models.waist import Waist
from safemed_eval.runs import read_lines
from safemed_eval.runs.work.certify import Certification
from safemed_eval.smoothing import Budget, Sequential, Smoothing, Voting
from safemed_eval.train import _loop

ASKED = ("evaluate", "--model", TOY, "--canvas", "16x16", "--batch-size", 1, "--attack", "fgsm")
CERTIFIED = ("certify", "--model", TOY, "--canvas", "16x16", "--sigma", 0.5, "--n", 60, "--n0", 5)

# ------------------------------------------------------------------------------------------------------------ disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of its own, `disk("size=64k")`; called again, it is given another size, or made read-only."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        again = place.is_mount()
        command = ["mount", "-o", f"remount,{options}", str(place)] if again else []
        command = command or ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no mount on this machine")
        if done.returncode:
            pytest.skip(f"this user may not mount a small disk: {done.stderr.strip()[:80]}")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # torch leaves a file open that it cannot write


@pytest.mark.parametrize("command", [ASKED, CERTIFIED], ids=["evaluate", "certify"])
def test_a_full_disk_ends_a_run_that_goes_on_when_there_is_room(
    disk: Callable[[str], Path], command: Sequence[object], tmp_path: Path
) -> None:
    asked = [*command, "--data", f"table:{draw_table(tmp_path / 'data', rows=24)}"]
    small = disk("size=16k")
    code, text = call(*asked, "--out", small / "run")
    assert code == 2 and "No space left on device" in text and "the same command goes on" in text
    there = (small / "run/records.jsonl").read_bytes().count(b"\n")
    safe = int(text.partition(" records are safe")[0].rpartition(" ")[2])
    assert 0 < safe <= there < 24, "of what is written at once, some may have come to the disk whole"
    disk("size=1m")
    assert call(*asked, "--out", small / "run")[0] == 0
    assert call(*asked, "--out", tmp_path / "whole")[0] == 0
    assert seconds_aside(small / "run") == seconds_aside(tmp_path / "whole")


def test_a_disk_with_no_room_at_all_leaves_nothing_that_looks_like_a_run(
    disk: Callable[[str], Path], table: Path
) -> None:
    small = disk("size=16k")
    (small / "filler").write_bytes(b"x" * 16384)
    code, text = call(*CERTIFIED, "--data", f"table:{table}", "--out", small / "run")
    assert code == 2 and text.endswith("cannot be written: No space left on device") and "\n" not in text
    disk("size=1m")
    assert call(*CERTIFIED, "--data", f"table:{table}", "--out", small / "run")[0] == 0
    assert len(read_lines(small / "run")) == 8


def test_kept_images_that_do_not_fit_are_one_line_and_come_later(disk: Callable[[str], Path], table: Path) -> None:
    small = disk("size=24k")
    asked = [*ASKED, "--data", f"table:{table}", "--keep-images", 8, "--out", small / "run"]
    code, text = call(*asked)
    assert code == 2 and "images: cannot be written: No space left on device" in text
    disk("size=1m")
    assert call(*asked)[0] == 0
    assert len(list((small / "run/images/fgsm_eps=4_255").glob("*.clean.png"))) == 8
    assert all(file.stat().st_size > 50 for file in (small / "run/images").rglob("*.*"))


def test_a_read_only_disk_is_one_line(disk: Callable[[str], Path], table: Path) -> None:
    small, asked = disk("size=1m"), [*CERTIFIED, "--data", f"table:{table}"]
    assert call(*asked, "--out", small / "run")[0] == 0
    before = seconds_aside(small / "run")
    records = small / "run/records.jsonl"
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:3]))
    disk("ro")
    for out in (small / "run", small / "new"):
        code, text = call(*asked, "--out", out)
        assert code == 2 and "cannot be written" in text and "\n" not in text
    with pytest.raises(OSError, match="Read-only file system"):  # one line, too: see `cli.main`
        call("report", small / "run", "--out", small / "report")
    disk("rw")
    assert call(*asked, "--out", small / "run")[0] == 0 and seconds_aside(small / "run") == before


@contextmanager
def quota(size: int) -> Iterator[None]:
    """No file of this process may grow beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_quota_ends_a_run_that_goes_on_without_it(tmp_path: Path) -> None:
    asked = [*CERTIFIED, "--data", f"table:{draw_table(tmp_path / 'data', rows=24)}"]
    assert call(*asked, "--out", tmp_path / "whole")[0] == 0
    with quota((tmp_path / "whole/records.jsonl").stat().st_size * 7 // 10):  # amid the seventeenth of 24 lines
        code, text = call(*asked, "--out", tmp_path / "run")
    assert code == 2 and "File too large" in text and "records are safe" in text
    code, text = call(*asked, "--out", tmp_path / "run")
    assert code == 0 and "cut off a torn last line" in text
    assert seconds_aside(tmp_path / "run") == seconds_aside(tmp_path / "whole")


def test_what_cannot_be_saved_in_training_is_one_line(disk: Callable[[str], Path]) -> None:
    """In the words of the system, of safetensors, and of torch."""
    small, weights = disk("size=64k"), {"w": torch.zeros(10**5)}
    for save in (
        lambda: (small / "log").write_bytes(b"x" * 10**5),
        lambda: save_file(weights, small / "model.safetensors"),
        lambda: torch.save(weights, small / "optimizer.pt"),
    ):
        said = pytest.raises(RunError, match=r"(No space left|disk full)[^\n]*the same command goes on")
        with said, _loop.writing(small):
            save()
    with pytest.raises(RuntimeError, match="a bug"), _loop.writing(small):
        raise RuntimeError("a bug")


def test_what_says_that_a_training_is_complete_is_never_half_there(disk: Callable[[str], Path]) -> None:
    small = disk("size=16k")
    with pytest.raises(OSError):
        write_whole(small / "about.json", "x" * 10**5)
    assert not (small / "about.json").exists()


# ----------------------------------------------------------------------------------------------------------- memory


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is not searched for what could be given back: it is much in a process that has run many tests."""
    monkeypatch.setattr(faults, "release", lambda: None)


class Moody(Quarters):
    """Runs out of memory at some calls, drawn by a seed, where more than so many images are shown."""

    def __init__(self, seed: int, fits: int = 1) -> None:
        super().__init__()
        self._rng, self._fits = random.Random(seed), fits

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        if len(canvas) > self._fits and self._rng.random() < 0.1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().scores(canvas, questions)


BUDGETS = {
    "fixed": Smoothing(sigma=0.02, n0=10, n=50),
    "sequential": Sequential(sigma=0.02, radii={"0": 0.0, "0.02": 0.02}, n=100),
}


def certified(model: object, table: Path, budget: Budget) -> list[dict[str, Any]]:
    work = Certification(model=Waist(model, CPU), canvas=CANVAS, smoothing=budget, seed=0, batch=32)
    return [{k: v for k, v in one.items() if k not in ("seconds", "batch")} for one in certificates(work, items(table))]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_certificates_do_not_depend_on_where_memory_ran_out(table: Path, budget: Budget) -> None:
    whole = certified(Quarters(), table, budget)
    assert {one["error"] for one in whole} == {None} and len({one["prediction"] for one in whole}) > 1
    for seed in range(3):
        assert certified(Moody(seed), table, budget) == whole
    starved = certified(Hungry(0), table, budget)
    assert len(starved) == 8
    for one in starved:
        assert "out of memory" in one["error"] and (one["radius"], one["prediction"]) == (None, None)
        assert one["correct"] is False


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("voting", [None, Voting(sigma=0.02, n=30, alpha=0.05, m=2)], ids=["plain", "smoothed"])
def test_answers_do_not_depend_on_where_memory_ran_out(table: Path, voting: Voting | None) -> None:
    chosen = [attacks.parse(spec) for spec in ("clean", "pgd:eps=1/255,steps=3,early_stop=no", "noise:eps=2/255")]

    def outcomes(model: object) -> dict[tuple[str, str], Any]:
        run = answers(evaluation(model, batch=4, voting=voting), items(table), chosen)
        records = [one for group in run for one in group]
        assert not any(one["error"] for one in records) and len(records) == 24
        return {(one["item"], one["attack"]): (one["prediction"], one["steps"], one["linf"]) for one in records}

    whole = outcomes(Quarters())
    for seed in range(3):
        found = outcomes(Moody(seed, fits=voting.m if voting else 1))  # the copies of one gradient stay together
        assert found.keys() == whole.keys()
        for key, (prediction, steps, linf) in found.items():
            assert (prediction, steps) == whole[key][:2] and linf == pytest.approx(whole[key][2], abs=1e-6)


# -------------------------------------------------------------------------------------------------- clocks and names


def test_a_clock_that_jumps_does_no_harm(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [*CERTIFIED, "--data", f"table:{table}"]
    assert call(*asked, "--out", tmp_path / "whole")[0] == 0
    assert call(*asked, "--out", tmp_path / "run")[0] == 0
    records = tmp_path / "run/records.jsonl"
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:3]))
    jumps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(0, 4e9))
    for file in (tmp_path / "run").iterdir():
        file.touch()
    assert call(*asked, "--out", tmp_path / "run")[0] == 0
    assert seconds_aside(tmp_path / "run") == seconds_aside(tmp_path / "whole")


def test_nothing_but_the_provenance_asks_what_time_it_is() -> None:
    """Durations come from clocks that cannot jump; the age of a file decides nothing."""
    root = Path(safemed_eval.__file__).parent
    asked = set()
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                name = f"{node.value.id}.{node.attr}" if isinstance(node.value, ast.Name) else node.attr
                if name in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow") or "mtime" in name:
                    asked.add((file.name, name))
    assert asked == {("provenance.py", "datetime.now")}


def test_folders_may_be_renamed(table: Path, tmp_path: Path) -> None:
    """The run's, in the middle of it, and that of the data."""
    asked = [*ASKED, "--data", f"table:{table}"]
    assert call(*asked, "--out", tmp_path / "whole")[0] == 0
    assert call(*asked, "--out", tmp_path / "run")[0] == 0
    records = tmp_path / "run/records.jsonl"
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:5]))
    (tmp_path / "run").rename(tmp_path / "moved")
    shutil.move(table.parent, tmp_path / "elsewhere")
    asked = [*ASKED, "--data", f"table:{tmp_path / 'elsewhere' / table.name}"]
    code, text = call(*asked, "--out", tmp_path / "moved")
    assert code == 0 and "going on, 5 records are there" in text
    assert seconds_aside(tmp_path / "moved") == seconds_aside(tmp_path / "whole")
    assert call("compare", tmp_path / "whole", tmp_path / "moved", "--allow-inconclusive")[0] == 0


# --------------------------------------------------------------------------------------------------- other versions


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_a_run_of_another_version_is_refused_and_left_alone(table: Path, tmp_path: Path, schema: object) -> None:
    asked = [*CERTIFIED, "--data", f"table:{table}", "--out", tmp_path / "run"]
    assert call(*asked)[0] == 0
    meta = json.loads((tmp_path / "run/run.json").read_text()) | {"schema": schema}
    (tmp_path / "run/run.json").write_text(json.dumps(meta))
    before = {file: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    for command in (asked, ["report", tmp_path / "run", "--out", tmp_path / "report"]):
        code, text = call(*command)
        assert code == 2 and f"written with schema {schema}, this version reads schema 1" in text
    code, text = call("compare", tmp_path / "run", tmp_path / "run")
    assert code == 2 and "written with schema" in text
    assert {file: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before
    assert not (tmp_path / "report").exists()
