"""Gaussian noise that belongs to an item: the same draws for every batch size, worker count and restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

CHUNK = 16
"""Draws per generator. Part of the noise's identity: another size draws other noise, and counts other votes."""

Streams = Callable[[int], torch.Generator]
"""From a chunk's index to its generator."""


def noisy_copies(
    canvas: torch.Tensor, sigma: float, n: int, batch: int, streams: Streams, first: int = 0
) -> Iterator[torch.Tensor]:
    """n noisy copies of one image, `batch` at a time, in memory that does not grow with n.

    Noise is drawn and added in float32, whatever the model computes in. Whole chunks are drawn and cut, so that the
    first copies are the same for every n.

    Args:
        canvas: (3, H, W) float32.
        first: leave out the copies before this one, a multiple of CHUNK; none of them is drawn.
    Yields:
        (b, 3, H, W) float32, not clamped; valid until the next batch is taken.
    """
    if first % CHUNK:
        raise ValueError(f"first must be a multiple of {CHUNK}, got {first}")
    noise = canvas.new_empty((batch + CHUNK - 1, *canvas.shape))
    drawn, chunk = 0, first // CHUNK
    while n:
        size = min(batch, n)
        while drawn < size:
            noise[drawn : drawn + CHUNK].normal_(0, sigma, generator=streams(chunk))
            drawn += CHUNK
            chunk += 1
        yield noise[:size].add_(canvas)
        drawn -= size
        noise[:drawn] = noise[size : size + drawn].clone()
        n -= size
