"""What a run will cost, from a few items that are timed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import stats as sps

from safemed_eval.attacks import Attack
from safemed_eval.core import Item
from safemed_eval.data import Canvas, canvas_of
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Ladder, Sequential, Smoothing
from safemed_eval.smoothing.certify import certify_gold, count_votes

_SECONDS = 1.0
"""A timing lasts at least so long."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of all items together.

    Attributes:
        what: the sampling, or the attack.
        each: model calls an item: noisy copies of `certify`, forward passes of an attack.
        spread: half a 95 % interval of `each`, from the spread of the pilot's items; 0 where it is fixed, None unknown.
        seconds: an item takes on one device.
    """

    what: str
    each: float
    spread: float | None
    seconds: float
    items: int

    @property
    def calls(self) -> int:
        return math.ceil(self.each * self.items)

    def hours(self, devices: int) -> float:
        """By the clock, if the items share out evenly."""
        return self.seconds * self.items / devices / 3600


class Pilot:
    """A few items, timed on a loaded model.

    Args:
        pilot: these items.
        items: how many the run has.
        batch: rows that go through the model together.
    """

    def __init__(
        self, model: Waist, pilot: Sequence[Item], canvas: Canvas, *, items: int, batch: int, seed: int
    ) -> None:
        self.model, self.pilot, self.items, self.batch, self.seed = model, pilot, items, batch, seed
        self.canvases = [canvas_of(item, canvas).to(model.device) for item in pilot]

    def copies_per_second(self, sigma: float) -> float:
        """Noisy copies that are drawn and answered, after a first batch that warms up."""
        vote, canvas = self.model.vote(self.pilot[0].question), self.canvases[0]
        streams = partial(generator, self.model.device, self.seed, "plan")
        count = partial(count_votes, vote, canvas, sigma, batch=self.batch, streams=streams)
        with torch.no_grad():
            count(n=self.batch)
            draws, began = self.batch, time.perf_counter()
            while True:
                count(n=draws)
                seconds = time.perf_counter() - began
                if seconds > _SECONDS:
                    return draws / seconds
                draws, began = draws * max(2, math.ceil(_SECONDS / seconds)), time.perf_counter()

    def fixed(self, spec: Smoothing, rate: float) -> Cost:
        """n0 + n copies an item."""
        each = spec.n0 + spec.n
        return Cost(
            what=f"fixed, n0 {spec.n0}, n {spec.n:,}", each=each, spread=0, seconds=each / rate, items=self.items
        )

    def sequential(self, spec: Sequential, rate: float) -> Cost:
        """As many copies as the pilot's items took on average; what is left of a last batch is computed, too."""
        ladder, drawn = Ladder(spec), []
        for item, canvas in zip(self.pilot, self.canvases, strict=True):
            rng = partial(generator, self.model.device, self.seed, "certify", item.id)
            vote = self.model.vote(item.question)
            found = certify_gold(vote, canvas, ladder, gold=item.label, rng=rng, batch=self.batch)
            drawn.append(min(math.ceil(found.stopped_at / self.batch) * self.batch, spec.n))
        each = float(np.mean(drawn))
        few = len(drawn) < 2
        spread = None if few else float(sps.t.isf(0.025, len(drawn) - 1) * np.std(drawn, ddof=1) / len(drawn) ** 0.5)
        return Cost(
            what=f"sequential, n at most {spec.n:,}", each=each, spread=spread, seconds=each / rate, items=self.items
        )

    def attack(self, attack: Attack) -> Cost:
        """The pilot's items under one attack; those that end early make it cheaper, here as in the run."""
        questions, labels = [item.question for item in self.pilot], [item.label for item in self.pilot]
        classify = self.model.classify(questions, at_once=self.batch)
        streams = [generator(self.model.device, self.seed, "attack", attack.stream, item.id) for item in self.pilot]
        before, began = self.model.forwards, time.perf_counter()
        attack(classify, torch.stack(self.canvases), torch.tensor(labels, device=self.model.device), streams)
        rows = len(self.pilot)
        seconds, calls = (time.perf_counter() - began) / rows, (self.model.forwards - before) / rows
        return Cost(what=str(attack), each=calls, spread=None, seconds=seconds, items=self.items)
