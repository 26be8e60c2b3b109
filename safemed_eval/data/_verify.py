"""Open every image once before a run starts, so that a bad one is named in the first minute, not on day three."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from safemed_eval.core import Item
from safemed_eval.data._dataset import Bad, DataSet, count_notes, inside_root
from safemed_eval.data._guarded import Reading, read_all
from safemed_eval.errors import DataError


def verify(data: DataSet, progress: Callable[[int, int], None] | None = None) -> DataSet:
    """Decode each image once: items get their `image_sha256`, those that fail move to `bad`.

    Args:
        progress: called with (images done, images in all).
    """
    first: dict[tuple[Path, str], Item] = {}
    for item in data.items:
        first.setdefault((item.root, item.image), item)
    seen: dict[tuple[Path, str], Reading] = {}
    for key, reading in zip(first, _read(list(first.values())), strict=True):
        seen[key] = reading
        if progress:
            progress(len(seen), len(first))
    items: list[Item] = []
    bad, notes = list(data.bad), list[str]()
    for item in data.items:
        outcome = seen[item.root, item.image]
        if isinstance(outcome, str):
            bad.append(Bad(id=item.id, reason=outcome, modality=item.modality, question_type=item.question_type))
        else:
            items.append(replace(item, image_sha256=outcome[0]))
            if first[item.root, item.image] is item:
                notes.extend(outcome[1])
    return replace(data, items=tuple(items), bad=tuple(bad), notes=count_notes(notes))


def _read(items: Sequence[Item]) -> Iterator[Reading]:
    places = [None if item.drawn else _place(item) for item in items]
    with ThreadPoolExecutor() as pool:
        drawn = pool.map(_hash_drawn, [item for item in items if item.drawn])
        read = read_all([place for place in places if isinstance(place, Path)])
        for item, place in zip(items, places, strict=True):
            yield next(drawn) if item.drawn else place if isinstance(place, str) else next(read)


def _hash_drawn(item: Item) -> Reading:
    assert item.drawn is not None
    return hashlib.sha256(item.drawn().tobytes()).hexdigest(), ()


def _place(item: Item) -> Path | str:
    """The item's file, or why it has none."""
    try:
        return inside_root(item)
    except DataError as error:
        return str(error)
