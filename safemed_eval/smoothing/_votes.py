"""From votes to a certificate. No torch here: reports read stored votes again."""

from __future__ import annotations

from safemed_eval import stats
from safemed_eval.core import Certificate
from safemed_eval.smoothing._spec import Smoothing


def read_votes(votes0: tuple[int, ...], votes: tuple[int, ...], smoothing: Smoothing) -> Certificate:
    """The certificate that these votes give; needs no model, so that alpha can be changed later.

    Args:
        votes0: selection votes for classes 0 .. K.
        votes: estimation votes, same layout.
    """
    chosen = max(range(len(votes0)), key=lambda c: (votes0[c], -c))
    p_lower = stats.clopper_pearson_lower(votes[chosen], sum(votes), smoothing.alpha)
    radius, abstained = stats.certified_radius(p_lower, smoothing.sigma), None
    if chosen == len(votes0) - 1:
        radius, abstained = None, "no answer won"
    elif radius is None:
        abstained = "p_lower <= 1/2"
    return Certificate(
        votes0=votes0,
        votes=votes,
        prediction=None if abstained else chosen,
        p_lower=p_lower,
        radius=radius,
        abstained=abstained,
    )
