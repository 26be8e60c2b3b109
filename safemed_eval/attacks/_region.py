"""Search within a region of the canvas: all other pixels keep their value exactly, in every attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from safemed_eval.attacks._base import Attacked, Problem
from safemed_eval.core import Classify

_SHOWN = ("write", "after", "likelihood")
"""The methods of `core.Reasons` whose first argument is a canvas."""


class Contained:
    """A model that sees the clean pixels outside of each row's region, whatever it is shown there.

    Its gradient is zero there, so that no search has to know of regions. What else `classify` has, it has too.

    Args:
        canvas: (B, 3, H, W) the clean canvases of the rows that `classify` is bound to.
        region: (B, 1, H, W) bool, the pixels that may change.
    """

    def __init__(self, classify: Classify, canvas: torch.Tensor, region: torch.Tensor) -> None:
        self._classify, self._canvas, self._region = classify, canvas, region

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        return self._classify(self.inside(canvas))

    def take(self, rows: Sequence[int]) -> Contained:
        chosen = list(rows)
        return Contained(self._classify.take(rows), self._canvas[chosen], self._region[chosen])

    def inside(self, canvas: torch.Tensor) -> torch.Tensor:
        """The canvases with the clean pixels put back outside of the regions."""
        return torch.where(self._region, canvas, self._canvas)

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._classify, name)
        if name not in _SHOWN:
            return inner
        return lambda canvas, *given: inner(self.inside(canvas), *given)


def search_within(problem: Problem, region: torch.Tensor, search: Callable[[Problem], Attacked]) -> Attacked:
    """Search with a model that sees changes within the region only, and put the clean pixels back elsewhere.

    A row whose region is empty stays clean; that it has no gradient says nothing about the model, and is not kept.

    Args:
        region: (B, 1, H, W) bool.
    """
    contained = Contained(problem.classify, problem.canvas, region)
    attacked = search(replace(problem, classify=contained, region=region))
    empty = (~region).flatten(1).all(1).tolist()
    dead = attacked.dead and [None if none else share for share, none in zip(attacked.dead, empty, strict=True)]
    return replace(attacked, canvas=contained.inside(attacked.canvas), dead=dead)
