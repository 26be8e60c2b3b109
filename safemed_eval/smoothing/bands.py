"""Ablation of an image to bands of its columns, and the certificates against patches that it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from safemed_eval.core import Certificate, Vote
from safemed_eval.smoothing.certify import view_of
from safemed_eval.smoothing.noise.patch import Patch
from safemed_eval.smoothing.votes import read_bands

Colour = tuple[float, float, float]
"""Red, green and blue in [0, 1] units."""


def ablated(canvas: torch.Tensor, starts: Sequence[int], band: int, fill: Colour) -> torch.Tensor:
    """Replace all columns but one band of them: (3, H, W) float32 -> (n, 3, H, W), differentiable in the canvas.

    A copy is a function of the columns in its band alone, which is all that a certificate needs.

    Args:
        starts: the first column of each copy's band, which wraps around at the right edge.
        band: number of columns that stay.
        fill: the colour of the others.
    """
    columns = torch.arange(canvas.shape[2], device=canvas.device)
    first = torch.tensor(starts, device=canvas.device).unsqueeze(1)
    shown = (columns - first) % canvas.shape[2] < band
    return canvas.where(shown[:, None, None, :], canvas.new_tensor(fill).view(3, 1, 1))


def banded_copies(
    canvas: torch.Tensor, starts: Sequence[int], band: int, fill: Colour, batch: int
) -> Iterator[torch.Tensor]:
    """Yield the ablated copies of a canvas, `batch` at a time: (b, 3, H, W) float32; see `ablated`."""
    for first in range(0, len(starts), batch):
        yield ablated(canvas, starts[first : first + batch], band, fill)


@torch.no_grad()
def certify_bands(vote: Vote, canvas: torch.Tensor, patch: Patch, *, fill: Colour, batch: int) -> Certificate:
    """Certify the answer around one image against patches: every band of its columns votes once.

    Args:
        vote: (B, 3, H, W) float32 -> (B,) int64 class ids in [0, K]; K means "no answer".
        canvas: (3, H, W) float32 in [0, 1], on the vote's device.
        fill: the colour of all columns outside of a band; must not depend on the image.
        batch: copies per call of `vote`.
    Returns:
        The radius is the side in pixels of the largest patch that cannot turn the answer; see `noise.patch`.
    Raises:
        ModelOutputError: the model returned NaN or infinite scores.
    Source:
        Levine and Feizi 2020 (arXiv:2002.10733); see `noise.patch` for the proof and for what differs.
    """
    copies = banded_copies(canvas, patch.starts(canvas.shape[2]), patch.band, fill, batch)
    return read_bands(vote.count(copies), patch, view_of(canvas))
