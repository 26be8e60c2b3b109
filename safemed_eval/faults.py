"""Errors that concern single items and do not end the run: bad data, bad model output, too little memory."""

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
"""Exceptions to catch around the work on an item; `is_fault` separates its faults from bugs."""
BROKEN_GRADIENT = "the model's gradient is not finite"
"""Start of an item's error message where the gradient was not finite during the search."""


@contextmanager
def faults_of_the_model(who: str = "the model") -> Iterator[None]:
    """Convert any exception raised by the model into a ModelOutputError that names the failing line.

    Out-of-memory errors and errors of this package pass through unchanged.

    Args:
        who: the code that is called, for the message.
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
    """Raise ModelOutputError where a row is not finite: no step would be made, and the image would seem robust."""
    broken = int((~slope.isfinite()).flatten(1).any(1).sum())
    if broken:
        raise ModelOutputError(f"{BROKEN_GRADIENT} for {broken} of {len(slope)} rows")


def place_of(error: BaseException) -> str:
    """Format an error on one line, with the file and line that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {text}"


class ShrinkingBatch:
    """A batch size that is halved, from then on, whenever memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, work: Callable[[int], T]) -> T:
        """Call `work(size)`, again from its start with half the size after each out-of-memory error.

        Raises:
            The out-of-memory error, if a batch of one does not fit either.
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
    """Return True for an error that is recorded with the item, while the run goes on."""
    return isinstance(error, (DataError, ModelOutputError)) or out_of_memory(error)


def out_of_memory(error: BaseException) -> bool:
    """Return True for an out-of-memory error of CUDA or of the CPU."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "alloc_cpu" in str(error)


def release() -> None:
    """Free memory that is no longer referenced, on the GPU too."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
