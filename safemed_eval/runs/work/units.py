"""The units of work of `evaluate` and `certify`, and how parts of one item become its record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from safemed_eval.attacks import Attack
from safemed_eval.core import CIRCULAR, Item
from safemed_eval.runs.record import CertifyRecord, EvaluateRecord
from safemed_eval.runs.work import certify, evaluate
from safemed_eval.runs.work.certify import Certification, Counted, Purpose
from safemed_eval.runs.work.evaluate import Evaluation
from safemed_eval.smoothing import Budget, Falsification, Smoothing, Voting, read_votes
from safemed_eval.smoothing.noise import CHUNK

PART = 2048
"""An item with more draws than this is cut into parts of about so many, for several workers to count."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Items that are answered together under one attack, or under OFFICIAL or CIRCULAR.

    Args:
        missing: ids of the items whose records are wanted.
        voting: how the smoothed model answers; None: the model without noise.
    """

    condition: Attack | str
    items: Sequence[Item]
    missing: frozenset[str]
    voting: Voting | None = None

    @property
    def passes(self) -> int | None:
        """See `meter.Weighed`."""
        found = 0
        for options in (len(item.question.options) for item in self.items):
            if not isinstance(self.condition, Attack):
                found += options if self.condition == CIRCULAR else 1
                continue
            attack = self.condition.on_smoothed if self.voting else self.condition
            looks = attack.looks(options)
            if looks is None:
                return None
            # What a search made err is answered once more, on 8-bit grey levels.
            found += looks * self.voting.m + self.voting.n if self.voting else looks + 1 + (looks > 0)
        return found

    @property
    def name(self) -> str:
        more = f" and {len(self.items) - 1} more items" if len(self.items) > 1 else ""
        return f"item {self.items[0].id}{more} under {self.condition}"

    def coming(self, work: Evaluation) -> None:
        work.expect(self.items)

    def do(self, work: Evaluation) -> list[EvaluateRecord]:
        return [one for one in work.under(self.condition, self.items) if one.item in self.missing]

    def alone(self) -> list[Group]:
        if len(self.items) == 1:
            return []
        wanted = [item for item in self.items if item.id in self.missing]
        return [replace(self, items=(item,), missing=frozenset({item.id})) for item in wanted]

    def failed(self, why: str) -> list[EvaluateRecord]:
        wanted = [item for item in self.items if item.id in self.missing]
        return [evaluate.record(item, str(self.condition), error=why) for item in wanted]


def groups(
    items: Sequence[Item],
    asked: Sequence[Attack | str],
    size: int,
    done: Callable[[str, str], bool],
    voting: Voting | None = None,
) -> Iterator[Group]:
    """The units of an evaluation: groups of items under each condition in turn, as far as records are missing."""
    for condition, group, missing in evaluate.groups(items, asked, size, done):
        yield Group(condition=condition, items=group, missing=missing, voting=voting)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """All that there is to do for the certificate of one item."""

    item: Item
    smoothing: Budget
    falsify: Falsification | None = None

    @property
    def name(self) -> str:
        return f"item {self.item.id}"

    @property
    def passes(self) -> int:
        """See `meter.Weighed`."""
        spec, attacked = self.smoothing, self.falsify
        draws = spec.n0 + spec.n if isinstance(spec, Smoothing) else spec.n
        if not attacked:
            return draws
        searched = sum(share > 0 for share in attacked.shares)
        return draws + searched * (attacked.steps + 1) * attacked.m + len(attacked.shares) * attacked.n

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
    """Some draws of one item."""

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
    """The units of a certification, and the records that come of them.

    Args:
        batch: that of the work; parts are multiples of it, so that the same copies go through the model together
            whether or not an item is cut, and the same votes come out.
        split: cut items with many draws into parts.
        falsify: how items are attacked after they are certified, which are not cut then; None: they are not attacked.
    """

    items: Sequence[Item]
    smoothing: Budget
    batch: int
    done: Callable[[str], bool]
    split: bool
    falsify: Falsification | None = None
    _open: dict[str, list[tuple[Part, Counted]]] = field(default_factory=dict, init=False)
    _failed: set[str] = field(default_factory=set, init=False)

    @property
    def passes(self) -> int:
        """Of all that there is to do; see `meter.Weighed`."""
        return sum(self._whole(item).passes for item in self.items if not self.done(item.id))

    def units(self) -> Iterator[Whole | Part]:
        """What there is to do, item by item; the parts of an item that has failed are left out."""
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
        """From the units and what came of them to the records that are complete: one, or none."""
        for unit, result in results:
            if isinstance(unit, Part):
                yield self._join(unit, result)
            else:
                yield [result]

    def _whole(self, item: Item) -> Whole:
        return Whole(item=item, smoothing=self.smoothing, falsify=self.falsify)

    @property
    def _cut(self) -> Smoothing | None:
        """What is asked of items that are cut into parts; None where they go whole, as sequential draws must."""
        spec = self.smoothing
        if self.falsify or not self.split or not isinstance(spec, Smoothing):
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
            found = [one for _, one in self._open.pop(name, [])] + [counted]
            return [self._record(part, found, error=counted.error)]
        there = self._open.setdefault(name, [])
        there.append((part, counted))
        if sum(one.n for one, _ in there) < part.smoothing.n0 + part.smoothing.n:
            return []
        del self._open[name]
        votes: dict[Purpose, tuple[int, ...]] = {}
        for one, count in there:
            assert count.votes is not None
            before = votes.get(one.purpose, (0,) * len(count.votes))
            votes[one.purpose] = tuple(a + b for a, b in zip(before, count.votes, strict=True))
        counts = [count for _, count in there]
        return [self._record(part, counts, votes=(votes["select"], votes["estimate"]))]

    def _record(
        self,
        part: Part,
        counts: Sequence[Counted],
        *,
        votes: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
        error: str | None = None,
    ) -> CertifyRecord:
        """`seconds` are those of all parts together, `batch` is the smallest that one of them ended with."""
        found = read_votes(*votes, part.smoothing) if votes else None
        return certify.record(
            part.item,
            part.smoothing,
            found,
            batch=min((one.batch for one in counts if one.batch is not None), default=None),
            seconds=sum(one.seconds for one in counts),
            error=error,
        )
