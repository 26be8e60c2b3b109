"""Noisy copies of an image: the same draws for every batch size, worker count and restart."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

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
    ready, chunks = 0, _drawn(canvas, noise, streams, range(first // CHUNK, -((first + n) // -CHUNK)))
    with closing(chunks):
        while n:
            size = min(batch, n)
            while ready < size:
                copies[ready : ready + CHUNK] = noise.apply(canvas, next(chunks))
                ready += CHUNK
            yield copies[:size]
            ready -= size
            copies[:ready] = copies[size : size + ready].clone()
            n -= size


def _drawn(canvas: torch.Tensor, noise: Noise, streams: Streams, chunks: range) -> Generator[torch.Tensor]:
    """Draw chunks of noise, on a CPU as many at a time as torch has threads: NumPy uses one for each."""
    threads = torch.get_num_threads() if canvas.device.type == "cpu" else 1
    with ThreadPoolExecutor(threads) as pool:
        each = pool.map if threads > 1 else map
        for start in range(0, len(chunks), threads):
            yield from each(lambda chunk: noise.draw(canvas, CHUNK, streams(chunk)), chunks[start : start + threads])
