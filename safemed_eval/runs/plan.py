"""What a run will cost, from a few items that are timed, within a time of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import stats as sps

from safemed_eval.attacks import Attack
from safemed_eval.core import Item
from safemed_eval.data import Canvas, canvas_of
from safemed_eval.errors import SafemedError
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Ladder, Noise, Sequential, Smoothing
from safemed_eval.smoothing.certify import certify_gold, count_votes

BUDGET_S = 30.0
"""All timings together last about so long: none is begun later, and one goes on for one call of the model at most."""
_SECONDS = 1.0
"""A timing of copies lasts at least so long, if there is time."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of all items together.

    Attributes:
        what: the sampling, or the attack.
        each: model calls an item: noisy copies of `certify`, forward passes of an attack. None: not timed.
        spread: half a 95 % interval of `each`, from the spread of the pilot's items; 0 where it is fixed, None unknown.
        seconds: an item takes on one device; None: not timed.
        timed: what these are from, in words.
        at_least: whether the first item was not done in time: then `each` and `seconds` are what it had taken by then.
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
        return None if self.each is None else math.ceil(self.each * self.items)

    def hours(self, devices: int) -> float | None:
        """By the clock, if the items share out evenly."""
        return None if self.seconds is None else self.seconds * self.items / devices / 3600


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast noisy copies are drawn and answered.

    Attributes:
        rows: copies that went through the model together.
    """

    copies: int
    seconds: float
    rows: int


class _TimeUpError(SafemedError):
    """A stage has used its time."""


class _Watched:
    """A scorer that asks before each call whether there is time for it."""

    def __init__(self, scorer: Any, look: Callable[[], None]) -> None:
        self._scorer, self._look = scorer, look

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._scorer, name)
        if name not in ("scores", "vote", "write"):
            return found

        def call(*given: Any) -> Any:
            self._look()
            return found(*given)

        return call


class Pilot:
    """A few items, timed on a loaded model.

    Args:
        pilot: these items.
        items: how many the run has.
        batch: rows that go through the model together.
        clock: seconds, from anywhere.
        budget_s: how long all timings together may last.

    Attributes:
        stopped: whether Ctrl-C ended the timings.
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
        self._clock, self._began, self._budget = clock, clock(), budget_s
        self._until = math.inf

    @property
    def share(self) -> float:
        """Of the time that is used up, in [0, 1]."""
        return min(1.0, (self._clock() - self._began) / self._budget)

    def costs(
        self, fixed: Smoothing | None, sequential: Sequential | None, attacks: Sequence[Attack]
    ) -> Iterator[Cost]:
        """Of each in turn; each gets an even part of the time that is left. After Ctrl-C nothing more is timed."""
        left, rate = bool(fixed) + bool(sequential) + len(attacks), None
        for spec in (one for one in (fixed, sequential, *attacks) if one is not None):
            now = self._clock()
            self._until = now + max(0.0, self._began + self._budget - now) / left
            if self.stopped:
                self._until = -math.inf
            left -= 1
            if isinstance(spec, Smoothing):
                rate = self.copies(spec.noise)
                yield self.fixed(spec, rate)
            elif isinstance(spec, Sequential):
                yield self.sequential(spec, rate)
            else:
                yield self.attack(spec)

    def copies(self, noise: Noise) -> Rate | None:
        """The rate of noisy copies, after a first one that warms up; None where Ctrl-C came before the first was done.

        Fewer rows than a batch go through the model together where a batch would take too long.
        """
        vote, canvas = self.model.vote(self.pilot[0].question), self.canvases[0]
        streams = partial(generator, self.model.device, self.seed, "plan")
        found: Rate | None = None

        def count(n: int, rows: int) -> Rate:
            nonlocal found
            self.now = f"noisy copies, {n} more"
            began = self._clock()
            count_votes(vote, canvas, noise, n, batch=rows, streams=streams)
            found = Rate(copies=n, seconds=max(self._clock() - began, 1e-9), rows=rows)
            return found

        with self._while_there_is_time(), torch.no_grad():
            until, self._until = self._until, math.inf
            first = count(1, 1)  # one there must be
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
        return found

    def fixed(self, spec: Smoothing, rate: Rate | None) -> Cost:
        """n0 + n copies an item."""
        each = spec.n0 + spec.n
        return Cost(
            what=f"fixed, n0 {spec.n0}, n {spec.n:,}",
            each=each,
            spread=0,
            seconds=_seconds(each, rate),
            items=self.items,
            timed=self._copies_timed(rate),
        )

    def sequential(self, spec: Sequential, rate: Rate | None) -> Cost:
        """As many copies as the pilot's items took on average; what is left of a last batch is computed, too.

        Where the time is up within an item, its copies are counted with those of the items before: the estimate is then
        all copies over the items that were decided, which is right where each further copy is as likely to decide.
        """
        ladder, drawn = Ladder(spec), list[int]()
        rows = rate.rows if rate else 1
        before = self.model.forwards
        with self._while_there_is_time():
            for number, (item, canvas) in enumerate(zip(self.pilot, self.canvases, strict=True), start=1):
                self.now = f"sequential, item {number} of {len(self.pilot)}"
                rng = partial(generator, self.model.device, self.seed, "certify", item.id)
                before = self.model.forwards
                found = certify_gold(
                    self.model.vote(item.question), canvas, ladder, gold=item.label, rng=rng, batch=rows
                )
                drawn.append(min(math.ceil(found.stopped_at / self.batch) * self.batch, spec.n))
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
        """The pilot's items under one attack; those that end early make it cheaper, here as in the run.

        One item goes first, and the others together, as many as will fit into the time by what the first one took.
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
        items, device = self.pilot[some], self.model.device
        classify = self.model.classify([item.question for item in items], at_once=self.batch)
        streams = [generator(device, self.seed, "attack", attack.stream, item.id) for item in items]
        labels = torch.tensor([item.label for item in items], device=device)
        attack(classify, torch.stack(self.canvases[some]), labels, streams)

    @property
    def _left(self) -> float:
        """Seconds of this stage."""
        return self._until - self._clock()

    def _look(self) -> None:
        if self._left <= 0:
            raise _TimeUpError

    @contextmanager
    def _while_there_is_time(self) -> Iterator[None]:
        """Ctrl-C ends a stage as its time does, and all that come after it."""
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
