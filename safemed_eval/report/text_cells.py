"""The numbers of a slice as a row of text, as terminals and notebooks show it."""

from __future__ import annotations

from collections.abc import Mapping

from safemed_eval.core import GROUNDED
from safemed_eval.report.corruptions import Grade, by_set, corruption_rows, others
from safemed_eval.report.summary import DAGGER, AnsweredBy, Certified, Share
from safemed_eval.rounding import percent


def text_cells(numbers: AnsweredBy | Certified, grades: Mapping[str, Grade]) -> dict[str, str]:
    """Make the cells of one row by the heading of their column: shares in % with their 95 % intervals.

    Args:
        grades: the conditions that `corruption_cells` shows.
    """
    if isinstance(numbers, Certified):
        points = {f"r>={name}": _share(point) for name, point in numbers.points.items()}
        points |= {f"{GROUNDED}, r>={name}": _share(point) for name, point in numbers.grounded.items()}
        return (
            {"items": str(numbers.n)}
            | points
            | {
                "abstain": percent(numbers.abstention),
                "ACR": numbers.radius_text(numbers.average_radius),
                "median r": numbers.radius_text(numbers.median_radius),
            }
        )
    shown = others(numbers, grades)
    first = next(iter(shown.values()))
    return {"items": str(first.n)} | {condition: _share(cell) for condition, cell in shown.items()}


def corruption_cells(
    numbers: AnsweredBy | Certified, grades: Mapping[str, Grade]
) -> dict[str | None, list[tuple[str, dict[str, str]]]]:
    """Make the rows of the table of each set of corruptions, each a kind and its cells; none for a certify run."""
    if isinstance(numbers, Certified):
        return {}
    return {
        name: [
            (row.kind, {"items": row.n} | {column: figure.text for column, figure in row.figures.items()})
            for row in corruption_rows(numbers, some)
        ]
        for name, some in by_set(grades).items()
    }


def _share(share: Share) -> str:
    rest = f" ({share.rest_text})" if share.rest_text else ""
    return f"{share.text} {share.bounds_text}{DAGGER * share.few}{rest}".strip()
