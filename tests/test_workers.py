"""Many workers: the same records as one process, and what happens when workers die, refuse, or meet bad items."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_cli import TOY, call, seconds_aside
from test_pseudonyms import command as asked_of
from test_pseudonyms import hospital, leaks, run
from torture.kills import PATIENCE_S, wait_until

from safemed_eval import attacks, data
from safemed_eval.cli import app
from safemed_eval.core import CIRCULAR, Item
from safemed_eval.errors import CheckpointError, RunError, UserError
from safemed_eval.models import Asking, Loading, Model, resolve
from safemed_eval.runs import read_lines
from safemed_eval.runs.pseudonyms import WITHHELD
from safemed_eval.runs.ray import cluster
from safemed_eval.runs.ray.actor import Actor
from safemed_eval.runs.ray.crew import HOPELESS, TRIES, Crew, _cause, crew
from safemed_eval.runs.work import certify, evaluate, units
from safemed_eval.runs.workers import Alone, Loaded, Setup
from safemed_eval.smoothing import Gaussian, Smoothing
from safemed_eval.smoothing.copies import CHUNK, noisy_copies

__all__ = ["hospital"]  # a fixture
CANVAS = data.Canvas(size=(16, 16))


RAY_WAITS = {
    "gcs_server_port_wait_time_s": int(PATIENCE_S),
    "gcs_server_request_timeout_seconds": int(PATIENCE_S),
    "worker_register_timeout_seconds": int(PATIENCE_S),
    "health_check_failure_threshold": 100,
}


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One Ray for all tests of this file, which may take its time; its own warnings are its own affair."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in RAY_WAITS.items():
            patch.setenv(f"RAY_{name}", str(value))
        patch.setattr(sys.modules[Crew.__module__], "_PATIENCE_S", PATIENCE_S)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray

            cluster._connect("local")
            ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield ray
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.shutdown()
            gc.collect()


# ------------------------------------------------- the same records


SMOOTHING = Smoothing(sigma=0.3, n0=40, n=5000)
ASKED = [*attacks.parse_all(["clean", "pgd:eps=8/255,steps=3"]), CIRCULAR]


class Both:
    """An Evaluation and a Certification in one: one crew serves for both."""

    def __init__(self, loaded: Loaded) -> None:
        shared: dict[str, Any] = {"model": loaded.model, "canvas": CANVAS, "seed": 3}
        answering = evaluate.Evaluation(**shared, batch=3, keep=loaded.keep)
        certifying = certify.Certification(**shared, batch=24, smoothing=SMOOTHING)
        self.expect, self.under = answering.expect, answering.under
        self.certify, self.count = certifying.certify, certifying.count
        self.model, self.batch = loaded.model, 24


def setup_of(items: Sequence[Item], model: str = TOY) -> Setup:
    loading = Loading(
        model=Model(source=resolve(model), device="cpu", asking=Asking()),
        size=(16, 16),
        options=3,
        needs={"scores": "x", "gradients": "x"},
    )
    return Setup(model=loading, make=Both, first=items[0])


def work(team: Any, items: Sequence[Item], *, split: bool) -> tuple[list[dict[str, Any]], list[int]]:
    """All records of both kinds, in a fixed order, and how many units each kind took."""
    counts, records = [], []
    certificates = units.Certificates(
        items=items[:3], smoothing=SMOOTHING, batch=24, done=lambda item: False, split=split
    )
    for results, read in (
        (team.do(units.groups(items, ASKED, 3, lambda item, condition: item == "q4")), None),
        (team.do(certificates.units()), certificates.records),
    ):
        found = list(results)
        counts.append(len(found))
        records += [one for group in (read(found) if read else (result for _, result in found)) for one in group]
    bare = [{key: value for key, value in one.to_json().items() if key != "seconds"} for one in records]
    return sorted(bare, key=lambda one: (one["item"], one.get("attack", ""))), counts


@pytest.fixture
def items(table: Path) -> tuple[Item, ...]:
    return data.verify(data.load(f"table:{table}")).items


def test_records_do_not_depend_on_who_made_them(ray: Any, items: tuple[Item, ...]) -> None:
    """In this process, by one worker, by two; items whole, and cut into parts. Kept canvases arrive, too."""
    kept: dict[int, dict[tuple[str, str], torch.Tensor]] = {0: {}, 1: {}, 2: {}}

    def store(workers: int) -> Callable[..., None]:
        return lambda item, condition, clean, attacked, wrong: kept[workers].update({(item.id, condition): attacked})

    whole, counts = work(Alone(setup_of(items), store(0)), items, split=False)
    assert len(whole) == 7 * 3 + 3 and counts == [9, 3]
    assert {one["error"] for one in whole} == {None} and {one["item"] for one in whole} > {"q7", "q0"}
    for workers in (1, 2):
        told: list[str] = []
        with crew(setup_of(items), store(workers), address="local", workers=workers, tell=told.append) as team:
            found, counts = work(team, items, split=True)
            threads = max(1, int(ray.cluster_resources()["CPU"]) // workers)
            assert team.about == {"ray": "local", "workers": workers, "threads": threads}
            assert team.forwards > 3 * 5040
        assert found == whole and told == []
        assert counts == [9, 3 * 4], "40, and 5,000 in parts of 2,064: a multiple of the batch and of CHUNK"
        assert kept[workers].keys() == kept[0].keys() != set()
        assert all(bool((kept[workers][key] == there).all()) for key, there in kept[0].items())


def test_skipping_ahead_draws_the_same_noise() -> None:
    canvas = torch.rand(3, 4, 5)

    def copies(n: int, batch: int, first: int = 0) -> torch.Tensor:
        streams = lambda chunk: torch.Generator().manual_seed(chunk)  # noqa: E731
        return torch.cat([batch.clone() for batch in noisy_copies(canvas, Gaussian(0.5), n, batch, streams, first)])

    whole = copies(100, 24)
    assert bool((copies(36, 10, 64) == whole[64:]).all()) and not bool((copies(36, 10) == whole[64:]).all())
    with pytest.raises(ValueError, match=f"multiple of {CHUNK}"):
        copies(4, 4, CHUNK - 1)


def test_a_part_that_fails_fails_its_item_once(items: tuple[Item, ...]) -> None:
    made = units.Certificates(items=items[:2], smoothing=SMOOTHING, batch=24, done=lambda item: False, split=True)
    found = []
    for unit in made.units():
        assert isinstance(unit, units.Part)
        votes = (unit.n, 0, 0)
        counted = certify.Counted(votes=votes, error=None, batch=24, seconds=1.0)
        if unit.item.id == "q0" and unit.purpose == "estimate":
            counted = unit.failed("gone")
        found.append((unit, counted))
        assert [one.error for one in made._join(*found[-1])] == (
            ["gone"] if counted.error else [None] if unit.item.id == "q1" and unit.first == 2 * 2064 else []
        )
    assert [(unit.item.id, unit.purpose, unit.first, unit.n) for unit, _ in found] == [
        *[("q0", "select", 0, 40), ("q0", "estimate", 0, 2064)],
        *[("q1", "select", 0, 40), ("q1", "estimate", 0, 2064), ("q1", "estimate", 2064, 2064)],
        ("q1", "estimate", 4128, 872),
    ]


# ------------------------------------------------- trouble


MISCHIEF = """
import os, time
from pathlib import Path
import torch
from safemed_eval.models.toy import Brightness
class Mischief(Brightness):
    def scores(self, canvas, questions):
        said = " ".join(q.text for q in questions)
        if "image 2" in said and not Path("pid").exists():
            Path("pid.new").write_text(str(os.getpid()))
            Path("pid.new").rename("pid")
            while True:
                time.sleep(1)
        if "image 4" in said:
            torch.empty(1 << 50)  # more memory than there is
        if "image 5" in said:
            os._exit(1)
        if "image 6" in said:
            raise ValueError("cannot do image 6")
        return super().scores(canvas, questions)
