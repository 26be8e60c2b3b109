"""Cost estimate of a run, from timing a few items within a fixed time budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from scipy import stats as sps

from safemed_eval.attacks import Attack
from safemed_eval.core import Item
from safemed_eval.data import Canvas, canvas_of, region_of
from safemed_eval.errors import SafemedError
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Budget, Exhaustive, Ladder, Noise, Patch, Sequential, Smoothing
from safemed_eval.smoothing.bands import banded_copies
from safemed_eval.smoothing.certify import certify_gold, count_votes, view_of

BUDGET_S = 30.0
"""Time budget of all timings together; a timing exceeds it by one call of the model at most."""
_SECONDS = 1.0
"""A timing of noisy copies lasts at least this long, if the budget allows."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The estimated cost of one kind of certificate, or of one attack.

    Attributes:
        what: the sampling, or the attack.
        each: model calls per item: noisy copies of `certify`, forward passes of an attack. None: not timed.
        spread: half-width of a 95 % interval of `each`, from the pilot's items; 0 if `each` is fixed, None: unknown.
        seconds: seconds per item on one device; None: not timed.
        items: number of items of the run.
        timed: what was timed, in words.
        at_least: True if time ran out within the first item; `each` and `seconds` are then what it had taken so far.
    """

    what: str
    each: float | None
    spread: float | None
    seconds: float | None
    items: int
    timed: str
    at_least: bool = False

    @property
    def calls(self) -> int | None:
        """Model calls of all items."""
        return None if self.each is None else math.ceil(self.each * self.items)

    def hours(self, devices: int) -> float | None:
        """Wall-clock hours of all items, divided evenly among the devices."""
        return None if self.seconds is None else self.seconds * self.items / devices / 3600


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The measured time of drawing and answering noisy copies.

    Attributes:
        rows: batch size.
    """

    copies: int
    seconds: float
    rows: int


class _TimeUpError(SafemedError):
    """A timing has used up its time."""


class _Watched:
    """A scorer that calls `look` before each model call."""

    def __init__(self, scorer: Any, look: Callable[[], None]) -> None:
        self._scorer, self._look = scorer, look

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._scorer, name)
        if name not in ("scores", "vote", "write"):
            return method

        def call(*given: Any) -> Any:
            self._look()
            return method(*given)

        return call


