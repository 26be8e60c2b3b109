"""Random generators seeded by item and purpose instead of global state.

The same parts give the same stream, whatever ran before, in any order, on any number of workers.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*parts: str | int) -> int:
    """Return a 63-bit seed from the sha256 of the parts, e.g. `seed_of(0, "certify", item.id, chunk)`."""
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def order_of(count: int, *parts: str | int) -> tuple[int, ...]:
    """Return the numbers 0 .. count - 1 in an order that the parts determine; all orders are equally likely.

    It is drawn from hashes, which depend neither on the device nor on the version of a random generator.
    """
    return tuple(sorted(range(count), key=lambda place: seed_of(*parts, place)))


def generator(device: torch.device | str, *parts: str | int) -> torch.Generator:
    """Create a torch generator on `device`, seeded by `seed_of(*parts)`.

    Streams are equal between machines with the same kind of device; CPUs and different GPUs give different streams.
    On the CPU torch uses only 32 bits of the seed, so that among 65,000 streams two may coincide, in practice those of
    two different items.
    """
    import torch

    return torch.Generator(device=device).manual_seed(seed_of(*parts))
