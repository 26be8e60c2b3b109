"""Ray actors that share the work of a run; each holds a loaded model.

A unit goes to the next free worker. A worker that dies is replaced, and its unit is retried a limited number of times.
Only this process writes to the run folder.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safemed_eval.errors import RunError, UserError
from safemed_eval.runs.folder import differences
from safemed_eval.runs.provenance import code_sha256
from safemed_eval.runs.ray.actor import Actor
from safemed_eval.runs.ray.cluster import Places, connected, one_line, places

if TYPE_CHECKING:
    from safemed_eval.runs.workers import Ready, Setup, Store, Unit

Answer = Future[Any]
"""The pending answer of a worker."""
Tell = Callable[[str], None]
"""Shows a line to the user."""

TRIES = 3
"""Number of workers that may die on a unit, or while loading their model, before it is given up."""
HOPELESS = 3 * TRIES
"""Number of deaths in a row, without any result in between, that ends the run: the items are not the cause."""
AHEAD = 2
"""Units that a worker holds at a time, so that it need not wait for the next one."""
_POLL_S = 1.0
_PATIENCE_S = 60.0


@contextmanager
def crew(setup: Setup, store: Store, *, address: str, workers: int | None, tell: Tell) -> Iterator[Crew]:
    """Start the workers, and stop them at the end.

    Args:
        address: "local" starts Ray on this machine until the end; else the address of a cluster.
        workers: number of workers. Default: one per GPU, or without GPUs one for two cores.
    Raises:
        UserError: Ray cannot be started or joined, or no worker could load its model; the message is the first one's.
    """
    with connected(address) as ray:
        room = places(address, workers, setup.model.device, ray.cluster_resources())
        team = Crew(setup, store, room, tell)
        try:
            team.start()
            yield team
        finally:
            team.stop()


@dataclass(kw_only=True)
class _Worker:
    """The state of an actor in this process: being placed, loading, or ready."""

    actor: Any
    placing: Answer
    loading: Answer | None = None
    host: str = "an unknown node"
    away: bool = False
    """True if it is on another node than this process."""
    ready: Ready | None = None
    sent: deque[tuple[Unit, Answer]] = field(default_factory=deque)
    """Its units with their pending answers, in the order in which it does them."""
    forwards: int = 0
    falls: int = 0
    """Number of its predecessors that died before they were ready."""

    @property
    def head(self) -> Answer | None:
        """Its next pending answer; None: there is none."""
        if self.ready:
            return self.sent[0][1] if self.sent else None
        return self.placing if self.loading is None else self.loading

    def answer(self) -> Any:
        """Return its answer, or raise the error that Ray reports instead."""
        assert self.head is not None
        return self.head.result()


class Crew:
    """Does the units with several workers; see `workers.Team`."""

    def __init__(self, setup: Setup, store: Store, places: Places, tell: Tell) -> None:
        import ray

        self._ray, self._store, self._places, self._tell = ray, store, places, tell
        self._setup = _on(setup, "cuda" if places.gpu else "cpu", places.threads)
        self._class = ray.remote(Actor).options(**places.options)
        self._code = code_sha256()
        self._home = ray.get_runtime_context().get_node_id()
        self._identity: Mapping[str, object] | None = None
        self._workers: list[_Worker] = []
        self._lost_forwards = 0
        self._todo: deque[Unit] = deque()
        self._deaths: Counter[str] = Counter()
        self._in_a_row = 0
        self._first: Ready | None = None
        self._refusal: UserError | None = None
        self._heard, self._patience_s = time.monotonic(), _PATIENCE_S
        self.about: Mapping[str, object] = {"ray": places.address, "workers": places.workers, "threads": places.threads}

    @property
    def forwards(self) -> int:
        return self._lost_forwards + sum(worker.forwards for worker in self._workers)

    @property
    def note(self) -> str:
        count = sum(worker.ready is not None for worker in self._workers)
        return f"{count} worker{'s' if count != 1 else ''}"

    def start(self) -> None:
        """Start all workers, and wait for the first that is ready.

        Raises:
            UserError: none can be started; the message is that of the first to fail.
        """
        self._workers = [self._hired() for _ in range(self._places.workers)]
        while self._first is None:
            for worker in self._answering():
                self._rise(worker)

    def stop(self) -> None:
        """End all workers."""
        for worker in self._workers:
            self._dismiss(worker)
        self._workers = []

    def do(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, object]]:
        """Yield units and results; see `workers.Team`. A unit that TRIES workers died on is yielded as failed."""
        units = iter(units)
        while True:
            yield from self._hand_out(units)
            if not self._todo and not any(worker.sent for worker in self._workers):
                return
            for worker in self._answering():
                if worker.ready:
                    yield from self._take(worker)
                else:
                    self._rise(worker)

    def _hand_out(self, units: Iterator[Unit]) -> Iterator[tuple[Unit, object]]:
        """Give each worker a unit, then a second one to hold; the last units are held back for whoever is free first.

        Yields:
            Units that have been given up, as failed.
        """
        ready = [worker for worker in self._workers if worker.ready]
        for ahead in range(1, AHEAD + 1):
            for worker in ready:
                while len(worker.sent) < ahead:
                    while len(self._todo) <= len(self._workers) and (fresh := next(units, None)) is not None:
                        self._todo.append(fresh)
                    if not self._todo or (ahead > 1 and (len(self._todo) <= len(self._workers) or self._apart(worker))):
                        break
                    unit = self._todo.popleft()
                    if self._deaths[unit.name] >= TRIES:
                        yield unit, unit.failed(_DIED)
                    else:
                        worker.sent.append((unit, worker.actor.do.remote(unit).future()))

    def _apart(self, worker: _Worker) -> bool:
        """Return True if the next unit must not queue behind the worker's own, since a worker has died on one of them.

        The result of the first would be lost if the process died on the second before sending it.
        """
        return any(self._deaths[unit.name] for unit in (worker.sent[-1][0], self._todo[0]))

    def _answering(self) -> list[_Worker]:
        """Wait up to `_POLL_S` for answers, and return the workers that have one."""
        heads = {worker.head: worker for worker in self._workers if worker.head is not None}
        # Not `ray.wait`, which asks the node: if that is gone, it never returns, in spite of its timeout.
        wait(heads, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        # All that are done, so that a fast worker cannot starve the others.
        done = [head for head in heads if head.done()]
        if not done:
            self._refuse_lost_node()
        now = time.monotonic()
        if done or any(worker.loading is not None or worker.ready for worker in self._workers):
            self._heard = now
        elif now - self._heard > self._patience_s:
            self._heard, self._patience_s = now, 2 * self._patience_s
            free = self._ray.available_resources()
            self._tell(
                f"waiting for Ray ({self._places.address}) to place {len(self._workers)} workers: "
                f"{free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} cores are free"
            )
        return [heads[head] for head in done]

    def _refuse_lost_node(self) -> None:
        """Raise RunError if Ray's node on this machine is gone, since no worker can then be reached.

        If another node is gone, its workers have died and are replaced.
        """
        (home,) = [node for node in self._ray.nodes() if node["NodeID"] == self._home]
        if not home["Alive"]:
            why = home.get("DeathReasonMessage") or "it says no reason"
            raise RunError(
                f"--ray {self._places.address}: Ray's node on this machine is gone ({why}); was its raylet killed, or "
                "out of memory? What was done before is safe, the same command goes on"
            )

    def _rise(self, worker: _Worker) -> None:
        """Handle the answer of a worker that is being placed or is loading: it has succeeded, or failed."""
        ray = self._ray
        try:
            answer = worker.answer()
        except ray.exceptions.RayTaskError as error:
            return self._leave_out(worker, RunError(one_line(error.cause if error.cause else error)))
        except ray.exceptions.RayError as error:
            self._refuse_lost_node()
            if worker.falls + 1 < TRIES:
                return self._replace(worker, falls=worker.falls + 1)
            what = "starting" if worker.loading is None else "loading its model (try fewer --workers)"
            return self._leave_out(worker, RunError(f"a worker died {what}: {_cause(error)}"))
        if worker.loading is None:
            worker.host, node, code = answer
            worker.away = node != self._home
            if code != self._code:
                text = f"another version of safemed-eval is installed on {worker.host}; install the one from here"
                return self._leave_out(worker, RunError(text))
            loading = worker.actor.load.remote(self._setup, str(Path.cwd()), self._identity_for(worker))
            worker.loading = loading.future()
            return None
        ready, notes = answer
        for line in notes:
            self._tell(line)
        if isinstance(ready, UserError):
            return self._leave_out(worker, ready)
        if self._first and (unlike := differences(self._first.model, ready.model)):
            raise RunError(
                f"--ray {self._places.address}: workers are not alike, on {worker.host} {'; '.join(unlike)}; results "
                "of different devices do not mix: give Ray nodes of one kind"
            )
        worker.ready = ready
        self._first = self._first or ready
        return None

    @property
    def ready(self) -> Ready:
        """The report of the first worker that was ready."""
        assert self._first is not None
        return self._first

    def _identity_for(self, worker: _Worker) -> Mapping[str, object] | None:
        """Return the hashes that a worker on another machine compares its files with; None for one on this machine."""
        if not worker.away:
            return None
        if self._identity is None:
            self._identity = self._setup.identity
        return self._identity

    def _take(self, worker: _Worker) -> Iterator[tuple[Unit, object]]:
        """Handle a worker's answer to the first of its units: store its images, and yield the result."""
        ray = self._ray
        try:
            reply, notes = worker.answer()
        except ray.exceptions.RayTaskError:
            raise  # a bug, as it would be in this process
        except ray.exceptions.RayError as error:
            yield from self._bury(worker, error)
            return
        unit, _ = worker.sent.popleft()
        self._in_a_row = 0
        for line in notes:
            self._tell(line)
        if isinstance(reply, UserError):
            raise reply
        worker.forwards = reply.forwards
        for what in reply.kept:
            self._store(*what)
        yield unit, reply.result

    def _bury(self, worker: _Worker, error: Exception) -> Iterator[tuple[Unit, object]]:
        """Replace a worker that died on its first unit, and retry that one; the units behind it had not started."""
        self._refuse_lost_node()
        unit, _ = worker.sent.popleft()
        self._todo.extendleft(other for other, _ in reversed(worker.sent))
        worker.sent.clear()
        self._in_a_row += 1
        self._deaths[unit.name] += 1
        deaths = self._deaths[unit.name]
        self._tell(f"a worker on {worker.host} died on {unit.name}, the {_ordinal(deaths)} time: {_cause(error)}")
        if self._in_a_row >= HOPELESS:
            raise RunError(
                f"workers died {HOPELESS} times in a row and nothing was done in between, last on {unit.name}: "
                f"{_cause(error)}; what was done before is safe, the same command goes on"
            )
        self._replace(worker)
        if deaths >= TRIES:
            yield unit, unit.failed(_DIED)
            return
        # On the last try each item is a unit of its own, to find the one at fault.
        parts = unit.alone() if deaths == TRIES - 1 else ()
        for part in parts:
            self._deaths[part.name] = deaths
        self._todo.extendleft(reversed(parts or (unit,)))

    def _hired(self, falls: int = 0) -> _Worker:
        actor = self._class.remote()
        return _Worker(actor=actor, placing=actor.where.remote().future(), falls=falls)

    def _dismiss(self, worker: _Worker) -> None:
        self._lost_forwards += worker.forwards
        with suppress(Exception):
            self._ray.kill(worker.actor)

    def _replace(self, worker: _Worker, falls: int = 0) -> None:
        self._dismiss(worker)
        self._workers[self._workers.index(worker)] = self._hired(falls)

    def _leave_out(self, worker: _Worker, error: UserError) -> None:
        """Go on without a worker that cannot be used.

        Raises:
            UserError: no worker is left.
        """
        self._dismiss(worker)
        self._workers.remove(worker)
        if worker.away:
            error = type(error)(f"on {worker.host}, which needs the files of the run at the same paths: {error}")
        self._refusal = self._refusal or error
        if not self._workers:
            raise self._refusal
        self._tell(f"a worker is left out: {error}")


_DIED = f"the worker died {TRIES} times on this item"


def _on(setup: Setup, device: str, threads: int | None) -> Setup:
    """Adapt the setup to workers that see one GPU, or none."""
    surrogates = {name: loading.on(device, None) for name, loading in setup.surrogates.items()}
    return replace(setup, model=setup.model.on(device, threads), surrogates=surrogates)


def _cause(error: Exception) -> str:
    """Explain in a few words why a process is gone."""
    text = str(error)
    if "low on memory" in text or type(error).__name__ == "OutOfMemoryError":
        return "Ray ended it, memory ran low"
    if "never ran" in text or "creation task" in text:
        return text.strip().splitlines()[-1]
    return "its process is gone; was it killed, or out of memory?"


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