class Pilot:
    """Times a few items on a loaded model.

    Args:
        pilot: the items to time.
        items: number of items of the run.
        batch: batch size.
        clock: returns seconds since an arbitrary time.
        budget_s: time budget of all timings together, in seconds.

    Attributes:
        stopped: True once Ctrl-C has ended the timings.
        now: what is being timed, for a progress bar.
    """

    def __init__(
        self,
        model: Waist,
        pilot: Sequence[Item],
        canvas: Canvas,
        *,
        items: int,
        batch: int,
        seed: int,
        clock: Callable[[], float] = time.perf_counter,
        budget_s: float = BUDGET_S,
    ) -> None:
        self.model = Waist(_Watched(model.scorer, self._look), model.device, model.denoiser)
        self.pilot, self.items, self.batch, self.seed = pilot, items, batch, seed
        self.canvases = [canvas_of(item, canvas).to(model.device) for item in pilot]
        self.stopped, self.now = False, ""
        self._canvas = canvas
        self._clock, self._began, self._budget = clock, clock(), budget_s
        self._until = math.inf

    @property
    def share(self) -> float:
        """Share of the time budget that is used up, in [0, 1]."""
        return min(1.0, (self._clock() - self._began) / self._budget)

    def costs(self, asked: Sequence[Budget | Attack]) -> Iterator[Cost]:
        """Yield the cost of each in turn. The remaining time is divided evenly; after Ctrl-C nothing more is timed.

        Args:
            asked: fixed sampling stands before sequential sampling, which then has its rate of copies.
        """
        left, rate = len(asked), None
        for spec in asked:
            now = self._clock()
            self._until = now + max(0.0, self._began + self._budget - now) / left
            if self.stopped:
                self._until = -math.inf
            left -= 1
            if isinstance(spec, Smoothing):
                rate = self.copies(spec.kind)
                yield self.fixed(spec, rate)
            elif isinstance(spec, Sequential):
                yield self.sequential(spec, rate)
            elif isinstance(spec, Exhaustive):
                yield self.exhaustive(spec, self.copies(spec.kind))
            else:
                yield self.attack(spec)

    def copies(self, noise: Noise | Patch) -> Rate | None:
        """Measure the rate of copies, after a first one to warm up; None if Ctrl-C came before that was done.

        The batch is made smaller where a full one would take too long.
        """
        vote, canvas = self.model.vote(self.pilot[0].question), self.canvases[0]
        streams = partial(generator, self.model.device, self.seed, "plan")
        measured: Rate | None = None

        def count(n: int, rows: int) -> Rate:
            nonlocal measured
            self.now = f"copies, {n} more"
            began = self._clock()
            if isinstance(noise, Patch):
                starts = list(islice(cycle(noise.starts(canvas.shape[2])), n))
                vote.count(banded_copies(canvas, starts, noise.band, self.model.fill, rows))
            else:
                count_votes(vote, canvas, noise, n, batch=rows, streams=streams)
            measured = Rate(copies=n, seconds=max(self._clock() - began, 1e-9), rows=rows)
            return measured

        with self._while_there_is_time(), torch.no_grad():
            until, self._until = self._until, math.inf
            first = count(1, 1)  # one copy is always timed
            self._until = until
            if self._left > first.seconds:
                first = count(1, 1)
            rows = max(1, int(min(self.batch, self._left / first.seconds / 2)))
            draws, latest = rows, count(rows, rows) if rows > 1 else first
            while draws * latest.seconds / latest.copies <= self._left:
                latest = count(draws, rows)
                if latest.seconds > _SECONDS:
                    break
                draws *= max(2, math.ceil(_SECONDS / latest.seconds))
        return measured

    def fixed(self, spec: Smoothing, rate: Rate | None) -> Cost:
        """Estimate the cost of fixed sampling: n0 + n copies per item."""
        each = spec.n0 + spec.n
        return Cost(
            what=f"fixed, n0 {spec.n0}, n {spec.n:,}",
            each=each,
            spread=0,
            seconds=_seconds(each, rate),
            items=self.items,
            timed=self._copies_timed(rate),
        )

    def exhaustive(self, spec: Exhaustive, rate: Rate | None) -> Cost:
        """Estimate the cost of certificates against patches: one copy per band and item."""
        each = spec.draws(self.canvases[0].shape[2])
        return Cost(
            what=f"exhaustive, {spec.noise}",
            each=each,
            spread=0,
            seconds=_seconds(each, rate),
            items=self.items,
            timed=self._copies_timed(rate),
        )

    def sequential(self, spec: Sequential, rate: Rate | None) -> Cost:
        """Estimate the cost of sequential sampling: the pilot's mean number of copies, rounded up to whole batches.

        If time runs out within an item, its copies are added to those of the items before it: the estimate is then all
        copies divided by the number of decided items, which is unbiased if every copy is equally likely to decide.
        """
        ladder, drawn = Ladder(spec, view_of(self.canvases[0])), list[int]()
        rows = rate.rows if rate else 1
        before = self.model.forwards
        with self._while_there_is_time():
            for number, (item, canvas) in enumerate(zip(self.pilot, self.canvases, strict=True), start=1):
                self.now = f"sequential, item {number} of {len(self.pilot)}"
                rng = partial(generator, self.model.device, self.seed, "certify", item.id)
                before = self.model.forwards
                vote = self.model.vote(item.question)
                certificate = certify_gold(vote, canvas, ladder, gold=item.label, rng=rng, batch=rows)
                drawn.append(min(math.ceil(certificate.stopped_at / self.batch) * self.batch, spec.n))
        cut = self.model.forwards - before if len(drawn) < len(self.pilot) else 0
        whole, timed = len(drawn), self._items_timed(len(drawn))
        each = min((sum(drawn) + cut) / max(1, whole), spec.n) if drawn or cut else None
        spread = None
        if whole > 1 and not cut:
            spread = float(sps.t.isf(0.025, whole - 1) * np.std(drawn, ddof=1) / whole**0.5)
        return Cost(
            what=f"sequential, n at most {spec.n:,}",
            each=each,
            spread=spread,
            seconds=_seconds(each, rate),
            items=self.items,
            timed=f"{timed}, and {cut} copies of one that was cut off" if cut and drawn else timed,
            at_least=bool(cut) and not drawn,
        )

    def attack(self, attack: Attack) -> Cost:
        """Time the pilot's items under one attack; early stopping makes it cheaper, as it does in the run.

        The first item is timed alone. The others follow together, as many as fit into the remaining time.
        """
        rows, done, calls, each, seconds = 1, 0, 0, None, None
        began, before = self._clock(), self.model.forwards
        with self._while_there_is_time():
            while rows and done < len(self.pilot):
                self.now = f"{attack}, {done + rows} of {len(self.pilot)} items"
                began, before = self._clock(), self.model.forwards
                self._under(attack, slice(done, done + rows))
                taken, passes = self._clock() - began, self.model.forwards - before
                done, calls = done + rows, calls + passes
                each = calls / done
                seconds = each * taken / passes if passes else taken / rows
                rows = int(min(len(self.pilot) - done, self._left * rows / max(taken, 1e-9)))
        cut = self.model.forwards - before if not done else 0
        if cut:
            each, seconds = cut, self._clock() - began
        return Cost(
            what=str(attack),
            each=each,
            spread=None,
            seconds=seconds,
            items=self.items,
            timed=self._items_timed(done),
            at_least=bool(cut),
        )

    def _under(self, attack: Attack, some: slice) -> None:
        """Attack some items; those for which the attack is unavailable take no time, as in the run."""
        rows = [row for row in range(len(self.pilot))[some] if not attack.unavailable(self.pilot[row])]
        if not rows:
            return
        items, device = [self.pilot[row] for row in rows], self.model.device
        questions = [item.question for item in items]
        classify = self.model.classify(questions, at_once=self.batch)
        streams = [generator(device, self.seed, "attack", attack.stream, item.id) for item in items]
        labels = torch.tensor([item.label for item in items], device=device)
        clean, region = [self.canvases[row] for row in rows], None
        if attack.region:
            pairs = zip(clean, items, strict=True)
            region = torch.stack([region_of(attack.region, row, item, self._canvas) for row, item in pairs])
        attack(
            classify,
            torch.stack(clean),
            labels,
            streams,
            region=region,
            questions=questions,
            modalities=[item.modality for item in items],
        )

    @property
    def _left(self) -> float:
        """Seconds left for the current timing."""
        return self._until - self._clock()

    def _look(self) -> None:
        """Raise _TimeUpError when the current timing has used up its time."""
        if self._left <= 0:
            raise _TimeUpError

    @contextmanager
    def _while_there_is_time(self) -> Iterator[None]:
        """End the current timing when its time is up; Ctrl-C also ends all those after it."""
        try:
            yield
        except _TimeUpError:
            pass
        except KeyboardInterrupt:
            self.stopped = True

    def _copies_timed(self, rate: Rate | None) -> str:
        if rate is None:
            return "no copy: stopped"
        fewer = f", {rate.rows} together, for lack of time" if rate.rows < self.batch else ""
        return f"{rate.copies:,} {'copy' if rate.copies == 1 else 'copies'}{fewer}"

    def _items_timed(self, done: int) -> str:
        if done:
            return f"{done} of {len(self.pilot)} items"
        return f"no item: {'stopped' if self.stopped else 'the time was up'} before the first was done"


def _seconds(each: float | None, rate: Rate | None) -> float | None:
    return None if each is None or rate is None else each * rate.seconds / rate.copies
