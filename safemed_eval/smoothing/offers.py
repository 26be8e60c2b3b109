"""What the number of noisy copies and alpha buy, before anything is run. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from safemed_eval.smoothing.noise import View
from safemed_eval.smoothing.options import Smoothing


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One choice of n and alpha.

    Attributes:
        n, alpha: as in `Smoothing`.
        ceiling: the largest radius that it certifies; None: none.
        copies: noisy copies per item.
        false_at_most: certificates that are false in expectation, at most, if every item gets one.
        points: percentage points that alpha costs in a statement about further questions.
    """

    n: int
    alpha: float
    ceiling: float | None
    copies: int
    false_at_most: float
    points: float


def offers(asked: Smoothing, view: View | None, items: int) -> list[Offer]:
    """The asked n and alpha, and their neighbours: ten times alpha, a tenth of n, and ten times n."""
    made = []
    for n, alpha in (
        (asked.n, asked.alpha),
        (asked.n, 10 * asked.alpha),
        (asked.n // 10, asked.alpha),
        (10 * asked.n, asked.alpha),
    ):
        try:
            budget = replace(asked, n=n, alpha=alpha)
        except ValueError:
            continue  # too few copies to certify anything at this alpha, or alpha beyond 1
        made.append(
            Offer(
                n=n,
                alpha=alpha,
                ceiling=budget.ceiling_on(view),
                copies=budget.n0 + n,
                false_at_most=items * alpha,
                points=100 * alpha,
            )
        )
    return made
