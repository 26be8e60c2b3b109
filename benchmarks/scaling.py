"""Ray workers compared with one process: `python benchmarks/scaling.py [ITEMS]`.

1. Throughput: certificates of builtin:sft in this process, by one worker and by two, one thread each, in turns.
2. Overhead of a unit: units with nothing to do.
3. Time with many workers: a simulation of `Crew`'s scheduling, with the costs measured in (1). It gives the time until
   the last unit is done, relative to a perfect division, with items whole and divided into parts.

The time in which workers start and load their model is printed, but not counted.
"""

from __future__ import annotations

import heapq
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from _common import machine, phantom, ratio
from transformers.utils import logging

from safemed_eval.core import Item
from safemed_eval.data import Canvas
from safemed_eval.models import Asking, Loading, Model, resolve
from safemed_eval.runs.ray.crew import AHEAD, crew
from safemed_eval.runs.record import CertifyRecord
from safemed_eval.runs.work.certify import Certification
from safemed_eval.runs.work.units import PART, Certificates
from safemed_eval.runs.workers import Alone, Loaded, Setup
from safemed_eval.seeds import seed_of
from safemed_eval.smoothing import Budget, Sequential, Smoothing

SIGMA, BATCH, REPEATS, EMPTY = 0.1, 16, 3, 5000
FIXED = Smoothing(sigma=SIGMA, n0=100, n=1000)
SEQUENTIAL = Sequential(sigma=SIGMA, radii={"0.5s": SIGMA / 2, "1s": SIGMA, "2s": 2 * SIGMA}, n=10_000)


def certification(loaded: Loaded, spec: Budget, canvas: Canvas) -> Certification:
    torch.set_num_threads(1)
    return Certification(model=loaded.model, canvas=canvas, smoothing=spec, seed=0, batch=BATCH)


def setup(items: Sequence[Item], canvas: Canvas, spec: Budget) -> Setup:
    assert canvas.size
    loading = Loading(
        model=Model(source=resolve("builtin:sft"), device="cpu", asking=Asking()),
        size=canvas.size,
        options=4,
        needs={},
    )
    return Setup(model=loading, make=partial(certification, spec=spec, canvas=canvas), first=items[0])


def work(team: Any, items: Sequence[Item], spec: Budget, *, split: bool) -> tuple[float, list[CertifyRecord]]:
    """Compute all records, and return the seconds and the records."""
    asked = Certificates(items=items, smoothing=spec, batch=BATCH, done=lambda item: False, split=split)
    started = time.perf_counter()
    records = [record for completed in asked.records(team.do(asked.units())) for record in completed]
    return time.perf_counter() - started, records


@dataclass(frozen=True)
class Empty:
    """A unit with nothing to do."""

    item: Item

    name = "empty"

    def coming(self, work: Any) -> None:
        pass

    def do(self, work: Any) -> str:
        return "x" * 1000

    def alone(self) -> Sequence[Any]:
        return ()

    def failed(self, why: str) -> str:
        return why


def throughput(items: Sequence[Item], canvas: Canvas) -> None:
    print(f"certify builtin:sft, {len(items)} items, n0 {FIXED.n0}, n {FIXED.n}, batch {BATCH}, one thread each")
    made = setup(items, canvas, FIXED)
    alone = Alone(made, print)
    seconds: dict[int, list[float]] = {0: [], 1: [], 2: []}
    votes: list[Any] = []
    for _ in range(REPEATS):
        for workers, taken in seconds.items():
            if workers:
                began = time.perf_counter()
                with crew(made, print, address="local", workers=workers, tell=print) as team:
                    while team.note != f"{workers} worker{'s' * (workers > 1)}":
                        list(team.do(Empty(items[0]) for _ in range(9)))
                    print(f"  {workers} worker(s) up after {time.perf_counter() - began:.1f} s")
                    once, records = work(team, items, FIXED, split=True)
            else:
                once, records = work(alone, items, FIXED, split=False)
            taken.append(once)
            votes.append(sorted((record.item, record.votes) for record in records))
    assert all(other == votes[0] for other in votes), "votes differ"
    for workers, taken in seconds.items():
        who = f"{workers} worker(s)" if workers else "this process"
        rate = len(items) * (FIXED.n0 + FIXED.n) / float(np.median(taken))
        print(f"  {who:12} {rate:7.1f} samples/s, {ratio(seconds[1], taken):.2f} x one worker")


