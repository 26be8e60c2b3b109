"""Open every image once before a run starts, so that a bad one is named in the first minute, not on day three."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from safemed_eval.core import Item
from safemed_eval.data._dataset import Bad, DataSet, count_notes, inside_root
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
    seen: dict[tuple[Path, str], tuple[str, tuple[str, ...]] | str] = {}
    with ThreadPoolExecutor() as pool:
        for key, outcome in zip(first, pool.map(_read, first.values()), strict=True):
            seen[key] = outcome
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


def _read(item: Item) -> tuple[str, tuple[str, ...]] | str:
    if item.drawn:
        return hashlib.sha256(item.drawn().tobytes()).hexdigest(), ()
    try:
        path = inside_root(item)
        return hashlib.sha256(path.read_bytes()).hexdigest(), decode(path).notes
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"cannot read {item.path}: {error.strerror or error}"
