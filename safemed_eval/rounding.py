"""Rounding for display, always towards the weaker claim."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

FAILED = "failed"
"""Shown in place of a figure if every item failed."""
FAILED_ITEMS = (
    "Where some items failed, the figure without them stands beside the one that counts them as wrong; where all did, "
    "nothing was measured."
)


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


def accuracy(cell: Mapping[str, Any]) -> str:
    """Format the accuracy of a cell of `breakdown`; "failed" where every item failed."""
    return FAILED if cell["all_failed"] else percent(cell["accuracy"])


def certified(point: Mapping[str, Any]) -> str:
    """Format the certified share of a point of `breakdown`, or why it is unknown."""
    if point["all_failed"]:
        return FAILED
    if not point["asked"]:
        return "not asked"
    return ">ceiling" if point["above_ceiling"] else percent_down(point["certified_accuracy"])


def without_failed(cell: Mapping[str, Any]) -> str:
    """Format a cell without its failed items, "2 failed, else 95.0 90.1-97.9"; empty if none or all failed."""
    rest = cell["without_failed"]
    if rest is None:
        return ""
    share = percent_down(rest["share"]) if "certified_accuracy" in cell else percent(rest["share"])
    return f"{cell['failed']} failed, else {share} {interval(rest['lower'], rest['upper'])}"