def make(): return Mischief()
"""


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_a_poison_item_ends_as_an_error(
    ray: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mischief_for_test.py").write_text(MISCHIEF)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    over = threading.Event()

    def kill() -> None:
        wait_until(Path("pid").exists, lambda: not over.is_set())
        os.kill(int(Path("pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    shared = ["--data", f"table:{table}", "--canvas", "16x16", "--batch-size", 1]
    run = ["evaluate", "--model", "python:mischief_for_test:make", *shared, "--out", "run"]
    code, text = call(*run, "--ray", "local", "--workers", 2)
    over.set()
    killer.join()
    assert code == 0 and "8 of 8 items; 3 failed" in text
    assert "died on item q0 and 3 more items under clean, the first time" in text
    assert "died on item q5 under clean, the third time" in text
    records = read_lines(Path("run"))
    assert sorted(one["item"] for one in records) == [f"q{number}" for number in range(8)]
    errors = {one["item"]: one["error"] for one in records if one["error"]}
    assert errors.keys() == {"q4", "q5", "q6"} and "cannot do image 6" in errors["q6"]
    assert "can't allocate memory" in errors["q4"], "one that does not fit even alone"
    assert errors["q5"] == "the worker died 3 times on this item"
    assert call("evaluate", "--model", TOY, *shared, "--out", "healthy")[0] == 0
    healthy = {one["item"]: one["prediction"] for one in read_lines(Path("healthy"))}
    assert all(one["prediction"] == healthy[one["item"]] for one in records if not one["error"])
    before = seconds_aside(Path("run"))
    assert call(*run)[0] == 0 and seconds_aside(Path("run")) == before, "complete, with workers or without"


def test_a_ray_that_does_not_start_in_time_is_one_line(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**settings: Any) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RunError, match=r"^--ray local: Exception: The current node timed out during startup\. This"):
        cluster._connect("local")


def test_a_worker_that_ray_ends_for_its_memory_is_buried_like_any_other(ray: Any) -> None:
    ended = ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory.")
    assert isinstance(ended, ray.exceptions.RayError) and not isinstance(ended, ray.exceptions.RayTaskError)
    assert _cause(ended) == "Ray ended it, memory ran low"


@dataclass(frozen=True)
class Step:
    """A unit that needs no model."""

    name: str
    deed: str = "ok"

    def coming(self, work: Any) -> None:
        pass

    def do(self, work: Any) -> str:
        if self.deed == "die":
            os._exit(1)
        if self.deed == "wrong":
            raise RunError("the disk is full")
        if self.deed == "bug":
            raise KeyError("a bug")
        if self.deed == "linger":
            time.sleep(PATIENCE_S)
        if self.deed == "note":
            logging.getLogger("safemed_eval.anywhere").warning("noted %s", self.name)
        return self.name.upper()

    def alone(self) -> Sequence[Step]:
        return ()

    def failed(self, why: str) -> str:
        return why


@dataclass(frozen=True)
class Light:
    """A loading without a model."""

    refusal: str | None = None
    unlike: bool = False
    """True if each worker has a device with another name."""
    device: str = "cpu"
    threads: int | None = None
    source: Any = None

    def on(self, device: str, threads: int | None) -> Light:
        return replace(self, device=device, threads=threads)

    def __call__(self) -> tuple[Any, list[Any]]:
        if self.refusal == "die":
            os._exit(1)
        if self.refusal:
            raise CheckpointError(self.refusal)
        name = f"card {os.getpid()}" if self.unlike else "cpu"
        model = SimpleNamespace(
            device=SimpleNamespace(type="cpu"), device_name=name, forwards=0, describe=lambda question: {"device": name}
        )
        return model, []


def light(item: Item, **settings: Any) -> Setup:
    return Setup(model=Light(**settings), make=lambda loaded: SimpleNamespace(model=loaded.model, batch=1), first=item)  # type: ignore


def drawn_item() -> Item:
    return next(iter(data.load("phantom:images=2").items))


def test_what_a_broken_device_computed_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the run ends; a worker's process ends, and the crew has the unit done by another."""

    def synchronize(device: Any) -> None:
        if len(done) == 2:
            raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(os, "_exit", sys.exit)
    done: list[str] = []
    team = Alone(light(drawn_item()), print)
    team._host.model.device.type = "cuda"
    with pytest.raises(RunError, match=r"^the device failed on c and .*illegal memory access was .* goes on"):
        done += (unit.name for unit, _ in team.do([Step("a"), Step("b"), Step("c")]))
    assert done == ["a", "b"]
    worker = Actor()
    worker.load(light(drawn_item()), ".", None)
    worker._host.model.device.type = "cuda"
    with pytest.raises(SystemExit):
        worker.do(Step("d"))


