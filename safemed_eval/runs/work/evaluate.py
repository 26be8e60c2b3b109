"""Evaluation of items, clean and under attack: items in, records out."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from PIL import Image

from safemed_eval.attacks import Attack
from safemed_eval.core import (
    BLANK,
    CIRCULAR,
    OFFICIAL,
    SHUFFLED,
    TEXT_ONLY,
    Domain,
    Item,
    Question,
)
from safemed_eval.data import Canvas, Donor, Reader, pixels_of, reordered, rotation
from safemed_eval.errors import CheckpointError, DataError
from safemed_eval.faults import FAULTS, ShrinkingBatch, is_fault
from safemed_eval.models.waist import Waist
from safemed_eval.runs.record import EvaluateRecord
from safemed_eval.runs.tally import Outcome
from safemed_eval.runs.work.answering import Answering, fields_of, record
from safemed_eval.runs.work.attacking import Attacking, Keep, Pair
from safemed_eval.runs.work.fit import Fitted
from safemed_eval.runs.work.planted import plant
from safemed_eval.seeds import seed_of
from safemed_eval.smoothing import Voting

T = TypeVar("T")

TAUGHT = "the attack was fitted on this patient or image"
"""Why there is no answer to an item under an attack that is fitted on it."""
_BATCHES = 4
"""Batches in a group. Attacks that replace finished rows by new ones work through a whole group without a pause."""


@dataclass(kw_only=True)
class Evaluation:
    """Answers and attacks items with a loaded model.

    Args:
        batch: batch size, halved when memory runs out.
        quantize: keep attacked canvases on 8-bit grey levels.
        keep: called with every attacked canvas, to store some.
        voting: answer with, and attack, the smoothed model.
        surrogates: the models that transfer attacks search, by name.
        donors: the items whose images are shown under SHUFFLED, by the id of the item that is asked.
        official: show attacked images to the checkpoint's official path, too.
        fitted_on: the items that attacks are fitted on, and therefore not tried on.
    """

    model: Waist
    canvas: Canvas
    seed: int
    batch: int
    quantize: bool = False
    keep: Keep | None = None
    voting: Voting | None = None
    surrogates: Mapping[str, Waist] = field(default_factory=dict)
    donors: Mapping[str, Donor] = field(default_factory=dict)
    official: bool = False
    fitted_on: Sequence[Item] = ()

    def __post_init__(self) -> None:
        self._taught = {item.id for item in self.fitted_on}
        self._memory = ShrinkingBatch(self.batch)
        self._reader = Reader(self.canvas)
        self._answering = Answering(model=self.model, seed=self.seed, memory=self._memory, voting=self.voting)
        self._attacking = Attacking(
            answering=self._answering,
            canvas=self.canvas,
            quantize=self.quantize,
            keep=self.keep,
            surrogates=self.surrogates,
            official=self.official,
        )

    def expect(self, condition: Attack | str, group: Sequence[Item]) -> None:
        """Start reading the images of this group, which is next."""
        asked = [item for item in group if not self._unavailable(condition, item)]
        if condition == SHUFFLED:
            self._reader.expect([self.donors[item.id].item for item in asked])
        elif condition not in (OFFICIAL, TEXT_ONLY):
            self._reader.expect(asked)

    def under(
        self, condition: Attack | str, group: Sequence[Item], fitted: Fitted | None = None
    ) -> list[EvaluateRecord]:
        """Compute the records of these items under one attack, or another condition of `EvaluateSpec.conditions`.

        Args:
            fitted: what `fit` returned, for an attack that is fitted.
        """
        reasons = [(item, self._unavailable(condition, item)) for item in group]
        records = [record(item, str(condition), unavailable=reason) for item, reason in reasons if reason]
        asked = [item for item, reason in reasons if not reason]
        if isinstance(condition, Attack):
            return records + self._attacked(condition, asked, fitted)
        ways = {
            OFFICIAL: self._officially,
            CIRCULAR: self._circularly,
            SHUFFLED: self._with_donors,
            BLANK: self._blank,
            TEXT_ONLY: self._without_images,
        }
        return records + ways[condition](asked)

    def _unavailable(self, condition: Attack | str, item: Item) -> str | None:
        """Say why a condition cannot be had for an item, whatever its image shows; None: it can, as far as is known."""
        if isinstance(condition, Attack):
            return TAUGHT if condition.fits and item.id in self._taught else condition.unavailable(item)
        if condition == SHUFFLED and item.id not in self.donors:
            return "no other patient's image to show"
        if condition == TEXT_ONLY and self.voting:
            return "the smoothed model needs an image to add noise to"
        return None

    def _attacked(self, attack: Attack, group: Sequence[Item], fitted: Fitted | None) -> list[EvaluateRecord]:
        if attack.rewords:
            return self._reworded(attack, group)
        whole = attack.refills and not self.voting
        return self._on_canvases(
            str(attack), group, partial(self._attacking.records, attack, fitted=fitted), whole=whole
        )

    def fit(self, attack: Attack) -> Fitted:
        """Fit an attack on the items that are set apart for it; raises as `Attacking.fit`."""
        return self._attacking.fit(attack, self.fitted_on, self._reader)

    def planted(self, attack: Attack, item: Item) -> Outcome:
        """Test the attack on a region planted around the item's image; see `planted`."""
        ((_, canvas),) = self._reader.read([item])
        if isinstance(canvas, DataError):
            return "failed"
        row = (item.id, item.question, canvas)
        return plant(self.model, attack, row, seed=self.seed, memory=self._memory, quantize=self.quantize)

    def _on_canvases(
        self,
        condition: str,
        group: Sequence[Item],
        work: Callable[[Sequence[Pair]], list[EvaluateRecord]],
        *,
        whole: bool = False,
        shown: Sequence[Item] | None = None,
    ) -> list[EvaluateRecord]:
        """Do the work on groups of canvases of one size; an unreadable image makes a failed record.

        Args:
            shown: the items whose images are shown, by default the group's own.
        """
        records: list[EvaluateRecord] = []
        by_size: dict[torch.Size, list[Pair]] = defaultdict(list)
        canvases = self._reader.read(group if shown is None else shown)
        for item, (_, canvas) in zip(group, canvases, strict=True):
            if isinstance(canvas, DataError):
                records.append(record(item, condition, error=str(canvas)))
            else:
                by_size[canvas.shape].append((item, canvas))
        for pairs in by_size.values():
            records += self._safely(condition, pairs, work, whole=whole)
        return records

    def _officially(self, group: Sequence[Item]) -> list[EvaluateRecord]:
        pairs = [(item, None) for item in group]
        return self._safely(OFFICIAL, pairs, lambda cut: [self._official(item) for item, _ in cut])

    def _circularly(self, group: Sequence[Item]) -> list[EvaluateRecord]:
        """Ask each item K times, with its K options rotated by one place each time, and return the records.

        An item counts as correct if every rotation is answered correctly. `rotations` holds the K answers as options
        in the item's own order, None for no answer; `prediction` is the first wrong one of them, or else gold.

        Source:
            CircularEval of Liu et al. 2023, "MMBench: Is Your Multi-modal Model an All-around Player?"
            (arXiv:2307.06281).
        """
        return self._on_canvases(CIRCULAR, group, self._rotate)

    def _reworded(self, attack: Attack, group: Sequence[Item]) -> list[EvaluateRecord]:
        """Ask each item the questions that an attack puts in place of its own."""
        seeds = {item.id: seed_of(self.seed, "attack", attack.stream, item.id) for item in group}
        asked = {item.id: attack.questions(item, seeds[item.id]) for item in group}

        def work(pairs: Sequence[Pair]) -> list[EvaluateRecord]:
            return self._worst_of(attack, [(item, canvas, asked[item.id]) for item, canvas in pairs])

        return self._on_canvases(str(attack), group, work)

    def _worst_of(
        self, attack: Attack, rows: Sequence[tuple[Item, torch.Tensor, Sequence[Question]]]
    ) -> list[EvaluateRecord]:
        """Ask every question of each row; the record is that of its first wrong answer, or else of its first."""
        started = time.perf_counter()
        items = [replace(item, question=question) for item, _, questions in rows for question in questions]
        shown = [canvas for _, canvas, questions in rows for _ in questions]
        canvas = torch.stack(shown).to(self.model.device)
        answers = self._answering.answers(str(attack), canvas, items)
        seconds, batch = (time.perf_counter() - started) / len(rows), min(len(items), self._memory.size)
        each, records = iter(answers), []
        for item, _, questions in rows:
            told = [{**next(each), "asked": question.text} for question in questions]
            worst = next((one for one in told if one["prediction"] != item.label), told[0])
            records.append(record(item, str(attack), **worst, linf=0.0, l2=0.0, steps=0, batch=batch, seconds=seconds))
        return records

    def _with_donors(self, group: Sequence[Item]) -> list[EvaluateRecord]:
        """Ask each item about its donor's image."""
        shown = [self.donors[item.id].item for item in group]
        return self._on_canvases(SHUFFLED, group, partial(self._ask, SHUFFLED), shown=shown)

    def _blank(self, group: Sequence[Item]) -> list[EvaluateRecord]:
        """Ask each item about an image that is its own mean colour everywhere, rounded to 8 bits."""

        def work(pairs: Sequence[Pair]) -> list[EvaluateRecord]:
            return self._ask(BLANK, [(item, blank(canvas)) for item, canvas in pairs])

        return self._on_canvases(BLANK, group, work)

    def _ask(self, condition: str, pairs: Sequence[Pair]) -> list[EvaluateRecord]:
        """Ask about these canvases as they are."""
        started = time.perf_counter()
        items = [item for item, _ in pairs]
        canvas = torch.stack([canvas for _, canvas in pairs]).to(self.model.device)
        answers = self._answering.answers(condition, canvas, items)
        about = [self.donors[item.id] if condition == SHUFFLED else None for item in items]
        whose = [{"donor": donor.item.id, "match": donor.match} if donor else {} for donor in about]
        seconds, batch = (time.perf_counter() - started) / len(items), min(len(items), self._memory.size)
        return [
            record(item, condition, **answer, **donor, batch=batch, seconds=seconds)
            for item, answer, donor in zip(items, answers, whose, strict=True)
        ]

    def _without_images(self, group: Sequence[Item]) -> list[EvaluateRecord]:
        pairs = [(item, None) for item in group]
        return self._safely(TEXT_ONLY, pairs, lambda cut: [self._without_image(item) for item, _ in cut])

    def _without_image(self, item: Item) -> EvaluateRecord:
        started = time.perf_counter()
        try:
            answers = self.model.without_image(item.question)
        except CheckpointError as error:
            return record(item, TEXT_ONLY, unavailable=str(error))
        return record(item, TEXT_ONLY, **fields_of(answers)[0], batch=1, seconds=time.perf_counter() - started)

    def _safely(
        self,
        condition: str,
        rows: Sequence[tuple[Item, T]],
        work: Callable[[Sequence[tuple[Item, T]]], list[EvaluateRecord]],
        *,
        whole: bool = False,
    ) -> list[EvaluateRecord]:
        """Do the work in batches that fit into memory; if a batch fails, do its rows one by one to find the bad ones.

        Args:
            whole: the work divides rows into batches itself.
        """

        def cut(size: int) -> list[EvaluateRecord]:
            size = len(rows) if whole else size
            return [record for i in range(0, len(rows), size) for record in work(rows[i : i + size])]

        try:
            return self._memory.run(cut)
        except FAULTS as error:
            if not is_fault(error):
                raise
            if len(rows) == 1:
                return [record(rows[0][0], condition, error=str(error))]
            return [record for row in rows for record in self._safely(condition, [row], work)]

    def _rotate(self, pairs: Sequence[Pair]) -> list[EvaluateRecord]:
        started = time.perf_counter()
        clean = torch.stack([canvas for _, canvas in pairs]).to(self.model.device)
        rotations: list[list[int | None]] = [[] for _ in pairs]
        for by in range(max(len(item.question.options) for item, _ in pairs)):
            rows = [row for row, (item, _) in enumerate(pairs) if by < len(item.question.options)]
            orders = [rotation(len(pairs[row][0].question.options), by) for row in rows]
            questions = [reordered(pairs[row][0], order).question for row, order in zip(rows, orders, strict=True)]
            answers = self.model.answer(clean[rows], questions).predictions
            for row, order, answer in zip(rows, orders, answers, strict=True):
                rotations[row].append(None if answer is None else order[answer])
        seconds = (time.perf_counter() - started) / len(pairs)
        return [
            record(
                item,
                CIRCULAR,
                prediction=next((answer for answer in answers if answer != item.label), item.label),
                rotations=answers,
                batch=len(pairs),
                seconds=seconds,
            )
            for (item, _), answers in zip(pairs, rotations, strict=True)
        ]

    def _official(self, item: Item) -> EvaluateRecord:
        started = time.perf_counter()
        answer = self._answering.official(Image.fromarray(pixels_of(item)), item)
        return record(item, OFFICIAL, **answer, batch=1, seconds=time.perf_counter() - started)


def blank(canvas: torch.Tensor) -> torch.Tensor:
    """The canvas's mean colour everywhere, rounded to 8 bits: (3, H, W) -> the same shape."""
    mean = (canvas.double().mean((1, 2), keepdim=True) * 255).round().float() / 255
    return mean.expand_as(canvas).contiguous()


def group_size(batch: int, canvas: Canvas, domain: Domain = "canvas") -> int:
    """Return the number of items in a group; a single batch where images keep their own size, which may be huge."""
    return batch * _BATCHES if canvas.size and domain == "canvas" else batch


def groups(
    items: Sequence[Item], asked: Sequence[Attack | str], size: int, done: Callable[[str, str], bool]
) -> Iterator[tuple[Attack | str, Sequence[Item], frozenset[str]]]:
    """Divide items into groups of this size, under each condition in turn, where records are missing.

    Yields:
        A condition, a group, and the ids of the items without a record. A group is always attacked as a whole, since
        its rows share batches.
    """
    for start in range(0, len(items), size):
        group = items[start : start + size]
        for condition in asked:
            missing = frozenset(item.id for item in group if not done(item.id, str(condition)))
            if missing:
                yield condition, group, missing
