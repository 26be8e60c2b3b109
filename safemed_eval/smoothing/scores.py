"""Expectation over transformation: the differentiable scores of a smoothed model, for attacks on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from safemed_eval.core import Classify
from safemed_eval.smoothing.noise import Noise


class SmoothedClassify:
    """The logarithm of the mean probabilities over m noisy copies of each row, drawn anew at every call.

    Args:
        classify: the model without noise.
        m: copies of a row in each call.
        generators: one per row, so that a row's noise does not depend on its batch mates.
    Source:
        Salman et al. 2019 (arXiv:1906.04584), SmoothAdv, equation (6). Differs: the noise of each step is its own.
    """

    def __init__(self, classify: Classify, *, noise: Noise, m: int, generators: Sequence[torch.Generator]) -> None:
        self._classify = classify
        self._copies = classify.take([row for row in range(len(generators)) for _ in range(m)])
        self._noise, self._m = noise, m
        self._generators = generators

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        """Score canvases: (B, 3, H, W) float32 -> (B, K) float32, differentiable; padded options stay at -inf."""
        draws = torch.cat([self._noise.draw(canvas[0], self._m, rng) for rng in self._generators])
        copies = self._noise.apply(canvas.repeat_interleave(self._m, dim=0), draws)
        log_probs = self._copies(copies)
        log_probs = log_probs.view(len(canvas), self._m, log_probs.shape[1])
        padding = log_probs.isneginf().all(1)
        total: torch.Tensor = log_probs.masked_fill(padding.unsqueeze(1), 0.0).logsumexp(1)
        return (total - math.log(self._m)).masked_fill(padding, -torch.inf)

    def take(self, rows: Sequence[int]) -> SmoothedClassify:
        return SmoothedClassify(
            self._classify.take(rows), noise=self._noise, m=self._m, generators=[self._generators[row] for row in rows]
        )
