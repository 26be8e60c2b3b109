"""A decoded image, 8-bit RGB; the choice of its frame, and the conversion of deep greys to 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from safemed_eval.errors import DataError

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]
"""Numbers of any type, as a file stores them."""

MAX_PIXELS = 89_478_485
"""Pillow's own warning limit: a larger image is refused as a decompression bomb."""


@dataclass(frozen=True)
class Window:
    """The greys of a file whose stored values go through one straight line, cut off at black and at white.

    Args:
        greys: (H, W) float64 in [0, 255], not rounded.
        gain: grey levels per stored value, above 0. Stored values that change by d in L2 length change the greys by at
            most gain * d, as long as padding stays padding and nothing else becomes it.
        cut: share of the pixels that are black or white: outside of the window, at its ends, or padding.
    """

    greys: npt.NDArray[np.float64]
    gain: float
    cut: float


@dataclass(frozen=True)
class Picture:
    """(H, W, 3) uint8, and notes on what was done to get there.

    Args:
        window: the greys before they are rounded to 8 bits; None for a file that is not decoded by a straight line.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()
    window: Window | None = None


def refuse_bomb(height: int, width: int) -> None:
    """Raise DataError for an image that is too large to be decoded."""
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{width} x {height} pixels is over the limit of {MAX_PIXELS:,}: refused as a decompression bomb"
        )


def chosen(frame: int | None, count: int) -> tuple[int, list[str]]:
    """Return the index, from 0, of the frame with this number, from 1, of `count`, and a note; None: the middle one.

    Raises:
        DataError: there is no such frame.
    """
    if frame is None:
        index = count // 2
        return index, [f"frame {index + 1} of {count} (the middle one)"] if count > 1 else []
    if not 1 <= frame <= count:
        there = f"{count} frames, numbered from 1" if count > 1 else "1 frame"
        raise DataError(f"there is no frame {frame}: the image has {there}")
    return frame - 1, [f"frame {frame} of {count}"]


def finite(values: Values) -> Values:
    """Return the values; refuse NaN and infinity, which a cast to 8 bits would turn black or white."""
    if not np.isfinite(values).all():
        raise DataError("the image holds NaN or infinite values, or its window or rescale slope does")
    return values


def stretched(values: Values, seen: Mask | None = None) -> Pixels:
    """Map (H, W) numbers to grey levels, the smallest to 0 and the largest to 255.

    Args:
        seen: (H, W), True where there is an image; the rest is ignored, and becomes 0.
    Raises:
        DataError: the numbers are not finite, or too far apart.
    """
    seen = np.ones(values.shape, bool) if seen is None else seen
    shown = np.zeros(values.shape, np.uint8)
    inside = finite(values[seen].astype(np.float64))
    if not inside.size:
        return shown
    low, high = float(inside.min()), float(inside.max())
    span = high - low
    if not math.isfinite(span):
        raise DataError(f"its values, from {low:g} to {high:g}, are too far apart")
    if span > 0:
        shown[seen] = ((inside - low) / span * 255).round()
    return shown


def grey_to_rgb(grey: Pixels) -> Pixels:
    """(H, W) -> (H, W, 3)."""
    return np.repeat(grey[..., None], 3, axis=2)
