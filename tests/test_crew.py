"""Workers without Ray: its actors are objects of this process, so that what a crew promises is tested in no time.

`test_workers` does the same and more with a real Ray.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from test_workers import Light, Step, drawn_item, light

from safemed_eval.errors import CheckpointError, RunError
from safemed_eval.models.checks.common import Finding
from safemed_eval.runs.ray import actor, crew
from safemed_eval.runs.ray.crew import HOPELESS, TRIES
from safemed_eval.runs.workers import Alone, BrokenDeviceError, Loaded, Setup


class RayError(Exception):
    """As Ray has it."""


class RayTaskError(RayError):
    """As Ray has it: what an actor raises."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class DiedError(BaseException):
    """The process of an actor has ended."""


class Handle:
    """An actor on a node; what it is asked is done at once, and nothing after it died."""

    def __init__(self, ray: StandIn, made: Any, node: str) -> None:
        self.ray, self.made, self.node, self.dead = ray, made, node, False

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: SimpleNamespace(future=partial(self._asked, name, given)))

    def _asked(self, name: str, given: Sequence[Any]) -> Future[Any]:
        answer, self.ray.node = Future[Any](), self.node
        try:
            if self.dead:
                raise DiedError
            answer.set_result(getattr(self.made, name)(*given))
        except DiedError:
            self.dead = True
            answer.set_exception(RayError("the actor died"))
        except Exception as error:
            answer.set_exception(RayTaskError(error))
        finally:
            self.ray.node = "here"
        return answer


@dataclass
class StandIn:
    """The part of Ray's module that a crew uses.

    Attributes:
        nodes_of: the nodes of the actors, in the order in which they are started; then "here".
        node: where the code runs that asks.
    """

    nodes_of: list[str] = field(default_factory=list)
    node: str = "here"
    actors: list[Handle] = field(default_factory=list)
    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def remote(self, made: type) -> Any:
        return SimpleNamespace(options=lambda **asked: SimpleNamespace(remote=lambda: self._started(made())))

    def _started(self, made: Any) -> Handle:
        self.actors.append(Handle(self, made, self.nodes_of.pop(0) if self.nodes_of else "here"))
        return self.actors[-1]

    def kill(self, handle: Handle) -> None:
        handle.dead = True

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 4.0}

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: self.node)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": node, "Alive": node == "here"} for node in ("here", "away")]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    made, log = StandIn(), logging.getLogger("safemed_eval")
    before = list(log.handlers)

    def died(code: int) -> None:
        raise DiedError

    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setattr(os, "_exit", died)
    for module in (crew, actor):
        monkeypatch.setattr(module, "code_sha256", lambda: "old code" if made.node == "old" else "code")
    monkeypatch.setattr(actor.platform, "node", lambda: f"host {made.node}")
    yield made
    log.handlers = before


Begin = Callable[..., Any]


@pytest.fixture
def begin(ray: StandIn) -> tuple[Begin, list[str]]:
    """Starts a crew, and what it tells meanwhile."""
    told: list[str] = []

    def start(setup: Setup | None = None, workers: int = 2, store: Any = print) -> Any:
        return crew.crew(setup or light(drawn_item()), store, address="local", workers=workers, tell=told.append)

    return start, told


@dataclass(frozen=True)
class Once(Step):
    """A unit on which the first workers die, or whose device breaks; `parts` are its items."""

    deaths: int = 0
    broken: bool = False
    parts: tuple[Step, ...] = ()
    seen: list[int] = field(default_factory=list, compare=False)

    def do(self, work: Any) -> str:
        self.seen.append(1)
        if len(self.seen) <= self.deaths:
            if self.broken:
                raise BrokenDeviceError("an illegal access")
            os._exit(1)
        return super().do(work)

    def alone(self) -> Sequence[Step]:
        return self.parts


def test_every_unit_is_done_once_by_the_crew_whose_first_report_counts(begin: tuple[Begin, list[str]]) -> None:
    start, told = begin
    names = [str(number) for number in range(9)]
    with start(workers=3) as team:
        assert (team.ready.device, team.ready.batch, team.ready.model) == ("cpu", 1, {"device": "cpu"})
        results = [(unit.name, result) for unit, result in team.do(Step(name) for name in names)]
        assert team.note == "3 workers" and team.about == {"ray": "local", "workers": 3, "threads": 1}
    assert Counter(results) == Counter((name, name.upper()) for name in names) and not told
    assert team.note == "0 workers", "they are ended"


@pytest.mark.parametrize("broken", [False, True])
def test_the_unit_of_a_worker_that_died_is_done_by_another(broken: bool, begin: tuple[Begin, list[str]]) -> None:
    """A process whose device broke ends itself: whatever it computed after that would be wrong."""
    start, told = begin
    unit = Once("bad", deaths=1, broken=broken)
    with start() as team:
        assert {one.name: result for one, result in team.do([Step("a"), unit, Step("b")])} == {
            name: name.upper() for name in ("a", "b", "bad")
        }
    assert len(unit.seen) == 2 and len(told) == 1
    assert told[0].startswith("a worker on host here died on bad, the first time: its process is gone")


