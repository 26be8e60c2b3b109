"""Progress of work on many images, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""A function that is called with (done, in all)."""


def no_progress(done: int, total: int) -> None:
    """Show nothing."""
