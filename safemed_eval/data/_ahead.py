"""Images are read while the model is busy with those before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from safemed_eval.core import Item
from safemed_eval.data._dataset import Canvas, canvas_of
from safemed_eval.errors import DataError

if TYPE_CHECKING:
    import torch

Canvases = Sequence[tuple[Item, "torch.Tensor | DataError"]]
"""Items, each with its (3, H, W) canvas, or with what is wrong with its image."""


def ahead(groups: Sequence[Sequence[Item]], canvas: Canvas) -> Iterator[Canvases]:
    """Each group with its canvases, which threads have read while the caller worked on the group before.

    Images at their own size may be huge: those are read when it is their turn.
    """
    with ThreadPoolExecutor() as pool:

        def read(group: Sequence[Item]) -> Iterator[torch.Tensor | DataError]:
            return pool.map(_canvas, group, [canvas] * len(group))

        coming = read(groups[0]) if groups else None
        try:
            for group, following in zip(groups, [*groups[1:], None], strict=True):
                ready = list(zip(group, coming or read(group), strict=True))
                coming = read(following) if following and canvas.size else None
                yield ready
        finally:
            pool.shutdown(cancel_futures=True)


def _canvas(item: Item, canvas: Canvas) -> torch.Tensor | DataError:
    try:
        return canvas_of(item, canvas)
    except DataError as error:
        return error
