"""Certified accuracy as a statement about all questions of the kind, not these items alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safemed_eval.report.load import LoadedRun
from safemed_eval.rounding import percent_down

DELTA = 0.05
"""Probability that the statement is false."""


@dataclass(frozen=True, kw_only=True)
class Population:
    """What a certify run says of the questions that its items were drawn from.

    Attributes:
        confidence: 1 - DELTA.
        at_least: by radius, the share of such questions that are answered rightly and robustly is at least this; None:
            unknown.
        why_not: why nothing can be said; None where something is.
    """

    confidence: float
    at_least: Mapping[str, float | None]
    why_not: str | None

    def __str__(self) -> str:
        if self.why_not:
            return f"no statement about further questions can be made: {self.why_not}."
        shares = ", ".join(f"{percent_down(share)} % at r>={name}" for name, share in self.at_least.items())
        return (
            f"further questions: with {100 * self.confidence:g} % confidence at least this share of them is answered "
            f"rightly and robustly: {shares}; if these items were drawn at random from them. It is the lower bound of "
            "certified accuracy, less alpha for certificates that are false."
        )


def population_of(run: LoadedRun) -> Population:
    """Bound the share of a population that is right and robust, at each radius of a run.

    Let c be the probability that an item drawn from the population gets a certificate of radius r for its gold answer,
    and q the share of items whose smoothed answer is gold within r. A certificate is false with probability alpha at
    most, so that c <= q + alpha. Clopper and Pearson's bound on the effective size of the sample is at most c with
    probability 1 - DELTA; less alpha it is at most q. Failed items have no certificate.
    """
    rows, alpha = run.certificates, run.budget.alpha
    radii = {name: radius for name, radius in run.points.items() if radius <= run.ceiling}
    shares = {name: rows.share(rows.right_radii >= radius, alpha=2 * DELTA) for name, radius in radii.items()}
    why_not = None
    if not shares or run.rows.nothing_measured:
        why_not = "nothing was measured"
    elif run.spec.select.per_group is not None:
        why_not = "with --per-group the items are no random sample of any population"
    elif run.unfinished:
        why_not = "the run is not finished"
    elif any(share.few for share in shares.values()):
        why_not = "the items are of effectively fewer than ten patients or images"
    known = {
        name: None if why_not or share.lower is None else max(0.0, share.lower - alpha)
        for name, share in shares.items()
    }
    return Population(confidence=1 - DELTA, at_least=known, why_not=why_not)