@pytest.mark.slow
def test_units_in_line_behind_a_death_were_not_tried(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Crew._answering

    def looked_at(team: Crew) -> Any:
        for sent in (worker.sent for worker in team._workers):
            assert len(sent) < 2 or not any(team._deaths[one.name] for one, _ in sent), "a suspect is alone"
        return wait(team)

    monkeypatch.setattr(Crew, "_answering", looked_at)
    told: list[str] = []
    bad = Step("bad", "die")
    todo = [Step("a", "note"), bad, *(Step(name, "note") for name in "bcdef"), bad]
    with crew(light(drawn_item()), print, address="local", workers=1, tell=told.append) as team:
        results = {unit.name: result for unit, result in team.do(todo)}
        assert team._deaths["bad"] == TRIES, "of both together: they are one item's"
        assert max(team._deaths[name] for name in "abcdef") < 2, "an answer may be lost with the process, once"
        assert results == {name: name.upper() for name in "abcdef"} | {"bad": "the worker died 3 times on this item"}
        assert {line for line in told if "noted" in line} == {f"noted {name}" for name in "abcdef"}
        assert sum("died on bad" in line for line in told) == TRIES
        with pytest.raises(RunError, match="the disk is full"):
            list(team.do([Step("x", "wrong")]))
        with pytest.raises(KeyError, match="a bug"):
            list(team.do([Step("x", "bug")]))


@pytest.mark.slow
def test_a_node_that_is_gone_ends_the_run_and_another_does_not(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers, and Ray says that the node of this process is dead; `test_kills` kills a real one."""
    (home,) = ray.nodes()
    other = {"NodeID": "other", "Alive": False, "DeathReasonMessage": "unplugged"}
    asked: list[bool] = []

    def nodes(alive: bool = True) -> list[dict[str, Any]]:
        asked.append(alive)
        return [other, {**home, "Alive": alive, "DeathReasonMessage": "health check failed"}]

    with crew(light(drawn_item()), print, address="local", workers=1, tell=lambda line: None) as team:
        monkeypatch.setattr(ray, "nodes", nodes)
        results = {unit.name: result for unit, result in team.do([Step("bad", "die"), Step("a")])}
        assert results["a"] == "A" and len(asked) >= TRIES, "a worker has died, and the node has not"
        monkeypatch.setattr(ray, "nodes", partial(nodes, False))
        with pytest.raises(RunError, match=r"^--ray local: Ray's node .* is gone \(health check failed\).*goes on$"):
            list(team.do([Step("x", "linger")]))


@pytest.mark.slow
def test_workers_that_die_on_everything_end_the_run(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert HOPELESS == 3 * TRIES, "more than one or two bad items take"
    monkeypatch.setattr(sys.modules[Crew.__module__], "HOPELESS", few := 4)
    with crew(light(drawn_item()), print, address="local", workers=2, tell=lambda line: None) as team:
        team._in_a_row = few - 1
        assert [result for _, result in team.do([Step("fine")])] == ["FINE"] and team._in_a_row == 0
        given_up = []
        with pytest.raises(RunError, match=f"died {few} times in a row"):
            given_up += [unit for unit, _ in team.do(Step(f"s{i}", "die") for i in range(99))]
        assert len(given_up) <= few // TRIES


@pytest.mark.slow
def test_no_worker_or_unlike_workers_are_one_line(ray: Any, tmp_path: Path) -> None:
    start = partial(crew, store=print, address="local", workers=2, tell=lambda line: None)
    with pytest.raises(CheckpointError, match=r"^it is not fit$"), start(light(drawn_item(), refusal="it is not fit")):
        pass
    with pytest.raises(RunError, match="died loading its model"), start(light(drawn_item(), refusal="die"), workers=1):
        pass
    with (
        pytest.raises(
            RunError, match=r'device was "card (\d+)", now "card (?!\1")\d+"; results of different devices do not mix'
        ),
        start(light(drawn_item(), unlike=True)) as team,
    ):
        all(team.do(Step(str(i)) for i in count()))
    elsewhere = replace(drawn_item(), drawn=None, root=tmp_path, image="gone.png")
    with pytest.raises(UserError, match=r"image not found: .*gone\.png"), start(light(elsewhere)):
        pass


def test_one_worker_that_cannot_be_used_is_left_out(ray: Any, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Second(Light):
        def __call__(self) -> tuple[Any, list[Any]]:
            try:
                (tmp_path / "first").mkdir()
            except FileExistsError:
                raise CheckpointError("no room") from None
            return super().__call__()

    told: list[str] = []
    with crew(
        replace(light(drawn_item()), model=Second()), print, address="local", workers=2, tell=told.append
    ) as team:
        for _ in team.do(Step(str(i)) for i in count()):
            if told:
                break
        assert told[0].endswith("is left out: no room") and team.note == "1 worker"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", 2], "no effect without --ray"),
        (["--ray", "ray://host:10001"], "write local, auto or HOST:PORT"),
        (["--ray", "local", "--device", "cuda:1"], "a device of its own"),
        (["--ray", "local"], "pip install 'safemed-eval[ray]'"),
    ],
)
def test_what_workers_cannot_do_is_one_line(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[Any], message: str
) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    code, text = call("evaluate", "--model", TOY, "--data", f"table:{table}", "--out", tmp_path / "run", *options)
    assert code == 2 and message in text and "\n" not in text and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "there", "found"),
    [
        (("local", None, "auto"), {"CPU": 64, "GPU": 8}, (8, 8, True)),
        (("local", 2, "cuda"), {"CPU": 64, "GPU": 8}, (2, 8, True)),
        (("local", 9, "auto"), {"CPU": 64, "GPU": 8}, "this machine has 8 GPUs"),
        (("local", None, "cpu"), {"CPU": 64, "GPU": 8}, (32, 2, False)),
        (("local", None, "auto"), {"CPU": 1}, (1, 1, False)),
        (("local", 4, "auto"), {"CPU": 2}, (4, 1, False)),
        (("local", 1, "cuda"), {"CPU": 2}, "has no GPU"),
        (("h:1", None, "cuda"), {"CPU": 2}, "--workers N waits until there are N"),
        (("h:1", 16, "cuda"), {"CPU": 2}, (16, None, True)),
        (("h:1", 16, "auto"), {"CPU": 32, "GPU": 8}, (16, 4, True)),
        (("h:1", None, "auto"), {"CPU": 30}, (15, 2, False)),
    ],
)
def test_how_many_workers_and_what_they_ask_for(asked: Any, there: dict[str, float], found: Any) -> None:
    if isinstance(found, str):
        with pytest.raises(UserError, match=found):
            cluster.places(*asked, there)
    else:
        room = cluster.places(*asked, there)
        assert (room.workers, room.threads, room.gpu) == found
        assert room.options["num_gpus"] == int(room.gpu)
        assert room.options["num_cpus"] == (0 if asked[0] == "local" else 1 if room.gpu else room.threads)


@pytest.mark.slow
def test_a_run_goes_on_with_other_workers_and_says_who_worked(
    ray: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = ["certify", "--model", TOY, "--data", f"table:{table}", "--canvas", "16x16", "--sigma", 0.5, "--n", 2200]
    assert call(*shared, "--out", tmp_path / "whole")[0] == 0
    assert call(*shared, "--out", tmp_path / "cut")[0] == 0
    records = tmp_path / "cut/records.jsonl"
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:3]))
    assert call(*shared, "--out", tmp_path / "cut", "--ray", "local", "--workers", 1)[0] == 0
    assert seconds_aside(tmp_path / "cut") == seconds_aside(tmp_path / "whole")
    first, second = json.loads((tmp_path / "cut/run.json").read_text())["sessions"]
    assert "ray" not in first and (second["ray"], second["workers"]) == ("local", 1)


@pytest.mark.slow
def test_workers_know_names_that_the_run_does_not(ray: Any, hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers write what one process writes under this key, and go on where it stopped."""
    monkeypatch.syspath_prepend(str(hospital))
    spread = ("--ray", "local", "--workers", "2")
    for name, more in (
        ("evaluate", ("--keep-images", "2")),
        ("certify", ("--sampling", "sequential", "--radii", "0,0.5s")),
    ):
        run(hospital, *asked_of(name, name, *more))
        whole, records = seconds_aside(hospital / name), hospital / name / "records.jsonl"
        assert {one["item"].partition("-")[0] for one in whole} == {"item"}
        records.write_text("".join(records.read_text().splitlines(keepends=True)[:2]))
        assert "going on, 2 records are there" in run(hospital, *asked_of(name, name, *more, *spread))
        assert seconds_aside(hospital / name) == whole
        assert leaks(hospital / name) == []
    assert {one["error"] for one in seconds_aside(hospital / "evaluate")} == {None, WITHHELD}


def test_examples_name_options_that_exist() -> None:
    """And the manifest is YAML that says what a RayJob must."""
    import yaml
    from typer.main import get_command

    folder = Path(__file__).parents[1] / "examples"
    commands = get_command(app).commands  # type: ignore[attr-defined]
    known = {name: {option for one in command.params for option in one.opts} for name, command in commands.items()}
    found = []
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        text = re.sub(r"\\\n|\n {4}(?=--)", " ", file.read_text())
        for command, rest in re.findall(r"^(?!#).*\bsafemed-eval (\w+) ([^\n]*)", text, flags=re.MULTILINE):
            shared = "".join(re.findall(r"^options=\((.*)\)", text, flags=re.MULTILINE))
            asked = set(re.findall(r"(?<!\S)--[a-z-]+", rest.replace('"${options[@]}"', shared)))
            assert asked <= known[command], f"{file.name}: {command}"
            found.append((file.name, command, len(asked)))
    assert [(name, command) for name, command, _ in found] == [
        ("kuberay.yaml", "certify"),
        *[("one-box.sh", command) for command in ("plan", "certify", "report")],
        ("slurm.sh", "certify"),
    ]
    assert {name: count for name, command, count in found if command == "certify"} == {
        "kuberay.yaml": 8,
        "one-box.sh": 6,
        "slurm.sh": 8,
    }
    job = yaml.safe_load((folder / "kuberay.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    assert job["kind"] == "RayJob" and "--ray auto" in job["spec"]["entrypoint"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    mounts = [group["template"]["spec"]["containers"][0]["volumeMounts"] for group in groups]
    assert mounts[0] == mounts[1], "paths are the same in all pods"
