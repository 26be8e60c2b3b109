"""Hold a model in float32 for a while: half precision cannot distinguish functions that differ by its rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from safemed_eval.errors import CheckpointError
from safemed_eval.faults import out_of_memory, release
from safemed_eval.models.checkpoints.protocols import Network

_HALF = (torch.float16, torch.bfloat16)


def is_half(model: Network) -> bool:
    """True if any weight or buffer is a 16-bit float."""
    return any(tensor.dtype in _HALF for tensor in _tensors(model))


@contextmanager
def in_float32(model: Network) -> Iterator[None]:
    """Hold the 16-bit weights and buffers of a model in float32 inside this block, in place.

    Every 16-bit float is also a float32, so the weights after the block equal those before it bit by bit. The block
    needs as much memory again as the weights.

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


def _tensors(model: Network) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()
