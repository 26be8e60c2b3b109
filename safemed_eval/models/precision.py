"""Hold a model in float32 for a while: half precision cannot tell two functions apart that differ by its rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from safemed_eval.errors import CheckpointError
from safemed_eval.faults import out_of_memory, release

_HALF = (torch.float16, torch.bfloat16)


def is_half(model: Any) -> bool:
    """Whether any weight or buffer is a 16-bit float."""
    return any(tensor.dtype in _HALF for tensor in _tensors(model))


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Hold the 16-bit weights and buffers of a model in float32 inside this block, in place.

    Every 16-bit float is a float32, so the weights behind the block are those before it, bit by bit. Memory: as much
    again as the weights take.

    Raises:
        CheckpointError: the weights are quantized or offloaded, the device's memory cannot hold them so, or the
            attention computes in half precision only.
    """
    tensors = list(_tensors(model))
    if getattr(model.config, "quantization_config", None) is not None:
        raise CheckpointError("quantized weights have no float32 form")
    attention = str(getattr(model.config, "_attn_implementation", None))
    if "flash" in attention:
        raise CheckpointError(f"the attention {attention} computes in half precision only")
    if any(tensor.is_meta for tensor in tensors):
        raise CheckpointError("weights are offloaded")
    widened: list[tuple[torch.Tensor, torch.dtype]] = []
    try:
        for tensor in tensors:
            if tensor.dtype in _HALF:
                before, tensor.data = tensor.dtype, tensor.data.float()
                widened.append((tensor, before))
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise CheckpointError("the device's memory cannot hold the weights in float32") from error
    finally:
        for tensor, dtype in widened:
            tensor.data = tensor.data.to(dtype)
        release()


def _tensors(model: Any) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()
