"""Canvases of several items at a time, read by threads, and before they are asked for."""

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
"""Items, each with its (3, H, W) canvas, or with what is wrong with its image."""


class Reader:
    """Reads the images of a group, and while a model works on it those of the next.

    Held are at most two groups. Of images at their own size, which may be huge, no group is read ahead.
    """

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._pool = ThreadPoolExecutor()
        self._coming: dict[tuple[str, ...], list[Future[torch.Tensor | DataError]]] = {}

    def expect(self, group: Sequence[Item]) -> None:
        """Begin to read this group, which will be asked for next."""
        if self._canvas.size:
            self._begin(group)

    def read(self, group: Sequence[Item]) -> Canvases:
        """The group with its canvases; those of the group that was asked for last are still there."""
        coming = self._begin(group)
        return [(item, one.result()) for item, one in zip(group, coming, strict=True)]

    def _begin(self, group: Sequence[Item]) -> list[Future[torch.Tensor | DataError]]:
        key = tuple(item.id for item in group)
        if key not in self._coming:
            while len(self._coming) > 1:
                del self._coming[next(iter(self._coming))]
            self._coming[key] = [self._pool.submit(self._one, item) for item in group]
        return self._coming[key]

    def _one(self, item: Item) -> torch.Tensor | DataError:
        try:
            return canvas_of(item, self._canvas)
        except DataError as error:
            return error
