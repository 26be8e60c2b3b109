"""Limits of counts in a recipe: larger values are typing errors."""

from __future__ import annotations

MAX_WIDTH = 4096
"""Limit of an adapter's rank and of a denoiser's channels and blocks."""
MAX_STEPS = 10**9
MAX_TOKENS = 10**6
MAX_ROWS = 2**16
MAX_LOADER_WORKERS = 256
MAX_DRAWS = 100


def refuse_counts(**counts: tuple[int, int]) -> None:
    """Raise ValueError if a count is below 1 or above its limit; each option is given as (count, limit)."""
    for name, (count, most) in counts.items():
        if not 1 <= count <= most:
            raise ValueError(f"{name} must be at least 1, and at most {most:,}, got {count}")
