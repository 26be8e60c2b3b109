"""Noisy copies of an image: the same draws for every batch size, worker count and restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

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

    Whole chunks are drawn and cut, so that the first copies are the same for every n. On a CPU chunks are drawn in as
    many threads as torch computes with: each has a generator of its own, so that threads change nothing.

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

    def fill(number: int) -> None:
        """Draw this chunk at its place among the copies."""
        start = ready + (number - chunk) * CHUNK
        with torch.no_grad():  # a setting of the thread
            copies[start : start + CHUNK] = noise.apply(canvas, noise.draw(canvas, CHUNK, streams(number)))

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        spread = threads.map if canvas.device.type == "cpu" else map
        while n:
            size = min(batch, n)
            missing = -(-max(0, size - ready) // CHUNK)
            list(spread(fill, range(chunk, chunk + missing)))
            ready, chunk = ready + missing * CHUNK, chunk + missing
            yield copies[:size]
            ready -= size
            copies[:ready] = copies[size : size + ready].clone()
            n -= size
