"""Accuracy, clean and under attack: items in, records out."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from PIL import Image

from safemed_eval.attacks import Attack
from safemed_eval.core import CIRCULAR, OFFICIAL, Item, Record, item_fields
from safemed_eval.data import Canvas, canvas_of, pixels_of, reordered, rotation
from safemed_eval.errors import DataError
from safemed_eval.faults import FAULTS, ShrinkingBatch, is_fault
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator

Keep = Callable[[Item, str, torch.Tensor, torch.Tensor], None]
"""Called with an item, the condition, its clean and its attacked (3, H, W) canvas."""

Pair = tuple[Item, torch.Tensor]
T = TypeVar("T")


@dataclass(kw_only=True)
class Evaluation:
    """How items are answered and attacked.

    Args:
        batch: rows that go through the model together; it shrinks when memory runs out.
        quantize: keep attacked canvases on 8-bit grey levels.
        keep: sees every attacked canvas, to store some.
    """

    model: Waist
    canvas: Canvas
    seed: int
    batch: int
    quantize: bool = False
    keep: Keep | None = None

    def __post_init__(self) -> None:
        self._memory = ShrinkingBatch(self.batch)

    def run(
        self,
        items: Sequence[Item],
        attacks: Sequence[Attack],
        *,
        official: bool = False,
        circular: bool = False,
        done: Callable[[str, str], bool] = lambda item, condition: False,
    ) -> Iterator[list[Record]]:
        """Answer every item under every attack.

        Items are cut into the same groups of `batch` at every start and a group is attacked as a whole, so that a run
        that was interrupted ends with the records of one that was not.

        Args:
            official: answer through the untouched 8-bit path, too.
            circular: answer in every rotation of the options, too; an item is right that is right in all of them.
            done: whether there is a record of (item id, condition) already.
        Yields:
            The new records of one group under one condition. An item whose image or whose output is at fault has
            `error` set and `correct` False: it stays in every denominator.
        """
        conditions: list[tuple[str, Callable[[Sequence[Item]], list[Record]]]] = [
            (str(attack), partial(self.under, attack)) for attack in attacks
        ]
        conditions += [(OFFICIAL, self._officially)] * official
        conditions += [(CIRCULAR, self._circularly)] * circular
        for start in range(0, len(items), self.batch):
            group = items[start : start + self.batch]
            for condition, answered in conditions:
                missing = {item.id for item in group if not done(item.id, condition)}
                if missing:
                    yield [record for record in answered(group) if record["item"] in missing]

    def under(self, attack: Attack, group: Sequence[Item]) -> list[Record]:
        """The records of these items under one attack."""
        return self._on_canvases(str(attack), group, partial(self._attack, attack))

    def _on_canvases(
        self, condition: str, group: Sequence[Item], work: Callable[[Sequence[Pair]], list[Record]]
    ) -> list[Record]:
        """Do the work on items whose canvases are of one size, and record those whose image is at fault."""
        records: list[Record] = []
        by_size: dict[torch.Size, list[Pair]] = defaultdict(list)
        for item in group:
            try:
                canvas = canvas_of(item, self.canvas)
                by_size[canvas.shape].append((item, canvas))
            except DataError as error:
                records.append(_record(item, condition, error=str(error)))
        for pairs in by_size.values():
            records += self._safely(condition, pairs, work)
        return records

    def _officially(self, group: Sequence[Item]) -> list[Record]:
        pairs = [(item, None) for item in group]
        return self._safely(OFFICIAL, pairs, lambda cut: [self._official(item) for item, _ in cut])

    def _circularly(self, group: Sequence[Item]) -> list[Record]:
        """The records of these items, each asked K times, its K options rotated by one place at a time.

        An item is right if every rotation is answered rightly. `rotations` holds the K answers as options of the item
        as it is, None for no answer; `prediction` is the gold option, or else the first of them that is wrong.

        Source:
            CircularEval of Liu et al. 2023, "MMBench: Is Your Multi-modal Model an All-around Player?"
            (arXiv:2307.06281).
        """
        return self._on_canvases(CIRCULAR, group, self._rotate)

    def _safely(
        self,
        condition: str,
        rows: Sequence[tuple[Item, T]],
        work: Callable[[Sequence[tuple[Item, T]]], list[Record]],
    ) -> list[Record]:
        """Do the work in batches that fit into memory; where one row breaks them, find it by doing each alone."""

        def cut(size: int) -> list[Record]:
            return [record for i in range(0, len(rows), size) for record in work(rows[i : i + size])]

        try:
            return self._memory.run(cut)
        except FAULTS as error:
            if not is_fault(error):
                raise
            if len(rows) == 1:
                return [_record(rows[0][0], condition, error=str(error))]
            return [record for row in rows for record in self._safely(condition, [row], work)]

    def _attack(self, attack: Attack, pairs: Sequence[Pair]) -> list[Record]:
        started = time.perf_counter()
        items = [item for item, _ in pairs]
        questions = [item.question for item in items]
        device = self.model.device
        clean = torch.stack([canvas for _, canvas in pairs]).to(device)
        labels = torch.tensor([item.label for item in items], device=device)
        generators = [generator(device, self.seed, "attack", str(attack), item.id) for item in items]
        found = attack(self.model.classify(questions), clean, labels, generators, quantize=self.quantize)
        answers = self.model.answer(found.canvas, questions)
        delta = (found.canvas.double() - clean.double()).flatten(1)
        linf, l2 = delta.abs().amax(1).tolist(), delta.norm(dim=1).tolist()
        seconds = (time.perf_counter() - started) / len(items)
        records = []
        for row, item in enumerate(items):
            records.append(
                _record(
                    item,
                    str(attack),
                    prediction=answers.predictions[row],
                    log_probs=answers.log_probs[row] if answers.log_probs else None,
                    text=answers.texts[row] if answers.texts else None,
                    linf=linf[row],
                    l2=l2[row],
                    steps=found.steps[row],
                    target=found.targets[row] if found.targets else None,
                    batch=len(items),
                    seconds=seconds,
                )
            )
            if self.keep:
                self.keep(item, str(attack), clean[row], found.canvas[row])
        return records

    def _rotate(self, pairs: Sequence[Pair]) -> list[Record]:
        started = time.perf_counter()
        clean = torch.stack([canvas for _, canvas in pairs]).to(self.model.device)
        found: list[list[int | None]] = [[] for _ in pairs]
        for by in range(max(len(item.question.options) for item, _ in pairs)):
            rows = [row for row, (item, _) in enumerate(pairs) if by < len(item.question.options)]
            orders = [rotation(len(pairs[row][0].question.options), by) for row in rows]
            questions = [reordered(pairs[row][0], order).question for row, order in zip(rows, orders, strict=True)]
            answers = self.model.answer(clean[rows], questions).predictions
            for row, order, answer in zip(rows, orders, answers, strict=True):
                found[row].append(None if answer is None else order[answer])
        seconds = (time.perf_counter() - started) / len(pairs)
        return [
            _record(
                item,
                CIRCULAR,
                prediction=next((answer for answer in answers if answer != item.label), item.label),
                rotations=answers,
                batch=len(pairs),
                seconds=seconds,
            )
            for (item, _), answers in zip(pairs, found, strict=True)
        ]

    def _official(self, item: Item) -> Record:
        started = time.perf_counter()
        answers = self.model.official(Image.fromarray(pixels_of(item)), item.question)
        return _record(
            item,
            OFFICIAL,
            prediction=answers.predictions[0],
            log_probs=answers.log_probs[0] if answers.log_probs else None,
            text=answers.texts[0] if answers.texts else None,
            batch=1,
            seconds=time.perf_counter() - started,
        )


def _record(
    item: Item,
    condition: str,
    *,
    prediction: int | None = None,
    log_probs: list[float] | None = None,
    text: str | None = None,
    linf: float | None = None,
    l2: float | None = None,
    steps: int | None = None,
    target: int | None = None,
    rotations: list[int | None] | None = None,
    batch: int | None = None,
    seconds: float | None = None,
    error: str | None = None,
) -> Record:
    values: dict[str, Any] = {
        "prediction": prediction,
        "correct": prediction == item.label,
        "log_probs": log_probs,
        "text": text,
        "linf": linf,
        "l2": l2,
        "steps": steps,
        "target": target,
        "batch": batch,
        "seconds": seconds,
        "error": error,
    }
    own = {"rotations": rotations} if condition == CIRCULAR else {}
    return {"kind": "evaluate", "attack": condition, **item_fields(item), **values, **own}
