"""Gaussian noise that belongs to an item: the same draws for every batch size, worker count and restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

CHUNK = 16
"""Draws per generator. Part of the noise's identity: changing it changes every certificate in the last digits."""

Source = Callable[[int], torch.Generator]
"""From a chunk's index to its generator."""


def noisy_copies(canvas: torch.Tensor, sigma: float, n: int, batch: int, source: Source) -> Iterator[torch.Tensor]:
    """n noisy copies of one image, `batch` at a time.

    Noise is drawn and added in float32, whatever the model computes in. Whole chunks are drawn and cut, so that the
    first copies are the same for every n.

    Args:
        canvas: (3, H, W) float32.
    Yields:
        (b, 3, H, W) float32, not clamped.
    """
    left, chunk = n, 0
    drawn = canvas.new_empty((0, *canvas.shape))
    while left:
        want = min(batch, left)
        parts = [drawn]
        have = len(drawn)
        while have < want:
            noise = torch.randn((CHUNK, *canvas.shape), generator=source(chunk), device=canvas.device)
            parts.append(noise.mul_(sigma).add_(canvas))
            have += CHUNK
            chunk += 1
        drawn = torch.cat(parts) if len(parts) > 2 or len(drawn) else parts[-1]
        yield drawn[:want]
        drawn = drawn[want:]
        left -= want
