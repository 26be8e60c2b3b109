"""In which order the options of a question are asked: a preferred letter must not look like sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from safemed_eval.core import Item
from safemed_eval.data.dataset import DataSet
from safemed_eval.seeds import seed_of


def shuffled(data: DataSet, seed: int) -> DataSet:
    """Every item with its options in an order drawn by `seed` and its id, whatever other items there are.

    All orders of an item's options are equally likely. An option that speaks of its neighbours, such as "all of the
    above", is moved like any other.
    """
    return replace(data, items=tuple(reordered(item, _drawn(item, seed)) for item in data.items))


def reordered(item: Item, order: Sequence[int]) -> Item:
    """The item with option `order[i]` in place i; its gold label follows the gold option.

    Args:
        order: each of the item's K places, 0 .. K - 1, once.
    """
    options = item.question.options
    question = replace(item.question, options=tuple(options[place] for place in order))
    return replace(item, question=question, label=list(order).index(item.label))


def rotation(count: int, by: int) -> list[int]:
    """The order of `count` options that begins with option `by` and goes on around the end."""
    return [(place + by) % count for place in range(count)]


def _drawn(item: Item, seed: int) -> list[int]:
    """An order that no version of a random generator can change."""
    places = range(len(item.question.options))
    return sorted(places, key=lambda place: seed_of(seed, "options", item.id, place))
