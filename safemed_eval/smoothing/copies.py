"""Noisy copies of an image: the same draws for every batch size, worker count and restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from safemed_eval.smoothing.noise import Noise

CHUNK = 16
"""Draws per generator. Part of the noise's identity: another size draws other noise, and counts other votes."""

Streams = Callable[[int], torch.Generator]
"""Maps a chunk's index to its generator."""


@torch.no_grad()
def noisy_copies(
    canvas: torch.Tensor, noise: Noise, n: int, batch: int, streams: Streams, first: int = 0
) -> Iterator[torch.Tensor]:
    """Yield n noisy copies of one image, `batch` at a time, in memory that does not grow with n.

    Whole chunks are drawn and cut, so that the first copies are the same for every n.

    Args:
        canvas: (3, H, W) float32.
        first: leave out the copies before this one, a multiple of CHUNK; none of them is drawn.
    Yields:
        (b, 3, H, W) float32, not clamped; valid until the next batch is taken.
    """
    if first % CHUNK:
        raise ValueError(f"first must be a multiple of {CHUNK}, got {first}")
    copies = canvas.new_empty((batch + CHUNK - 1, *canvas.shape))
    ready, chunk = 0, first // CHUNK
    while n:
        size = min(batch, n)
        while ready < size:
            copies[ready : ready + CHUNK] = noise.apply(canvas, noise.draw(canvas, CHUNK, streams(chunk)))
            ready += CHUNK
            chunk += 1
        yield copies[:size]
        ready -= size
        copies[:ready] = copies[size : size + ready].clone()
        n -= size
