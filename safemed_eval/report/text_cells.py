"""The numbers of a slice as a row of text, as terminals and notebooks show it."""

from __future__ import annotations

from safemed_eval.core import GROUNDED
from safemed_eval.report.summary import DAGGER, AnsweredBy, Certified, Share
from safemed_eval.rounding import percent


def text_cells(numbers: AnsweredBy | Certified) -> dict[str, str]:
    """Make the cells of one row by the heading of their column: shares in % with their 95 % intervals."""
    if isinstance(numbers, Certified):
        points = {f"r>={name}": _share(point) for name, point in numbers.points.items()}
        points |= {f"{GROUNDED}, r>={name}": _share(point) for name, point in numbers.grounded.items()}
        return (
            {"n": str(numbers.n)}
            | points
            | {
                "abstain": percent(numbers.abstention),
                "ACR": numbers.radius_text(numbers.average_radius),
                "median r": numbers.radius_text(numbers.median_radius),
            }
        )
    first = next(iter(numbers.values()))
    return {"n": str(first.n)} | {condition: _share(cell) for condition, cell in numbers.items()}


def _share(share: Share) -> str:
    rest = f" ({share.rest_text})" if share.rest_text else ""
    return f"{share.text} {share.bounds_text}{DAGGER * share.few}{rest}".strip()
