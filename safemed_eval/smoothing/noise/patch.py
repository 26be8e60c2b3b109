"""patch: no noise, but every band of columns shown alone (patch:size=32,band=48,stride=4), and a radius in pixels."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from safemed_eval.grammar import ALWAYS
from safemed_eval.smoothing.noise._base import Kind, View

WIDEST = 2**16
"""Largest number of columns of an option: no canvas is wider."""


@dataclass(frozen=True)
class Patch(Kind):
    """Ablation to each vertical band of columns in turn; what most copies answer cannot be turned by a small patch.

    Each copy shows `band` neighbouring columns of the canvas, from column 0, stride, 2 stride, ... on and around the
    right edge; all other pixels have one colour that does not depend on the image. Each copy votes once, for one of the
    classes 0 .. K, K meaning "no answer". The class with most votes is the answer, the first of those that tie.

    *Certificate.* Let a patch of m x m pixels take any values. It lies in m neighbouring columns, and no m neighbouring
    columns are shown, in part, by more than D(m) of the copies. Every other copy is the same with the patch as without,
    and so is its vote. So the answer c keeps at least n_c - D of its n_c votes, and another class j gets at most
    n_j + D. c is the answer with every such patch if

        n_c - D(m) >= n_j + D(m) + [j < c]  for every j other than c,

    where [j < c] = 1 if j comes first and so would win a tie, else 0. In other words D(m) <= lead / 2, with the lead
    min over j of n_c - n_j - [j < c]. D never falls as m grows, since m columns are part of m + 1. The radius is
    the largest such m; 0 says only what the answer is. Nothing is drawn, so no certificate is false by chance. It is
    about the canvas, about models whose answer to a copy is a fixed function of that copy, and about any change that is
    confined to m neighbouring columns, a patch or not.

    D(m) is counted over all places of m columns on the canvas. Where stride divides the width W it is at most the
    smaller of W / stride and ceil((m + band - 1) / stride), and equal to it for m <= W - stride.

    Args:
        size: side of the patch that reports show first, in canvas pixels; the votes do not depend on it.
        band: columns that a copy shows.
        stride: columns from one band to the next.
    Source:
        Levine and Feizi 2020 (arXiv:2002.10733), Theorem 1 for bands; Salman et al. 2022 (arXiv:2110.07719) for vision
        transformers. Differs: strides in bands at the canvas's resolution, no dropping of tokens, D counted and not
        bounded by a formula, and a tie goes to the first class.
    """

    size: int = field(default=32, metadata=ALWAYS)
    band: int = field(default=48, metadata=ALWAYS)
    stride: int = field(default=4, metadata=ALWAYS)

    name = "patch"
    randomness = "nothing is drawn, each band of columns votes once"
    measure = "patch"
    radius_name = "patch size"
    unit = "canvas pixels"

    def __post_init__(self) -> None:
        for name in ("size", "band", "stride"):
            if not 1 <= (value := getattr(self, name)) <= WIDEST:
                raise ValueError(f"{name} is a number of pixels, at least 1 and at most {WIDEST:,}, got {value}")

    def starts(self, width: int) -> range:
        """The first column of each band on a canvas of this width."""
        return range(0, width, self.stride)

    def met(self, size: int, width: int) -> int:
        """D: the largest number of bands that some `size` neighbouring columns meet, on a canvas of this width."""
        return _met(self.band, self.stride, size, width)

    def largest(self, lead: int, view: View) -> int:
        """The side of the largest patch that cannot turn a vote with this lead, in pixels; see the class.

        A side beyond the canvas's height stands for a change of that many whole columns.
        """
        sizes = range(view.width + 1)
        return bisect_right(sizes, lead // 2, key=lambda size: self.met(size, view.width)) - 1

    def words(self, radius: float) -> str:
        return f"any patch of {int(radius)} x {int(radius)} pixels of the canvas, wherever it lies"


@lru_cache(maxsize=4096)
def _met(band: int, stride: int, size: int, width: int) -> int:
    if size == 0:
        return 0
    columns = np.arange(width)
    shown = (columns - np.arange(0, width, stride)[:, None]) % width < band
    before = np.pad(shown.cumsum(1), ((0, 0), (1, 0)))
    meets = before[:, size:] > before[:, : width + 1 - size]
    return int(meets.sum(0).max())


NOISE = Patch
