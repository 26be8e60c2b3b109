"""How many rows should go through a model together: found by trying."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

import torch

from safemed_eval.core import Question
from safemed_eval.faults import out_of_memory, release
from safemed_eval.models.waist import Waist

_log = logging.getLogger(__name__)

MOST = 1024
"""Rows that are tried at most."""
_TRIES = 4
_PAYS = 1.05
"""By what factor twice as many rows must be faster, per row, to be worth their memory."""
_FULL = 0.9
"""The share of an accelerator's memory that may be in use."""

Fullness = Callable[[torch.device], float]
"""From a device to the share of its memory that was in use at the peak since it was last asked; 0 where unknown."""


def find_batch(
    model: Waist,
    size: tuple[int, int],
    *,
    options: int = 4,
    gradients: bool,
    clock: Callable[[], float] = time.perf_counter,
    fullness: Fullness | None = None,
) -> int:
    """Double the batch until that makes a row hardly faster, or memory is nine tenths full.

    Times differ between two tries, and so may the answer; whoever needs the same batch again keeps it.

    Args:
        size: height and width of the canvases.
        options: of the question that is asked.
        gradients: whether rows are attacked, which takes more memory.
    """
    question = Question(text="Which imaging modality is this?", options=tuple(f"no. {i}" for i in range(options)))
    canvas = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(0)).to(model.device)
    full = fullness or _fullness

    def seconds(rows: int) -> float:
        """A row's time, at the best of a few tries behind a first one."""
        times = []
        for _ in range(_TRIES):
            started = clock()
            shown = canvas.repeat(rows, 1, 1, 1)
            if gradients:
                shown.requires_grad_()
                torch.autograd.grad(model.classify([question] * rows)(shown)[:, 0].sum(), shown)
            else:
                model.vote(question)(shown)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            times.append((clock() - started) / rows)
        return min(times[1:])

    best, rate = 1, seconds(1)
    full(model.device)
    while best < MOST:
        try:
            faster = seconds(2 * best)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            release()
            return best
        if full(model.device) > _FULL or rate < _PAYS * faster:
            return best
        best, rate = 2 * best, faster
    return best


def batch_of(
    wanted: int | Literal["auto"] | None, default: int, model: Waist, size: tuple[int, int] | None, *, gradients: bool
) -> int:
    """The batch that --batch-size asks for; see `find_batch` for "auto" and the other arguments."""
    if wanted != "auto":
        return wanted or default
    assert size is not None
    found = find_batch(model, size, gradients=gradients)
    _log.warning("batches of %d", found)
    return found


def _fullness(device: torch.device) -> float:
    if device.type != "cuda":
        return 0.0
    share = torch.cuda.max_memory_allocated(device) / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.reset_peak_memory_stats(device)
    return share
