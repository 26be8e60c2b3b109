"""What may go wrong with one item while the run goes on: its data, its answer, or the memory that it needs."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from safemed_eval.errors import DataError, ModelOutputError, SafemedError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_log = logging.getLogger(__name__)

FAULTS = (DataError, ModelOutputError, RuntimeError, MemoryError)
"""What to catch around the work on an item; `is_fault` tells its faults from bugs."""
BROKEN_GRADIENT = "the model's gradient is not finite"
"""How the error of an item begins whose search met one."""


@contextmanager
def faults_of_the_model(who: str = "the model") -> Iterator[None]:
    """Whatever a model raises is the fault of these rows, and names its place; memory and our own errors pass.

    Args:
        who: raised it, for the message; whoever works on the model's rows.
    """
    try:
        yield
    except SafemedError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ModelOutputError(f"{who} raised {place_of(error)}") from error


def refuse_broken_gradient(slope: torch.Tensor) -> None:
    """Raise ModelOutputError where a row is not finite: its sign would be 0, and the image would pass for robust."""
    broken = int((~slope.isfinite()).flatten(1).any(1).sum())
    if broken:
        raise ModelOutputError(f"{BROKEN_GRADIENT} for {broken} of {len(slope)} rows")


def place_of(error: BaseException) -> str:
    """An error in one line, with the file and line that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {text}"


class ShrinkingBatch:
    """A batch size that is halved when memory runs out, for all that follows."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, work: Callable[[int], T]) -> T:
        """`work(size)`, from its start again with half the size after each out-of-memory error.

        Raises:
            The error itself, when a batch of one does not fit either.
        """
        while True:
            try:
                return work(self.size)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or self.size == 1:
                    raise
            self.size //= 2
            _log.warning("out of memory: going on with batches of %d", self.size)
            release()


def is_fault(error: BaseException) -> bool:
    """Whether the error is the item's own: it becomes the item's record, and the run goes on."""
    return isinstance(error, (DataError, ModelOutputError)) or out_of_memory(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether this is CUDA's or the CPU's way to say that memory is used up."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "alloc_cpu" in str(error)


def release() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
