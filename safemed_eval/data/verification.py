"""Open every image once before a run starts, so that a bad one is named in the first minute, not on day three."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from safemed_eval.core import Item
from safemed_eval.data.dataset import Bad, DataSet
from safemed_eval.data.images.fingerprints import fingerprints, key_of
from safemed_eval.progress import Tick, no_progress

_ALIKE = 3
"""The number of notes named of those that differ only in their numbers."""


def verify(data: DataSet, progress: Tick = no_progress) -> DataSet:
    """Decode each image once: items get the hashes of their image, those that fail move to `bad`.

    Args:
        progress: called with (images done, images in all).
    """
    seen = fingerprints(data.items, progress)
    items: list[Item] = []
    bad = list(data.bad)
    for item in data.items:
        image = seen[key_of(item)]
        if image.problem is not None:
            bad.append(Bad(id=item.id, reason=image.problem, modality=item.modality, question_type=item.question_type))
        else:
            items.append(replace(item, image_sha256=image.file, pixels_sha256=image.pixels))
    used = {key_of(item) for item in items}
    notes = count_notes(note for key, image in seen.items() if key in used for note in image.notes)
    return replace(data, items=tuple(items), bad=tuple(bad), notes=notes)


def count_notes(notes: Iterable[str]) -> dict[str, int]:
    """Count how often each note occurs, most frequent first.

    Of notes that differ in their numbers alone, such as windows, at most three are named; the rest are counted as one.
    """
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for note, count in Counter(notes).most_common():
        groups[re.sub(r"-?[0-9.]+(e[+-]?[0-9]+)?", "#", note)].append((note, count))
    counts = Counter[str]()
    for group in groups.values():
        counts.update(dict(group[:_ALIKE]))
        if rest := group[_ALIKE:]:
            counts[f"{len(rest)} more like '{group[0][0]}'"] = sum(count for _, count in rest)
    return dict(counts.most_common())
