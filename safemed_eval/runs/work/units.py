"""The units of work of `evaluate` and `certify`, and the joining of an item's parts into its record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from safemed_eval.attacks import Attack
from safemed_eval.core import BLANK, CIRCULAR, SHUFFLED, Item
from safemed_eval.errors import RunError
from safemed_eval.runs.record import CertifyRecord, EvaluateRecord
from safemed_eval.runs.tally import Outcome
from safemed_eval.runs.work import certify, evaluate
from safemed_eval.runs.work.answering import record
from safemed_eval.runs.work.certify import Certification, Counted, Purpose
from safemed_eval.runs.work.evaluate import Evaluation
from safemed_eval.runs.work.fit import Fitted
from safemed_eval.smoothing import (
    Budget,
    DonorVote,
    Exhaustive,
    Falsification,
    PatchSearch,
    Smoothing,
    Voting,
    read_votes,
)
from safemed_eval.smoothing.copies import CHUNK

PART = 2048
"""An item with more draws than this is divided into parts of about this size, for several workers."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Items that are answered together under one attack, or another condition.

    Args:
        missing: ids of the items whose records are to be written.
        voting: settings of the smoothed model; None: the model without noise.
        fitted: for an attack that is fitted, see `fit.fitted_for`.
    """

    condition: Attack | str
    items: Sequence[Item]
    missing: frozenset[str]
    voting: Voting | None = None
    fitted: Fitted | None = field(default=None, compare=False, repr=False)

    @property
    def passes(self) -> int | None:
        """See `meter.Weighed`."""
        total = 0
        for options in (len(item.question.options) for item in self.items):
            if not isinstance(self.condition, Attack):
                voted = self.voting.n if self.voting and self.condition in (SHUFFLED, BLANK) else 1
                total += options if self.condition == CIRCULAR else voted
                continue
            attack = self.condition.on_smoothed if self.voting else self.condition
            looks = attack.looks(options)
            if looks is None:
                return None
            # A successfully attacked row is answered once more, after rounding to 8 bits.
            total += looks * self.voting.m + self.voting.n if self.voting else looks + 1 + (looks > 0)
        return total

    @property
    def name(self) -> str:
        more = f" and {len(self.items) - 1} more items" if len(self.items) > 1 else ""
        return f"item {self.items[0].id}{more} under {self.condition}"

    def coming(self, work: Evaluation) -> None:
        work.expect(self.condition, self.items)

    def do(self, work: Evaluation) -> list[EvaluateRecord]:
        records = work.under(self.condition, self.items, self.fitted)
        return [record for record in records if record.item in self.missing]

    def alone(self) -> list[Group]:
        if len(self.items) == 1:
            return []
        wanted = [item for item in self.items if item.id in self.missing]
        return [replace(self, items=(item,), missing=frozenset({item.id})) for item in wanted]

    def failed(self, why: str) -> list[EvaluateRecord]:
        wanted = [item for item in self.items if item.id in self.missing]
        return [record(item, str(self.condition), error=why) for item in wanted]


def groups(
    items: Sequence[Item],
    asked: Sequence[Attack | str],
    size: int,
    done: Callable[[str, str], bool],
    voting: Voting | None = None,
    fitted: Mapping[str, Fitted] | None = None,
) -> Iterator[Group]:
    """Yield the units of an evaluation: groups of items under each condition in turn, where records are missing.

    Args:
        fitted: see `fit.fitted_for`.
    """
    for condition, group, missing in evaluate.groups(items, asked, size, done):
        made = (fitted or {}).get(str(condition))
        yield Group(condition=condition, items=group, missing=missing, voting=voting, fitted=made)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The unit of work that fits an attack; its result is `Fitted`."""

    attack: Attack

    @property
    def name(self) -> str:
        return f"the fit of {self.attack}"

    def coming(self, work: Evaluation) -> None:
        pass

    def do(self, work: Evaluation) -> Fitted:
        return work.fit(self.attack)

    def alone(self) -> list[Fit]:
        return []

    def failed(self, why: str) -> NoReturn:
        raise RunError(f"--attack {self.attack}: cannot be fitted: {why}")


@dataclass(frozen=True, kw_only=True)
class Planted:
    """The test of one attack on a region planted around the image of one item."""

    attack: Attack
    item: Item

    @property
    def name(self) -> str:
        return f"item {self.item.id} under {self.attack}, planted"

    def coming(self, work: Evaluation) -> None:
        work.expect(self.attack, [self.item])

    def do(self, work: Evaluation) -> Outcome:
        return work.planted(self.attack, self.item)

    def alone(self) -> list[Planted]:
        return []

    def failed(self, why: str) -> Outcome:
        return "failed"


