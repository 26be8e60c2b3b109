"""Random generators that belong to an item and a purpose, never to the program.

The same parts give the same stream whatever ran before, in whichever order, on however many workers.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*parts: str | int) -> int:
    """A 63-bit seed from the sha256 of the parts, e.g. `seed_of(0, "certify", item.id, chunk)`."""
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device | str, *parts: str | int) -> torch.Generator:
    """A torch generator on `device`, seeded by `seed_of(*parts)`.

    Streams are equal between machines with the same device: those of the CPU and of different GPUs differ. On the CPU
    torch uses 32 bits of the seed, so that among 65,000 streams two may be equal: of two items, in practice.
    """
    import torch

    return torch.Generator(device=device).manual_seed(seed_of(*parts))
