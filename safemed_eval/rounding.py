"""Rounding for display, always towards the weaker claim."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal


def floor_to(x: float, digits: int) -> float:
    """Round x down to this many decimals: floor_to(0.99951, 3) == 0.999."""
    return _round(x, digits, ROUND_FLOOR)


def ceil_to(x: float, digits: int) -> float:
    """Round x up to this many decimals: ceil_to(0.99911, 3) == 1.0."""
    return _round(x, digits, ROUND_CEILING)


def _round(x: float, digits: int, mode: str) -> float:
    if not math.isfinite(x):
        raise ValueError(f"cannot round {x}")
    # The shortest decimal of x is rounded: 0.3 means 0.3, though its binary value lies slightly below.
    return float(Decimal(repr(x)).quantize(Decimal(1).scaleb(-digits), rounding=mode))


def percent(share: float | None) -> str:
    """Format a share as a percentage to one decimal; "n/a" where it is unknown."""
    return "n/a" if share is None else f"{100 * share:.1f}"


def percent_down(share: float | None) -> str:
    """Format a certified share as a percentage, rounded down to one decimal."""
    return "n/a" if share is None else f"{100 * floor_to(share, 3):.1f}"


def percent_up(share: float | None) -> str:
    """Format an upper bound of a share as a percentage, rounded up to one decimal."""
    return "n/a" if share is None else f"{100 * ceil_to(share, 3):.1f}"


def interval(lower: float | None, upper: float | None) -> str:
    """Format an interval of a share in percent, rounded outward: "90.1-94.6"; empty where unknown."""
    if lower is None or upper is None:
        return ""
    return f"{100 * floor_to(lower, 3):.1f}-{100 * ceil_to(upper, 3):.1f}"


def radius(value: float | None) -> str:
    """Format a certified radius, rounded down to three decimals."""
    return "n/a" if value is None else f"{floor_to(value, 3):.3f}"


def radius_at_least(value: float | None) -> str:
    """Format a lower bound of a radius, rounded down: ">=0.123"."""
    return radius(value) if value is None else f">={radius(value)}"
