"""Progress on stderr: a bar in a terminal or a notebook, elsewhere a line every 30 seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from importlib.util import find_spec

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from safemed_eval.text import visible

err = Console(stderr=True, highlight=False)

Tick = Callable[[float, float], None]
"""Called with the amount done and the total."""

_LINE_EVERY_S = 30.0


def no_progress(done: float, total: float) -> None:
    """Show nothing."""


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show a spinner during work of unknown length."""
    with err.status(escape(visible(text))) if _is_live() else nullcontext():
        yield


class _Speed(ProgressColumn):
    """Shows items/s, forward passes/s and the time left; forward passes also update between two items."""

    def __init__(
        self,
        forwards: Callable[[], int] | None,
        unit: str,
        note: Callable[[], str] | None,
        share: Callable[[], float | None] | None,
    ) -> None:
        super().__init__()
        self._forwards, self._share = forwards, share
        self._unit, self._note = unit, note
        self._passes_before = forwards() if forwards else 0
        self._began = time.monotonic()
        self.first: float | None = None
        """Amount that was already done at the start, which the speed leaves out."""

    def render(self, task: Task) -> Text:
        return Text(self.text(task.completed, task.total))

    def text(self, done: float, total: float | None) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        fresh = done - (self.first or 0.0)
        words = [f"{fresh / seconds:.3g} {self._unit}/s"] if fresh else []
        if self._forwards:
            words.append(f"{(self._forwards() - self._passes_before) / seconds:.4g} forward passes/s")
        share = self._share() if self._share else None
        if share:
            words.append(f"{'' if fresh else 'at most '}{timedelta(seconds=round(seconds * (1 - share) / share))} left")
        elif fresh and total is not None:
            words.append(f"{timedelta(seconds=round((total - done) * seconds / fresh))} left")
        if self._note:
            words.append(self._note())
        return ", ".join(words)


@contextmanager
def progress(
    text: str,
    *,
    unit: str = "items",
    forwards: Callable[[], int] | None = None,
    note: Callable[[], str] | None = None,
    share: Callable[[], float | None] | None = None,
    transient: bool = False,
) -> Iterator[Tick]:
    """Show progress with items/s, forward passes/s and the time left.

    Args:
        note: returns text for the end of the bar.
        share: returns the completed share of this start's work, in [0, 1], where items tell it less precisely.
    Yields:
        A function to call with (items done, of how many).
    """
    speed, last = _Speed(forwards, unit, note, share), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), speed)
    bar, live = Progress(*columns, console=err, transient=transient), _is_live()
    with bar if live else nullcontext():
        task = bar.add_task(text, total=None)

        def tick(done: float, total: float) -> None:
            nonlocal last
            if speed.first is None:
                speed.first = done
            bar.update(task, completed=done, total=total)
            if not live and time.monotonic() - last > _LINE_EVERY_S:
                last = time.monotonic()
                err.print(escape(f"{text}: {done:.0f} of {total:.0f}, {speed.text(done, total)}"), soft_wrap=True)

        yield tick


def _is_live() -> bool:
    """Return True where a bar can be drawn; in a notebook ipywidgets draws it."""
    return err.is_terminal or (err.is_jupyter and find_spec("ipywidgets") is not None)
