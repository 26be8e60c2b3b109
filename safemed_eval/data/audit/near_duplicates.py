"""Near duplicates: images that look alike, by the distance of their perceptual hashes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safemed_eval.data.images.fingerprints import Words
from safemed_eval.progress import Tick, no_progress

NEAR = 16
"""Bits, of 256, in which the hashes of two copies of one image may differ.

Measured on 217 medical images of eight modalities: saved again as JPEG (quality 75), halved, or stretched to 224 x 224
none of them moves by more than 6; brighter by a fifth, 99 % move by at most 16; cut by 5 % at the edges none by fewer
than 20. Of the 23,436 pairs of different images one is within 16: two neighbouring slices of one CT series. With 64
bits, the usual size, copies and neighbours overlap.
"""
_ROWS, _COLUMNS = 64, 4096


def nearest(
    ours: Sequence[Words], theirs: Sequence[Words], progress: Tick = no_progress
) -> list[tuple[int, int] | None]:
    """Find the nearest of `theirs` for each of our hashes: its index and its distance in bits; None beyond NEAR.

    Of several at the same distance, the first counts. Compares all pairs, in blocks that stay in the processor's cache:
    the first 64 bits rule most pairs out.

    Args:
        ours, theirs: (W,) words each.
        progress: called with (our hashes done, our hashes in all).
    """
    pairs: list[tuple[int, int] | None] = [None] * len(ours)
    if not len(ours) or not len(theirs):
        return pairs
    mine, other = np.stack(ours), np.stack(theirs)
    least, place = np.full(len(mine), NEAR + 1), np.zeros(len(mine), dtype=np.int64)
    first, of_first = np.ascontiguousarray(mine[:, 0]), np.ascontiguousarray(other[:, 0])
    for top in range(0, len(mine), _ROWS):
        for left in range(0, len(other), _COLUMNS):
            columns = of_first[left : left + _COLUMNS]
            bits = np.bitwise_count(first[top : top + _ROWS, None] ^ columns)
            row, column = np.divmod(np.flatnonzero(bits <= NEAR), len(columns))
            row, column = row + top, column + left
            distance = np.bitwise_count(mine[row] ^ other[column]).sum(1, dtype=np.int64)
            # When a row is written several times, numpy keeps the last value: the nearest, and of these the first.
            order = np.lexsort((-column, -distance))
            order = order[distance[order] < least[row[order]]]
            least[row[order]], place[row[order]] = distance[order], column[order]
        progress(min(top + _ROWS, len(mine)), len(mine))
    for here in np.flatnonzero(least <= NEAR).tolist():
        pairs[here] = int(place[here]), int(least[here])
    return pairs
