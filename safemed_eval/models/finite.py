"""Find NaN and infinity in tensors, and name the weights that hold them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from safemed_eval.errors import CheckpointError
from safemed_eval.models.checkpoints.protocols import Network


def is_finite(value: torch.Tensor) -> bool:
    """True if all values are finite. Their sum, which is fast and takes no memory, decides most cases."""
    return bool(_sum(value).isfinite()) or bool(value.isfinite().all())


def refuse_not_finite(module: torch.nn.Module | Network, where: str) -> None:
    """Raise CheckpointError if a weight holds NaN or infinity, or a buffer NaN; `where` begins the message.

    Answers do not always show such a weight: its row may not be read, or a maximum may hide it.
    """
    for name, weight in module.named_parameters():
        _refuse(name, weight, where, torch.isfinite)
    for name, buffer in module.named_buffers():
        _refuse(name, buffer, where, _is_number)  # masks are made of infinities


def _refuse(name: str, value: torch.Tensor, where: str, good: Callable[[torch.Tensor], torch.Tensor]) -> None:
    if value.is_meta or not value.is_floating_point() or value.itemsize < 2 or bool(_sum(value).isfinite()):
        return
    broken = int((~good(value)).sum())
    if broken:
        hint = "; float16 ends at 65,504, try --dtype bfloat16 or float32" if value.dtype == torch.float16 else ""
        raise CheckpointError(
            f"{where}: {broken} of {value.numel()} values of the weight {name} are NaN or infinite{hint}"
        )


def _is_number(value: torch.Tensor) -> torch.Tensor:
    return ~value.isnan()


def _sum(value: torch.Tensor) -> torch.Tensor:
    """The sum, which is NaN or infinite if any value is, and rarely otherwise. No copy of the weights is made."""
    return value.detach().sum(dtype=torch.promote_types(value.dtype, torch.float32))
