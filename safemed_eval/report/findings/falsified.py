"""Attacks on certificates: which certificates cannot be true, and whether chance explains that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from safemed_eval import stats
from safemed_eval.report.load import LoadedRun
from safemed_eval.runs.record import PatchShot, Shot
from safemed_eval.smoothing import Falsification, Noise, PatchSearch
from safemed_eval.smoothing.claims import judge

DELTA = 0.001
"""Probability that a sound tool is called unsound."""


@dataclass(frozen=True, kw_only=True)
class Refuted:
    """One count of votes within a certified radius that contradicts the certificate.

    Attributes:
        share: of the certified radius, at which the search was made; `length` is the distance that it went.
        votes: for the certified class, of `n` noisy copies there, or with a rival of `n` votes for either.
        upper: the probability of that class there, or its share of both, is at most this.
        claimed: the certificate says that it is at least this.
    """

    item: str
    prediction: int
    p_lower: float
    radius: float
    share: float
    length: float
    votes: int
    n: int
    rival: bool
    upper: float
    claimed: float

    def __str__(self) -> str:
        return (
            f"{self.item}: at {self.share:g} of its radius (distance {self.length:.6g}) option {self.prediction} gets "
            f"{self.votes} of {self.n} votes{' for it and its strongest rival' * self.rival}, a "
            f"{'share' if self.rival else 'probability'} of at most {self.upper:.4g}; the certificate says at least "
            f"{self.claimed:.4g}"
        )


@dataclass(frozen=True, kw_only=True)
class RefutedPatch:
    """The votes under one patch that contradict a certificate against patches.

    Attributes:
        size, top, left: the patch; size 0: none, the votes were counted again.
        votes: for the classes 0 .. K; `certified` are those that the certificate was read from.
        unexplained: how many votes differ of bands that show none of the patch.
    """

    item: str
    prediction: int
    radius: float
    size: int
    top: int
    left: int
    votes: tuple[int, ...]
    certified: tuple[int, ...]
    unexplained: int

    def __str__(self) -> str:
        where = f"under a patch of {self.size} pixels at row {self.top}, column {self.left}" if self.size else "again"
        return (
            f"{self.item}: certified for option {self.prediction} against patches of {self.radius:g} pixels by the "
            f"votes {self.certified}; {where} the votes are {self.votes}, and {self.unexplained} of them changed in "
            "bands that show none of it"
        )


@dataclass(frozen=True, kw_only=True)
class Falsified:
    """The outcome of `certify --falsify`.

    Attributes:
        certificates: how many were attacked.
        refuted: each count that contradicts its certificate; `items` have one.
        allowed: the number of items that chance exceeds with probability DELTA at most.
        sound: whether there are no more.
        at_ceiling: how many of the certificates have the largest radius that the budget could give.
        remark: what their survival does not show; None where there are none.
    """

    certificates: int
    refuted: list[Refuted] | list[RefutedPatch]
    items: int
    allowed: int
    sound: bool
    at_ceiling: int
    remark: str | None


def falsified_of(run: LoadedRun) -> Falsified | None:
    """Judge the attacks on the certificates of a run; None for a run without them."""
    asked = run.falsification
    if not asked:
        return None
    if isinstance(asked, PatchSearch):
        return _patches(run)
    attacked = [record for record in run.certificates if record.falsified is not None]
    highest = sum(_at_ceiling(record.radius, run.ceilings.get(record.view)) for record in attacked)
    refuted = list(_refuted(run, asked))
    items = len({count.item for count in refuted})
    chance = min(1.0, run.budget.alpha + len(asked.shares) * asked.alpha)
    allowed = stats.false_certificates_at_most(len(run.records), chance, DELTA) if run.records else 0
    return Falsified(
        certificates=len(attacked),
        refuted=refuted,
        items=items,
        allowed=allowed,
        sound=items <= allowed,
        at_ceiling=highest,
        remark=_remark(highest, len(attacked)),
    )


def _patches(run: LoadedRun) -> Falsified:
    """Judge the attacks on certificates against patches, of which none may be refuted."""
    attacked = [record for record in run.certificates if record.falsified is not None]
    found = [
        RefutedPatch(
            item=record.item,
            prediction=record.prediction,
            radius=record.radius,
            certified=record.votes,
            **vars(shot),
        )
        for record in attacked
        for shot in record.falsified or ()
        if isinstance(shot, PatchShot) and record.votes is not None and shot.refutes(record.votes)
        if record.prediction is not None and record.radius is not None
    ]
    items = len({patch.item for patch in found})
    return Falsified(
        certificates=len(attacked), refuted=found, items=items, allowed=0, sound=not items, at_ceiling=0, remark=None
    )


def _at_ceiling(radius: float | None, ceiling: float | None) -> bool:
    if radius is None or ceiling is None:
        return False
    return radius > ceiling or math.isclose(radius, ceiling, rel_tol=1e-9)


def _remark(highest: int, attacked: int) -> str | None:
    """A class whose true radius is at least the certified one keeps, at every distance, the probability that the
    certificate claims there: nothing within the radius refutes it, however the radius was computed."""
    if not highest:
        return None
    which = f"All {attacked:,}" if highest == attacked else f"{highest:,} of the {attacked:,}"
    some = "some" if highest == attacked else "more"
    return (
        f"{which} certificates stand at the ceiling: the budget, not the model, set their radius, and where the "
        "model's own is larger no search within the certified one can prove it false, so that their survival does not "
        f"show that radii are computed rightly. A larger n, or sigma, brings {some} below the ceiling."
    )


def _refuted(run: LoadedRun, asked: Falsification) -> Iterator[Refuted]:
    noise = run.budget.kind
    for record in run.certificates:
        prediction, p_lower, radius = record.prediction, record.p_lower, record.radius
        if prediction is None or p_lower is None or radius is None:
            continue  # read at a smaller alpha there is no certificate left to refute
        for shot in record.falsified or ():
            assert isinstance(shot, Shot) and isinstance(noise, Noise)
            judged = judge(
                noise,
                asked,
                shot.votes,
                shot.rival,
                p_lower=p_lower,
                radius=radius,
                distance=shot.length,
                view=record.view,
                classes=len(record.options) + 1,
            )
            if judged.refuted:
                yield Refuted(
                    item=record.item,
                    prediction=prediction,
                    p_lower=p_lower,
                    radius=radius,
                    share=shot.share,
                    length=shot.length,
                    votes=shot.votes,
                    n=judged.n,
                    rival=shot.rival is not None,
                    upper=judged.upper,
                    claimed=judged.claimed,
                )
