"""Open every image once before a run starts, so that a bad one is named in the first minute, not on day three."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from safemed_eval.core import Item
from safemed_eval.data._dataset import Bad, DataSet, count_notes, inside_root
from safemed_eval.data._guarded import Outcome, guarded
from safemed_eval.data._images import decode
from safemed_eval.errors import DataError


def verify(data: DataSet, progress: Callable[[int, int], None] | None = None) -> DataSet:
    """Decode each image once: items get their `image_sha256`, those that fail move to `bad`.

    Args:
        progress: called with (images done, images in all).
    """
    first: dict[tuple[Path, str], Item] = {}
    for item in data.items:
        first.setdefault((item.root, item.image), item)
    seen: dict[tuple[Path, str], Outcome] = {}
    for key, outcome in zip(first, _looks(list(first.values())), strict=True):
        seen[key] = outcome
        if progress:
            progress(len(seen), len(first))
    items: list[Item] = []
    bad, notes = list(data.bad), list[str]()
    for item in data.items:
        found, problem = seen[item.root, item.image]
        if problem is not None:
            bad.append(Bad(id=item.id, reason=problem, modality=item.modality, question_type=item.question_type))
        else:
            items.append(replace(item, image_sha256=found[0]))
            if first[item.root, item.image] is item:
                notes.extend(found[1])
    return replace(data, items=tuple(items), bad=tuple(bad), notes=count_notes(notes))


def look(file: Path) -> tuple[str, tuple[str, ...]]:
    """The sha256 of an image file, and the notes on its decoding. Raises DataError."""
    notes = decode(file).notes
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), notes


def _looks(items: Sequence[Item]) -> Iterator[Outcome]:
    """What comes of each item's image: of a drawing here, of a file in another process."""
    places = [None if item.drawn else _place(item) for item in items]
    read = guarded(f"{__name__}:{look.__name__}", [place for place in places if isinstance(place, Path)])
    with ThreadPoolExecutor() as pool:
        drawn = pool.map(_drawn, [item for item in items if item.drawn])
        for item, place in zip(items, places, strict=True):
            yield next(drawn) if item.drawn else (None, place) if isinstance(place, str) else next(read)


def _drawn(item: Item) -> Outcome:
    assert item.drawn is not None
    return (hashlib.sha256(item.drawn().tobytes()).hexdigest(), ()), None


def _place(item: Item) -> Path | str:
    """The item's file, or why it has none."""
    try:
        return inside_root(item)
    except DataError as error:
        return str(error)
