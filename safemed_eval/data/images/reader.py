"""Reads the images of several items at a time with threads, and ahead of their use."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from safemed_eval.core import Item
from safemed_eval.data.canvas import Canvas, canvas_of
from safemed_eval.errors import DataError

if TYPE_CHECKING:
    import torch

Canvases = Sequence[tuple[Item, "torch.Tensor | DataError"]]
"""Items, each with its (3, H, W) canvas, or with the error that its image raised."""


class Reader:
    """Reads the images of a group of items, and those of the next group while the model works on it.

    At most two groups are held. Images at their own size may be huge, and are not read ahead.
    """

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._pool = ThreadPoolExecutor()
        self._coming: dict[tuple[str, ...], list[Future[torch.Tensor | DataError]]] = {}

    def expect(self, group: Sequence[Item]) -> None:
        """Begin to read this group, which will be used next."""
        if self._canvas.size:
            self._begin(group)

    def read(self, group: Sequence[Item]) -> Canvases:
        """Return the group with its canvases; those of the last group are kept."""
        coming = self._begin(group)
        return [(item, future.result()) for item, future in zip(group, coming, strict=True)]

    def _begin(self, group: Sequence[Item]) -> list[Future[torch.Tensor | DataError]]:
        key = tuple(item.id for item in group)
        if key not in self._coming:
            while len(self._coming) > 1:
                del self._coming[next(iter(self._coming))]
            self._coming[key] = [self._pool.submit(self._canvas_or_error, item) for item in group]
        return self._coming[key]

    def _canvas_or_error(self, item: Item) -> torch.Tensor | DataError:
        try:
            return canvas_of(item, self._canvas)
        except DataError as error:
            return error
