"""The product's loop over units, in this process: what an Evaluation or a Certification makes of some items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from safemed_eval.attacks import Attack, needs_of
from safemed_eval.core import CIRCULAR, OFFICIAL, Item
from safemed_eval.models.check import refuse_lacking
from safemed_eval.runs.record import EvaluateRecord
from safemed_eval.runs.work import units
from safemed_eval.runs.work.certify import Certification
from safemed_eval.runs.work.evaluate import Evaluation, group_size

Json = dict[str, Any]


def answers(work: Evaluation, items: Sequence[Item], attacks: Sequence[Attack], **asked: Any) -> Iterator[list[Json]]:
    """The records of each group under each condition, as lines of records.jsonl hold them; see `records`."""
    for group in records(work, items, attacks, **asked):
        yield [record.to_json() for record in group]


def records(
    work: Evaluation,
    items: Sequence[Item],
    attacks: Sequence[Attack],
    *,
    official: bool = False,
    circular: bool = False,
    done: Callable[[str, str], bool] = lambda item, condition: False,
) -> Iterator[list[EvaluateRecord]]:
    """The records of each group under each condition."""
    refuse_lacking(work.model, needs_of(attacks), "the model")
    asked: list[Attack | str] = [*attacks, *[OFFICIAL] * official, *[CIRCULAR] * circular]
    for unit in units.groups(items, asked, group_size(work.batch, work.canvas), done, work.voting):
        yield unit.do(work)


def certificates(
    work: Certification, items: Sequence[Item], *, done: Callable[[str], bool] = lambda item: False
) -> Iterator[Json]:
    """The record of each item, as a line of records.jsonl holds it."""
    todo = units.Certificates(items=items, smoothing=work.smoothing, batch=work.batch, done=done, split=False)
    for unit in todo.units():
        yield unit.do(work).to_json()
