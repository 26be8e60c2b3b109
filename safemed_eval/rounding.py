"""Rounding for display, in the direction that claims less."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal


def floor_to(x: float, digits: int) -> float:
    """x rounded down at this many decimals: floor_to(0.99951, 3) == 0.999."""
    return _round(x, digits, ROUND_FLOOR)


def ceil_to(x: float, digits: int) -> float:
    """x rounded up at this many decimals: ceil_to(0.99911, 3) == 1.0."""
    return _round(x, digits, ROUND_CEILING)


def _round(x: float, digits: int, mode: str) -> float:
    if not math.isfinite(x):
        raise ValueError(f"cannot round {x}")
    # Through the shortest decimal of x: 0.3 is meant as 0.3, though its binary value lies a little below.
    return float(Decimal(repr(x)).quantize(Decimal(1).scaleb(-digits), rounding=mode))
