"""Open every image once before a run starts, so that a bad one is named in the first minute, not on day three."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from safemed_eval.core import Item
from safemed_eval.data._dataset import Bad, DataSet, count_notes
from safemed_eval.data.audit.look import key_of, look_at_all


def verify(data: DataSet, progress: Callable[[int, int], None] | None = None) -> DataSet:
    """Decode each image once: items get the hashes of their image, those that fail move to `bad`.

    Args:
        progress: called with (images done, images in all).
    """
    seen = look_at_all(data.items, progress)
    items: list[Item] = []
    bad = list(data.bad)
    for item in data.items:
        look = seen[key_of(item)]
        if look.problem is not None:
            bad.append(Bad(id=item.id, reason=look.problem, modality=item.modality, question_type=item.question_type))
        else:
            items.append(replace(item, image_sha256=look.file, pixels_sha256=look.pixels))
    used = {key_of(item) for item in items}
    notes = count_notes(note for key, look in seen.items() if key in used for note in look.notes)
    return replace(data, items=tuple(items), bad=tuple(bad), notes=notes)
