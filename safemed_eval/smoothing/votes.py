"""Certificates and predictions from counted votes. No torch here: reports read stored votes again."""

from __future__ import annotations

from dataclasses import dataclass

from safemed_eval import stats
from safemed_eval.core import Certificate
from safemed_eval.smoothing.noise import View
from safemed_eval.smoothing.noise.patch import Patch
from safemed_eval.smoothing.options import Smoothing

NO_ANSWER = "no answer won"
UNCLEAR = "p_value > alpha"
WRONG = "wrong answer selected"


def selected(votes0: tuple[int, ...]) -> int:
    """The class with most selection votes; the first of those that tie."""
    return max(range(len(votes0)), key=lambda c: (votes0[c], -c))


def read_wrong(votes0: tuple[int, ...], gold: int) -> Certificate | None:
    """The certificate of an item that is not sampled further, since its selected class is not gold; None if it is."""
    chosen = selected(votes0)
    if chosen == gold:
        return None
    abstained = NO_ANSWER if chosen == len(votes0) - 1 else WRONG
    return Certificate(votes0=votes0, prediction=None, p_lower=None, radius=None, abstained=abstained)


def read_votes(
    votes0: tuple[int, ...], votes: tuple[int, ...], smoothing: Smoothing, view: View | None = None
) -> Certificate:
    """Compute the certificate that these votes give. It needs no model, so that alpha can be changed later.

    Args:
        votes0: selection votes for classes 0 .. K.
        votes: estimation votes, same layout.
        view: the canvas that the copies were made of, for noise that subtracts a slack; see `noise.Noise.slack`.
    """
    chosen, noise = selected(votes0), smoothing.kind
    p_lower = max(0.0, stats.clopper_pearson_lower(votes[chosen], sum(votes), smoothing.alpha) - noise.slack(view))
    radius, abstained = noise.radius(p_lower, view), None
    if chosen == len(votes0) - 1:
        radius, abstained = None, NO_ANSWER
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


def read_bands(votes: tuple[int, ...], patch: Patch, view: View) -> Certificate:
    """Compute the certificate that the votes of all bands give; see `noise.patch` for the proof.

    Args:
        votes: for classes 0 .. K, one vote for each position of the band.
        view: the canvas that the copies were made of.
    Returns:
        The radius is the side of the largest patch that cannot turn the vote, in pixels of the canvas; 0: of none.
        p_lower is the class's share of the votes, which is exact.
    """
    chosen = selected(votes)
    lead = min(votes[chosen] - n - (other < chosen) for other, n in enumerate(votes) if other != chosen)
    none = chosen == len(votes) - 1
    return Certificate(
        votes=votes,
        prediction=None if none else chosen,
        p_lower=votes[chosen] / sum(votes),
        radius=None if none else float(patch.largest(lead, view)),
        abstained=NO_ANSWER if none else None,
    )


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer of a smoothed model."""

    prediction: int | None
    """The class that won, or None: abstained."""
    p_value: float
    """p-value of the two-sided binomial test between the two most frequent classes."""
    abstained: str | None
    """None, UNCLEAR, or NO_ANSWER."""


def read_prediction(votes: tuple[int, ...], alpha: float) -> Prediction:
    """Compute the answer that these votes for the classes 0 .. K give.

    Unless it abstains, the answer is that of the smoothed model with probability at least 1 - alpha.

    Source:
        Cohen et al. 2019 (arXiv:1902.02918), PREDICT, with the two-sided binomial test of Hung and Fithian 2019.
        Differs: where class K, "no answer", wins, it abstains.
    """
    best, second = sorted(range(len(votes)), key=lambda c: (-votes[c], c))[:2]
    p_value = stats.binomial_test(votes[best], votes[best] + votes[second])
    abstained = UNCLEAR if p_value > alpha else NO_ANSWER if best == len(votes) - 1 else None
    return Prediction(prediction=None if abstained else best, p_value=p_value, abstained=abstained)
