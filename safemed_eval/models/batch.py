"""Find by trying how many rows should go through a model together."""

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
"""The largest batch that is tried."""
_TRIES = 4
_PAYS = 1.05
"""The factor by which doubling the batch must speed up a row to be worth the memory."""
_FULL = 0.9
"""The largest share of an accelerator's memory that may be in use."""

Fullness = Callable[[torch.device], float]
"""Maps a device to the peak share of its memory in use since the last call; 0 if unknown."""


def find_batch(
    model: Waist,
    size: tuple[int, int],
    *,
    options: int = 4,
    gradients: bool,
    clock: Callable[[], float] = time.perf_counter,
    fullness: Fullness | None = None,
) -> int:
    """Double the batch until a row hardly gets faster, or memory is nine tenths full.

    Times vary, and so may the result; a caller who needs the same batch again has to keep it.

    Args:
        size: height and width of the canvases.
        options: number of options of the question that is asked.
        gradients: rows are attacked, which takes more memory.
    """
    question = Question(text="Which imaging modality is this?", options=tuple(f"no. {i}" for i in range(options)))
    canvas = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(0)).to(model.device)
    full = fullness or _fullness

    def seconds(rows: int) -> float:
        """The time per row: the best of a few tries after a first one."""
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
    """The batch size that --batch-size asks for; see `find_batch` for "auto" and the other arguments."""
    if wanted != "auto":
        return wanted or default
    assert size is not None
    batch = find_batch(model, size, gradients=gradients)
    _log.warning("batches of %d", batch)
    return batch


def _fullness(device: torch.device) -> float:
    if device.type != "cuda":
        return 0.0
    share = torch.cuda.max_memory_allocated(device) / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.reset_peak_memory_stats(device)
    return share