@dataclass(frozen=True, kw_only=True)
class Whole:
    """The whole certificate of one item.

    Args:
        width: of the canvas; None where each image has its own.
    """

    item: Item
    smoothing: Budget
    falsify: Falsification | PatchSearch | None = None
    grounding: DonorVote | None = None
    width: int | None = None

    @property
    def name(self) -> str:
        return f"item {self.item.id}"

    @property
    def passes(self) -> int:
        """See `meter.Weighed`."""
        spec, falsify = self.smoothing, self.falsify
        if isinstance(spec, Exhaustive):
            assert self.width is not None
            bands, search = spec.draws(self.width), falsify if isinstance(falsify, PatchSearch) else None
            return bands * (2 + search.positions * (search.steps + 1) if search else 1)
        draws = spec.n0 + spec.n if isinstance(spec, Smoothing) else spec.n
        if self.grounding:
            draws += self.grounding.n
        if not isinstance(falsify, Falsification):
            return draws
        searches = sum(share > 0 for share in falsify.shares)
        return draws + searches * falsify.steps * falsify.m + len(falsify.shares) * falsify.n

    def coming(self, work: Certification) -> None:
        pass

    def do(self, work: Certification) -> CertifyRecord:
        return work.certify(self.item)

    def alone(self) -> list[Whole]:
        return []

    def failed(self, why: str) -> CertifyRecord:
        return certify.record(self.item, self.smoothing, None, error=why)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the draws for the certificate of one item."""

    item: Item
    smoothing: Smoothing
    purpose: Purpose
    first: int
    n: int

    @property
    def name(self) -> str:
        return f"item {self.item.id}"

    @property
    def passes(self) -> int:
        """See `meter.Weighed`."""
        return self.n

    def coming(self, work: Certification) -> None:
        pass

    def do(self, work: Certification) -> Counted:
        return work.count(self.item, self.purpose, self.first, self.n)

    def alone(self) -> list[Part]:
        return []

    def failed(self, why: str) -> Counted:
        return Counted(votes=None, error=why)


@dataclass(kw_only=True)
class Certificates:
    """Makes the units of a certification, and joins their results into records.

    Args:
        batch: batch size of the work. Parts are multiples of it, so that the batches, and with them the votes, are the
            same whether or not an item is divided.
        split: divide items with many draws into parts.
        falsify, grounding: settings of the attack on each certificate, and of the vote on other images; either of them
            rules out dividing. None: there is none.
        width: see `Whole`.
    """

    items: Sequence[Item]
    smoothing: Budget
    batch: int
    done: Callable[[str], bool]
    split: bool
    falsify: Falsification | PatchSearch | None = None
    grounding: DonorVote | None = None
    width: int | None = None
    _open: dict[str, list[tuple[Part, Counted]]] = field(default_factory=dict, init=False)
    _failed: set[str] = field(default_factory=set, init=False)

    @property
    def passes(self) -> int:
        """Forward passes of all missing items; see `meter.Weighed`."""
        return sum(self._whole(item).passes for item in self.items if not self.done(item.id))

    def units(self) -> Iterator[Whole | Part]:
        """Yield the units item by item; the remaining parts of a failed item are left out."""
        for item in self.items:
            if self.done(item.id):
                continue
            if not (spec := self._cut):
                yield self._whole(item)
                continue
            for purpose, first, n in self._parts(spec):
                if item.id not in self._failed:
                    yield Part(item=item, smoothing=spec, purpose=purpose, first=first, n=n)

    def records(self, results: Iterable[tuple[Any, Any]]) -> Iterator[list[CertifyRecord]]:
        """Yield, for each unit and result, the record that it completes, or nothing, as a list."""
        for unit, result in results:
            if isinstance(unit, Part):
                yield self._join(unit, result)
            else:
                yield [result]

    def _whole(self, item: Item) -> Whole:
        return Whole(
            item=item, smoothing=self.smoothing, falsify=self.falsify, grounding=self.grounding, width=self.width
        )

    @property
    def _cut(self) -> Smoothing | None:
        """The budget of items that are divided into parts; None if they are not, as with sequential draws."""
        spec = self.smoothing
        if self.falsify or self.grounding or not self.split or not isinstance(spec, Smoothing):
            return None
        return spec if spec.n0 + spec.n > PART else None

    def _parts(self, spec: Smoothing) -> Iterator[tuple[Purpose, int, int]]:
        step = math.lcm(self.batch, CHUNK)
        step *= math.ceil(PART / step)
        purposes: tuple[tuple[Purpose, int], ...] = (("select", spec.n0), ("estimate", spec.n))
        for purpose, draws in purposes:
            for first in range(0, draws, step):
                yield purpose, first, min(step, draws - first)

    def _join(self, part: Part, counted: Counted) -> list[CertifyRecord]:
        name = part.item.id
        if name in self._failed:
            return []
        if counted.error is not None:
            self._failed.add(name)
            counts = [count for _, count in self._open.pop(name, [])]
            return [self._record(part, [*counts, counted], error=counted.error)]
        done = self._open.setdefault(name, [])
        done.append((part, counted))
        if sum(other.n for other, _ in done) < part.smoothing.n0 + part.smoothing.n:
            return []
        del self._open[name]
        votes: dict[Purpose, tuple[int, ...]] = {}
        for other, count in done:
            assert count.votes is not None
            before = votes.get(other.purpose, (0,) * len(count.votes))
            votes[other.purpose] = tuple(a + b for a, b in zip(before, count.votes, strict=True))
        counts = [count for _, count in done]
        return [self._record(part, counts, votes=(votes["select"], votes["estimate"]))]

    def _record(
        self,
        part: Part,
        counts: Sequence[Counted],
        *,
        votes: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
        error: str | None = None,
    ) -> CertifyRecord:
        """Build the record of a divided item, with the sum of its parts' seconds and their smallest batch size."""
        view = counts[-1].view
        certificate = read_votes(*votes, part.smoothing, view) if votes else None
        return certify.record(
            part.item,
            part.smoothing,
            certificate,
            view=view,
            batch=min((count.batch for count in counts if count.batch is not None), default=None),
            seconds=sum(count.seconds for count in counts),
            error=error,
        )
