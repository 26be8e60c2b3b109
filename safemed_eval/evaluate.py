"""Accuracy, clean and under attack: items in, records out."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from safemed_eval.attacks import Attack
from safemed_eval.core import Item, Record, item_fields
from safemed_eval.data import Canvas, canvas_of, pixels_of
from safemed_eval.errors import DataError, ModelOutputError
from safemed_eval.memory import Batch, out_of_memory
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator

OFFICIAL = "official"
"""The condition of `--official`: the checkpoint's untouched 8-bit path, each image at its own size."""

Keep = Callable[[Item, str, torch.Tensor, torch.Tensor], None]
"""Called with an item, the condition, its clean and its attacked (3, H, W) canvas."""

Pair = tuple[Item, torch.Tensor]


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
        self._fitting = Batch(self.batch)

    def run(
        self,
        items: Sequence[Item],
        attacks: Sequence[Attack],
        *,
        official: bool = False,
        done: Callable[[str, str], bool] = lambda item, condition: False,
    ) -> Iterator[list[Record]]:
        """Answer every item under every attack.

        Items are cut into the same groups of `batch` at every start and a group is attacked as a whole, so that a run
        that was interrupted ends with the records of one that was not.

        Args:
            official: answer through the untouched 8-bit path, too.
            done: whether there is a record of (item id, condition) already.
        Yields:
            The new records of one group under one attack. An item whose image or whose output is at fault has `error`
            set and
            `correct` False: it stays in every denominator.
        """
        for start in range(0, len(items), self.batch):
            group = items[start : start + self.batch]
            for attack in attacks:
                missing = {item.id for item in group if not done(item.id, str(attack))}
                if missing:
                    yield [r for r in self._under(attack, group) if r["item"] in missing]
            missing = {item.id for item in group if not done(item.id, OFFICIAL)} if official else set()
            if missing:
                yield [self._official(item) for item in group if item.id in missing]

    def _under(self, attack: Attack, group: Sequence[Item]) -> list[Record]:
        records: list[Record] = []
        by_size: dict[torch.Size, list[Pair]] = defaultdict(list)
        for item in group:
            try:
                canvas = canvas_of(item, self.canvas)
                by_size[canvas.shape].append((item, canvas))
            except DataError as error:
                records.append(_record(item, str(attack), error=str(error)))
        for pairs in by_size.values():
            records += self._safely(attack, pairs)
        return records

    def _safely(self, attack: Attack, pairs: Sequence[Pair]) -> list[Record]:
        """Attack these rows together; where one breaks the batch, find it by attacking each alone."""

        def work(size: int) -> list[Record]:
            cuts = [pairs[i : i + size] for i in range(0, len(pairs), size)]
            return [record for cut in cuts for record in self._attack(attack, cut)]

        try:
            return self._fitting.run(work)
        except (DataError, ModelOutputError, RuntimeError, MemoryError) as error:
            if not (isinstance(error, (DataError, ModelOutputError)) or out_of_memory(error)):
                raise
            if len(pairs) == 1:
                return [_record(pairs[0][0], str(attack), error=str(error))]
            return [record for pair in pairs for record in self._safely(attack, [pair])]

    def _attack(self, attack: Attack, pairs: Sequence[Pair]) -> list[Record]:
        started = time.perf_counter()
        items = [item for item, _ in pairs]
        device = self.model.device
        clean = torch.stack([canvas for _, canvas in pairs]).to(device)
        labels = torch.tensor([item.label for item in items], device=device)
        classify = self.model.classify([item.question for item in items])
        generators = [generator(device, self.seed, "attack", str(attack), item.id) for item in items]
        found = attack(classify, clean, labels, generators, quantize=self.quantize)
        with torch.no_grad():
            log_probs = classify(found.canvas)
        delta = (found.canvas.double() - clean.double()).flatten(1)
        linf, l2 = delta.abs().amax(1).tolist(), delta.norm(dim=1).tolist()
        seconds = (time.perf_counter() - started) / len(items)
        records = []
        for row, item in enumerate(items):
            kept = log_probs[row, : len(item.question.options)]
            records.append(
                _record(
                    item,
                    str(attack),
                    prediction=int(kept.argmax()),
                    log_probs=kept.tolist(),
                    linf=linf[row],
                    l2=l2[row],
                    steps=found.steps[row],
                    target=found.targets[row] if found.targets else None,
                    seconds=seconds,
                )
            )
            if self.keep:
                self.keep(item, str(attack), clean[row], found.canvas[row])
        return records

    def _official(self, item: Item) -> Record:
        started = time.perf_counter()
        try:
            image = Image.fromarray(pixels_of(item))
        except DataError as error:
            return _record(item, OFFICIAL, error=str(error))
        log_probs = self.model.scorer.official_scores(image, item.question).log_softmax(0)
        return _record(
            item,
            OFFICIAL,
            prediction=int(log_probs.argmax()),
            log_probs=log_probs.tolist(),
            seconds=time.perf_counter() - started,
        )


def _record(
    item: Item,
    condition: str,
    *,
    prediction: int | None = None,
    log_probs: list[float] | None = None,
    linf: float | None = None,
    l2: float | None = None,
    steps: int | None = None,
    target: int | None = None,
    seconds: float | None = None,
    error: str | None = None,
) -> Record:
    values: dict[str, Any] = {
        "prediction": prediction,
        "correct": prediction == item.label,
        "log_probs": log_probs,
        "text": None,
        "linf": linf,
        "l2": l2,
        "steps": steps,
        "target": target,
        "seconds": seconds,
        "error": error,
    }
    return {"kind": "evaluate", "attack": condition, **item_fields(item), **values}
