"""How much of a run's work is done, while its first unit is still under way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol


class Weighed(Protocol):
    """A unit of work that knows its weight."""

    @property
    def passes(self) -> int | None:
        """About how many images go through the model for it, at most; None: unknown."""
        ...


class Meter:
    """The share of the work that is done, in forward passes: all those of finished units, and those made since.

    Args:
        passes: of all that there is to do; None: unknown.
        forwards: images that have gone through the model so far.
    """

    def __init__(self, passes: int | None, forwards: Callable[[], int]) -> None:
        self._total, self._forwards = passes, forwards
        self._finished, self._before = 0, forwards()

    @property
    def share(self) -> float | None:
        """In [0, 1]; None where it is unknown. A unit that took fewer passes than it might have counts whole."""
        if not self._total:
            return None
        return min(1.0, (self._finished + self._forwards() - self._before) / self._total)

    def following(self, results: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """The same units with what came of them, each noted as finished."""
        for unit, result in results:
            self._finished += unit.passes or 0
            self._before = self._forwards()
            yield unit, result


def passes_of(units: Iterable[Weighed]) -> int | None:
    """Of all units together; None where one of them does not know."""
    every = [unit.passes for unit in units]
    return None if None in every else sum(one or 0 for one in every)
