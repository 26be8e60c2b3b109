"""Measure whether two forwards compute the same function, against the noise of one forward between batch shapes.

Floating-point sums depend on the order of their terms, which depends on the shape of the batch: the scores of one row
differ in their last bits between batches. A shortcut must agree with the plain forward to a small multiple of this
noise.

In half precision the noise is as large as some mistakes. A shortcut is then proved twice: with the weights held in
float32, where any difference of the functions is visible, and again in the precision that the user asked for.

Compiled layers round in other places than plain ones do, and in half precision their scores differ by more than batch
shapes show. There the distance of both from the scores in float32 is compared; see `rounds_worse`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from safemed_eval.faults import place_of

FACTOR = 8
"""The accepted difference of two forwards, as a multiple of the noise between batch shapes."""
_FLOOR = 16 * torch.finfo(torch.float32).eps
"""The accepted difference as a share of the largest score, if batch shapes show no noise; scores are float32."""

SHORT, LONG = 0, 1
_COMPARED: tuple[tuple[int, ...], ...] = ((SHORT,), (LONG,), (SHORT, LONG))
"""The batches in which two forwards are compared: the shortest and the longest prompt, alone and together."""
_SHAPES = (*_COMPARED, (LONG, LONG))
"""The batches that show the noise."""

Scored = Callable[[tuple[int, ...]], Sequence[torch.Tensor]]
"""Maps a batch, such as (SHORT, LONG), to the scores of each of its rows."""
_Batches = Mapping[tuple[int, ...], Sequence[torch.Tensor]]


def limit(noise: float, largest: float) -> float:
    """The largest difference accepted between two forwards that compute the same function.

    Args:
        noise: the largest difference of one forward between batch shapes.
        largest: the largest score.
    """
    return FACTOR * noise + _FLOOR * max(1.0, largest)


@dataclass(frozen=True)
class Plain:
    """The plain forward's scores in all batches, and the noise that they show."""

    batches: _Batches
    noise: float
    """The largest difference of a row between two batches."""
    limit: float

    @classmethod
    def measure(cls, scored: Scored) -> Plain:
        batches = {shape: scored(shape) for shape in _SHAPES}
        alone = [batches[(SHORT,)][0], batches[(LONG,)][0]]
        pairs = [(row, alone[i]) for shape, rows in batches.items() for i, row in zip(shape, rows, strict=True)]
        noise = max(_difference(row, other) for row, other in pairs)
        largest = max(float(row.abs().max()) for row in alone)
        return cls(batches, noise, limit(noise, largest))

    def difference(self, scored: Scored) -> float:
        """The largest difference of another forward, batch by batch."""
        pairs = [pair for shape in _COMPARED for pair in zip(scored(shape), self.batches[shape], strict=True)]
        return max(_difference(*pair) for pair in pairs)


def refuted(plain: Plain, scored: Scored) -> str | None:
    """Say why another forward does not compute the plain one's scores; None if it does, as far as can be measured."""
    try:
        difference = plain.difference(scored)
    except Exception as error:  # any exception means that this architecture does not support the shortcut
        return place_of(error)
    if difference <= plain.limit:
        return None
    return f"scores change by {difference:.2g}, by {plain.noise:.2g} between batch shapes (limit {plain.limit:.2g})"


ROUNDING = 4
"""How much further from the scores in float32 another forward in half precision may be than the plain one."""


def rounds_worse(exact: torch.Tensor, plain: torch.Tensor, sampled: Callable[[], torch.Tensor]) -> str | None:
    """Say how much worse a forward in half precision rounds than the plain one; None if it does not.

    The root mean square counts: single scores are off by ten times as much as others.

    Args:
        exact, plain: scores of some images, in float32 and in half precision.
        sampled: computes the same scores by the other forward.
    """
    try:
        scores = sampled()
    except Exception as error:  # the compiler has failed
        return place_of(error)
    known, found = (float((given.double() - exact.double()).square().mean().sqrt()) for given in (plain, scores))
    if found <= ROUNDING * known:
        return None
    return f"scores are off by {found:.2g} in half precision, by {known:.2g} without it"


def _difference(row: torch.Tensor, other: torch.Tensor) -> float:
    return float((row.double() - other.double()).abs().max())
