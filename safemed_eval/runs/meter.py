"""Progress of a run in forward passes, so that it moves within a unit of work too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol


class Weighed(Protocol):
    """A unit of work with an estimate of its forward passes."""

    @property
    def passes(self) -> int | None:
        """Approximate upper bound of the images that pass through the model; None: unknown."""
        ...


class Meter:
    """Measures the completed share of the work in forward passes: those of finished units, and those made since.

    Args:
        passes: forward passes of the whole work; None: unknown.
        forwards: returns how many images have passed through the model so far.
    """

    def __init__(self, passes: int | None, forwards: Callable[[], int]) -> None:
        self._total, self._forwards = passes, forwards
        self._finished, self._before = 0, forwards()

    @property
    def share(self) -> float | None:
        """Completed share in [0, 1]; None: unknown. A finished unit counts in full, even if it took fewer passes."""
        if not self._total:
            return None
        return min(1.0, (self._finished + self._forwards() - self._before) / self._total)

    def following(self, results: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Yield units and results unchanged, counting each unit as finished."""
        for unit, result in results:
            self._finished += unit.passes or 0
            self._before = self._forwards()
            yield unit, result


def passes_of(units: Iterable[Weighed]) -> int | None:
    """Sum the passes of all units; None if one of them is unknown."""
    every = [unit.passes for unit in units]
    return None if None in every else sum(passes or 0 for passes in every)
