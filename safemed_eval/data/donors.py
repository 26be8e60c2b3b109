"""Donors: for each item, another patient's image that is put in the place of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from safemed_eval.core import Item
from safemed_eval.seeds import seed_of

Match = Literal["question", "modality"]
"""What donor and item have in common: the question, with another gold answer, or the modality alone."""
_Pool = list[tuple[int, Item]]
"""Items by a random number of each, sorted."""


@dataclass(frozen=True, kw_only=True)
class Donor:
    """The item whose image takes the place of another item's own."""

    item: Item
    match: Match


def donors_of(items: Sequence[Item], seed: int) -> dict[str, Donor]:
    """Find a donor for each item, by the item's id; items without one are left out.

    A donor is of another patient (or image, where no patient is known) and of other pixels. Tried in this order: the
    same question with another gold answer that is among the item's options, of the same modality if there is one; the
    same question with any other gold answer; the same modality, with another gold answer if there is one. Ties are
    broken by random numbers that depend on the seed and the ids alone, not on the order of the items.
    """
    pools: dict[tuple[str | None, str | None], dict[str, _Pool]] = defaultdict(lambda: defaultdict(list))
    for number, item in sorted(((seed_of(seed, "donor", item.id), item) for item in items), key=lambda pair: pair[0]):
        question = _words(item.question.text)
        for key in ((question, item.modality), (question, None), (None, item.modality)):
            pools[key][_gold(item)].append((number, item))
    donors = {}
    for item in items:
        draw, gold, question = seed_of(seed, "donor for", item.id), _gold(item), _words(item.question.text)
        options = {_words(option) for option in item.question.options} - {gold}
        anywhere, alike = pools[question, None], pools[None, item.modality] if item.modality else {}
        tried: tuple[tuple[Match, dict[str, _Pool], Iterable[str]], ...] = (
            ("question", pools[question, item.modality], options),
            ("question", anywhere, options),
            ("question", anywhere, anywhere.keys() - {gold}),
            ("modality", alike, alike.keys() - {gold}),
            ("modality", alike, {gold}),
        )
        for match, pool, answers in tried:
            if donor := _drawn(pool, answers, item, draw):
                donors[item.id] = Donor(item=donor, match=match)
                break
    return donors


def _drawn(pools: Mapping[str, _Pool], answers: Iterable[str], item: Item, draw: int) -> Item | None:
    """Draw one of these gold answers, then a donor that has it; None where nobody has one."""
    for answer in sorted(answers, key=lambda answer: seed_of(draw, answer)):
        pool = pools.get(answer, [])
        start = bisect_left(pool, draw, key=lambda pair: pair[0])
        for place in range(len(pool)):
            _, other = pool[(start + place) % len(pool)]
            if _may_donate(other, item):
                return other
    return None


def _may_donate(other: Item, item: Item) -> bool:
    if other.cluster == item.cluster or other.image == item.image:
        return False
    return item.pixels_sha256 is None or other.pixels_sha256 != item.pixels_sha256


def _gold(item: Item) -> str:
    return _words(item.question.options[item.label])


def _words(text: str) -> str:
    """The text without differences of case and white space."""
    return " ".join(text.casefold().split())