def overhead(items: Sequence[Item], canvas: Canvas) -> None:
    with crew(setup(items, canvas, FIXED), print, address="local", workers=2, tell=print) as team:
        list(team.do(Empty(items[0]) for _ in range(EMPTY // 10)))
        began = time.perf_counter()
        done = sum(1 for _ in team.do(Empty(items[i % len(items)]) for i in range(EMPTY)))
        print(f"{EMPTY} empty units: {1000 * (time.perf_counter() - began) / done:.2f} ms a unit")


def makespan(costs: Iterable[float], workers: int) -> float:
    """Simulate the time at which the last unit is done, with units handed out as `Crew` does."""
    left, todo = iter(costs), deque[float]()
    queues: list[deque[float]] = [deque() for _ in range(workers)]
    busy: list[tuple[float, int]] = []
    now = 0.0

    def give(to: int) -> None:
        queues[to].append(todo.popleft())
        if len(queues[to]) == 1:
            heapq.heappush(busy, (now + queues[to][0], to))

    while True:
        for ahead in range(1, AHEAD + 1):
            for worker, queue in enumerate(queues):
                while len(queue) < ahead:
                    while len(todo) <= workers and (fresh := next(left, None)) is not None:
                        todo.append(fresh)
                    if not todo or (ahead > 1 and len(todo) <= workers):
                        break
                    give(worker)
        if not busy:
            return now
        now, worker = heapq.heappop(busy)
        queues[worker].popleft()
        if queues[worker]:
            heapq.heappush(busy, (now + queues[worker][0], worker))


def parts(cost: float, draws: int) -> list[float]:
    """Divide an item's cost as `Certificates` divides its draws."""
    whole, rest = divmod(draws, PART)
    return [cost * part / draws for part in [*[PART] * whole, *[rest] * bool(rest)]]


def simulate(name: str, costs: Sequence[float], draws: int | None) -> None:
    """Print simulated times relative to a perfect division; `draws` of each item, if it can be divided."""
    for workers in (8, 64):
        ideal = math.fsum(costs) / workers
        cells = [f"whole {makespan(costs, workers) / ideal:.3f}"]
        if draws:
            cut = [part for cost in costs for part in parts(cost, draws)]
            cells.append(f"in parts {makespan(cut, workers) / ideal:.3f}")
        print(f"  {name}, {len(costs):,} items, {workers} workers: {', '.join(cells)} x ideal")


def scaled(measured: Sequence[float], items: int, factor: float = 1.0) -> list[float]:
    """Draw the costs of more items from the measured ones."""
    rng = np.random.default_rng(seed_of("scaling", items))
    return [factor * float(cost) for cost in rng.choice(measured, items)]


def main(count: int) -> None:
    print(machine())
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    items, canvas = phantom(count)
    throughput(items, canvas)
    overhead(items, canvas)
    seconds: Callable[[Budget], list[float]] = lambda spec: [  # noqa: E731
        record.seconds for record in work(Alone(setup(items, canvas, spec), print), items, spec, split=False)[1]
    ]
    fixed, sequential = seconds(FIXED), seconds(SEQUENTIAL)
    spread = ", ".join(f"{np.quantile(sequential, q):.2f}" for q in (0, 0.5, 0.9, 1))
    print(f"measured: fixed {np.mean(fixed):.2f} s an item; sequential {spread} s (least, median, 90 %, most)")
    simulate("fixed, n 1,000", scaled(fixed, 1000), None)
    more = 100_100 / (FIXED.n0 + FIXED.n)
    simulate("fixed, n 100,000", scaled(fixed, 100, more), 100_100)
    simulate("fixed, n 100,000", scaled(fixed, 1000, more), 100_100)
    simulate("sequential, n at most 10,000", scaled(sequential, 1000), None)
    simulate("sequential, n at most 10,000", scaled(sequential, 10_000), None)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
