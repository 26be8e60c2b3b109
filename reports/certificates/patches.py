"""How often certificates against patches are false: every patch on every image of a toy.

    python reports/certificates/patches.py               # 10,240 certificates, half a minute on one core

A canvas of 8 columns is black or white in each, 256 images in all. Models vote by random tables for what the columns
of a copy show: black, white or the cover. In each table some share of the entries, one of four, is the same answer.
Each image is certified by the product's own code; then every other image that differs from it in as many neighbouring
columns as certified, which is every content of every such patch, must have the same majority.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from safemed_eval.core import Question
from safemed_eval.models.waist import Waist
from safemed_eval.smoothing import Patch
from safemed_eval.smoothing.bands import certify_bands

QUESTION = Question(text="Which?", options=("A", "B", "C"))
WIDTH = 8
PATCHES = [Patch(band=band, stride=stride) for band, stride in ((1, 1), (2, 1), (2, 2), (3, 1), (3, 2))]
IMAGES = np.array(list(product((0, 1), repeat=WIDTH)))
SHARES = (0.5, 0.7, 0.85, 0.95)


class Table:
    """Votes for A, B, C or "no answer" by a random table for what columns show: black, white or the middle grey."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        usual = rng.random(3**WIDTH) < SHARES[seed % len(SHARES)]
        self._table = torch.tensor(np.where(usual, rng.integers(3), rng.integers(4, size=3**WIDTH)))

    def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
        digits = (2 * canvas[:, 0, 0]).round().long()
        return self._table[(digits * 3 ** torch.arange(WIDTH)).sum(1)]


@dataclass(frozen=True, kw_only=True)
class Enumerated:
    """Certificates held against every patch.

    Attributes:
        false: how many some patch of the certified size refutes.
        tight: how many some patch with one column more refutes.
        radii: how many there are of each size.
    """

    attempted: int
    certified: int
    false: int
    tight: int
    radii: dict[int, int]


def enumerated(count: int) -> Enumerated:
    """Make at least so many certificates, and hold each against every patch."""
    models = -(-count // len(IMAGES))
    false = tight = attempted = 0
    sizes: list[int] = []
    spans = _spans()
    for seed in range(models):
        patch, vote = PATCHES[seed % len(PATCHES)], Waist(Table(seed), torch.device("cpu")).vote(QUESTION)
        made = []
        for row in IMAGES:
            canvas = torch.tensor(row, dtype=torch.float32).expand(3, 2, WIDTH)
            made.append(certify_bands(vote, canvas, patch, fill=(0.5, 0.5, 0.5), batch=WIDTH))
        answers = np.array([-1 if found.prediction is None else found.prediction for found in made])
        differs = answers[:, None] != answers
        for number, found in enumerate(made):
            attempted += 1
            if found.radius is None:
                continue
            size = int(found.radius)
            sizes.append(size)
            false += bool((differs[number] & (spans[number] <= size)).any())
            tight += bool((differs[number] & (spans[number] <= size + 1)).any())
    radii = {size: sizes.count(size) for size in sorted(set(sizes))}
    return Enumerated(attempted=attempted, certified=len(sizes), false=false, tight=tight, radii=radii)


def _spans() -> np.ndarray:
    """The number of neighbouring columns in which two images differ, for each pair of images."""
    changed = IMAGES[:, None] != IMAGES
    first, last = changed.argmax(2), WIDTH - 1 - changed[..., ::-1].argmax(2)
    return np.where(changed.any(2), last - first + 1, 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_240, help="certificates, at least")
    print(enumerated(parser.parse_args().count))
