"""Orders of a question's options: a model that prefers a letter must not look like one that sees the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from safemed_eval.core import Item
from safemed_eval.data.dataset import DataSet
from safemed_eval.seeds import order_of


def shuffled(data: DataSet, seed: int) -> DataSet:
    """Put the options of every item in an order drawn by `seed` and the item's id, independent of other items.

    All orders of an item's options are equally likely. An option that refers to its neighbours, such as "all of the
    above", is moved like any other.
    """
    items = data.items
    orders = (order_of(len(item.question.options), seed, "options", item.id) for item in items)
    return replace(data, items=tuple(reordered(item, order) for item, order in zip(items, orders, strict=True)))


def reordered(item: Item, order: Sequence[int]) -> Item:
    """Return the item with option `order[i]` in place i; its gold label follows the gold option.

    Args:
        order: each of the item's K places, 0 .. K - 1, once.
    """
    return replace(item, question=item.question.reordered(order), label=list(order).index(item.label))


def rotation(count: int, by: int) -> list[int]:
    """The order of `count` options that begins with option `by` and goes on around the end."""
    return [(place + by) % count for place in range(count)]