def test_a_unit_on_which_all_workers_die_is_given_up_and_before_that_cut_into_its_items(
    begin: tuple[Begin, list[str]],
) -> None:
    start, told = begin
    good, bad = Once("x"), Once("y", deaths=99)
    whole = Once("x, y", deaths=99, parts=(good, bad))
    with start() as team:
        found = {unit.name: result for unit, result in team.do([whole, Step("z")])}
    assert found == {"x": "X", "y": f"the worker died {TRIES} times on this item", "z": "Z"}
    assert len(whole.seen) == TRIES - 1 and len(bad.seen) == 1 and len(told) == TRIES
    assert [line.split("died on ")[1].split(":")[0] for line in told][-1] == "y, the third time"


def test_workers_that_die_on_everything_end_the_run(begin: tuple[Begin, list[str]]) -> None:
    start, _ = begin
    with start() as team, pytest.raises(RunError, match=f"workers died {HOPELESS} times in a row .* goes on$"):
        list(team.do(Step(f"s{number}", "die") for number in range(99)))


class Files:
    """A model's files, which have another hash on the node "away"; counts how often they are read."""

    name = "m"

    def __init__(self, ray: StandIn) -> None:
        self.ray, self.read = ray, Counter[str]()

    @property
    def identity(self) -> dict[str, str]:
        self.read[self.ray.node] += 1
        return {"weights_sha256": "other" if self.ray.node == "away" else "same"}


def setup_with(source: Files) -> Setup:
    setup = light(drawn_item())
    return replace(setup, model=replace(setup.model, source=source))


def test_workers_elsewhere_must_have_the_files_of_the_run(ray: StandIn, begin: tuple[Begin, list[str]]) -> None:
    """Those on this machine read the very files: nothing is hashed for them. Hashes are made once for all others."""
    start, told = begin
    ray.nodes_of, files = ["here", "here too", "away", "here too"], Files(ray)
    with start(setup_with(files), workers=4) as team:
        assert len(list(team.do(Step(name) for name in "abcdefgh"))) == 8
        assert team.note == "3 workers"
    assert files.read == {"here": 1, "here too": 2, "away": 1}
    (line,) = told
    assert line.startswith("a worker is left out: on host away, which needs the files of the run at the same paths: ")
    assert line.endswith('other models are here: m.weights_sha256 was "same", now "other"')
    alone = Files(ray)
    with start(setup_with(alone), workers=2):
        assert not alone.read


def test_a_node_with_other_code_is_left_out(ray: StandIn, begin: tuple[Begin, list[str]]) -> None:
    start, told = begin
    ray.nodes_of = ["old", "here"]
    with start() as team:
        assert team.note == "1 worker"
    (line,) = told
    assert line.endswith("another version of safemed-eval is installed on host old; install the one from here")
    ray.nodes_of = ["old"]
    with pytest.raises(RunError, match=r"^on host old, .* another version"), start(workers=1):
        pass


def test_a_worker_that_refuses_its_model_is_left_out_and_the_last_one_ends_the_run(
    begin: tuple[Begin, list[str]],
) -> None:
    @dataclass(frozen=True)
    class Fussy(Light):
        fit: int = 1
        asked: list[int] = field(default_factory=list, compare=False)

        def __call__(self) -> tuple[Any, list[Any]]:
            self.asked.append(1)
            return Light(refusal=None if len(self.asked) <= self.fit else "no room")()

    start, told = begin
    setup = light(drawn_item())
    with start(replace(setup, model=Fussy()), workers=3) as team:
        assert [result for _, result in team.do([Step("a")])] == ["A"]
    assert set(told) == {"a worker is left out: no room"}
    with pytest.raises(CheckpointError, match=r"^no room$"), start(replace(setup, model=Fussy(fit=0))):
        pass


def test_surrogates_are_loaded_models_and_the_checks_are_those_of_the_judged_one() -> None:
    """In this process, as in those of a crew."""
    made: list[Loaded] = []

    def make(loaded: Loaded) -> Any:
        made.append(loaded)
        return SimpleNamespace(model=loaded.model, batch=7)

    def loading(name: str) -> Any:
        model = SimpleNamespace(device_name=name, device=SimpleNamespace(type="cpu"), forwards=0)
        model.describe = lambda question: {"name": name, "question": question}
        return model, lambda: (model, [Finding(f"check of {name}", "pass", "fine")])

    judged, load = loading("judged")
    others = [loading(name) for name in ("first", "second")]
    setup = Setup(
        model=load, make=make, first=drawn_item(), surrogates=dict(zip("ab", (load for _, load in others), strict=True))
    )
    team = Alone(setup, print)
    (loaded,) = made
    assert loaded.model is judged
    assert loaded.surrogates == {"a": others[0][0], "b": others[1][0]}
    assert (team.ready.device, team.ready.batch) == ("judged", 7)
    assert team.ready.model == {"name": "judged", "question": setup.first.question}
    assert [check["name"] for check in team.ready.checks] == ["check of judged"]
    assert [result for _, result in team.do([Step("a"), Step("b")])] == ["A", "B"]
