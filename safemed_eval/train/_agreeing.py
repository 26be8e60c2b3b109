"""Groups of completions that all earn the same: which they are, and a batch in which they are drawn again."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from safemed_eval.codec import Json

_OF_COMPLETIONS = ("completion_ids", "completion_mask", "advantages", "ref_per_token_logps", "old_per_token_logps")
_OF_TEXTS = ("token_type_ids", "mm_token_type_ids")


def agreeing(advantages: torch.Tensor, size: int, least: float) -> torch.Tensor:
    """Return which groups have no advantage: (B,) advantages of groups of `size` -> (B / size,) bools."""
    return (advantages.view(-1, size).abs() < least).all(1)


def replaced(batch: Json, again: Json, rows: torch.Tensor, drawn: torch.Tensor, pad: int) -> Json:
    """Put completions of `again`, which is about some of the batch's questions, in the places of the batch's own.

    Args:
        batch, again: what TRL makes of its inputs; their prompts are equal but for padding.
        rows: places in the batch; drawn: as many places in `again`.
        pad: the token that completions are padded with.
    Returns:
        The batch, with completions as wide as the longest.
    """
    made = dict(batch)
    width = max(batch["completion_ids"].shape[1], again["completion_ids"].shape[1])
    for name in (name for name in _OF_COMPLETIONS if name in batch):
        old, new = (
            part
            if part.ndim == 1
            else F.pad(part, (0, width - part.shape[1]), value=pad if name == "completion_ids" else 0)
            for part in (batch[name], again[name])
        )
        made[name] = old.clone()
        made[name][rows] = new[drawn]
    for name in (name for name in _OF_TEXTS if name in batch):
        made[name] = F.pad(batch[name], (0, width - batch["completion_ids"].shape[1]))
    return made
