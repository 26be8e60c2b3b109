"""Selective answers: how often is a model right, if it answers only where it is confident enough?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from safemed_eval import stats
from safemed_eval.report.analyses.bounded import Bounded, bounded_mean
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.rows import Answers, Certificates, Floats, Mask
from safemed_eval.runs.record import EvaluateRecord
from safemed_eval.smoothing import WRONG
from safemed_eval.stats import Codes

COVERAGES = (1.0, 0.9, 0.8, 0.5)
MOST_POINTS = 200
_TAIL = 0.025


@dataclass(frozen=True, kw_only=True)
class Selective:
    """Risk against coverage, of some items.

    Attributes:
        n: all items. answered: those with an answer; the others come last in order, and count as errors.
        confidence: what items are ordered by.
        accuracy: at each coverage; see `accuracy_at`.
        aurc: area under the curve of risk against coverage; see `aurc`.
        best: the AURC of a model with as many errors that orders them last.
        curve: (coverage, risk) from few items to all of them, in [0, 1].
    """

    n: int
    answered: int
    few: bool
    confidence: str
    accuracy: Mapping[float, Bounded]
    aurc: Bounded
    best: float
    curve: tuple[tuple[float, float], ...]


def selective(run: LoadedRun, rows: Answers | Certificates) -> Selective | str:
    """Measure the selective answers of a run under one condition, or of a certify run.

    Confidence is the probability of the likeliest option; of a smoothed model the share of votes for its answer, and of
    a certificate p_lower. An item that failed, or that has no answer because the model abstained or wrote none, is
    never selected: it comes after all others, as an error.

    Returns:
        The reason why, where confidence is not known.
    """
    if not len(rows) or rows.nothing_measured:
        return "nothing was measured"
    if isinstance(rows, Certificates):
        if run.sequential:
            return "sequential draws are of the gold answer alone"
        if any(record.abstained == WRONG for record in rows):
            return "draws ended at a wrong selection"
        sure = np.array([np.nan if record.p_lower is None else record.p_lower for record in rows])
        answered, name = ~np.isnan(rows.radii) & ~rows.failed, "p_lower"
    elif run.voting:
        sure, name = np.array([_vote_share(record) for record in rows]), "share of votes"
        answered = rows.answered & ~rows.failed
    else:
        sure, name = rows.confidences, "probability"
        answered = rows.answered & ~rows.failed
    if np.isnan(sure[answered]).any():
        return "answers have no probabilities"
    if not answered.any():
        return "nothing was answered"
    order = np.where(answered, sure, -np.inf)
    wrong = ~(rows.correct & answered)
    return Selective(
        n=len(rows),
        answered=int(answered.sum()),
        few=stats.too_few(rows.clusters),
        confidence=name,
        accuracy={coverage: accuracy_at(coverage, order, wrong, rows.clusters) for coverage in COVERAGES},
        aurc=aurc(order, wrong, rows.clusters),
        best=aurc(-wrong.astype(float), wrong, rows.clusters).value,
        curve=_curve(order, wrong),
    )


def _vote_share(record: EvaluateRecord) -> float:
    """The share of votes for the answer; NaN where there is none."""
    if record.votes is None or record.prediction is None:
        return np.nan
    return record.votes[record.prediction] / sum(record.votes)


def errors_among(confidences: Floats, wrong: Mask) -> Floats:
    """(n,) expected number of errors among the 1, 2, ... n most confident items, over the order of ties."""
    values, places = np.unique(-confidences, return_inverse=True)
    sizes, errors = np.bincount(places), np.bincount(places, weights=wrong)
    before = np.concatenate([[0.0], np.cumsum(errors)])[:-1]
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    block = np.repeat(np.arange(len(values)), sizes)
    within = np.arange(1, len(wrong) + 1) - starts[block]
    among: Floats = before[block] + within * (errors / sizes)[block]
    return among


def accuracy_at(coverage: float, confidences: Floats, wrong: Mask, clusters: Codes) -> Bounded:
    """Accuracy among the most confident share of items, expected over the order of ties.

    Items of the tie at the threshold count in part. The interval is for the items above this threshold, which is taken
    as it is.
    """
    n = len(wrong)
    taken = int(np.ceil(coverage * n - 1e-9))
    threshold = np.sort(confidences)[::-1][taken - 1]
    above, tied = confidences > threshold, confidences == threshold
    weights = above + tied * (taken - above.sum()) / tied.sum()
    share = bounded_mean((~wrong).astype(float), clusters, low=0, high=1, weights=weights)
    assert share is not None
    return share


def aurc(confidences: Floats, wrong: Mask, clusters: Codes) -> Bounded:
    """Area under the risk-coverage curve: the mean over i of the share of errors among the i most confident items.

    Ties are in no order: the expectation over all orders is taken. The interval is Student's t with the variance of
    cluster sums of the influence of each item, and each end is at least `stats.unseen_share` away: clusters that agree
    leave so many errors open, which, if they are no more confident than other items, change the area by as much.

    Source:
        Geifman and El-Yaniv 2017 (arXiv:1705.08500) for the curve. The interval is our own: the area is the mean of
        wrong_i * ln(1 / S(c_i)), S(c) being the share of items at least as confident, of which this is the linear part.
    """
    n, c = len(wrong), int(clusters.max()) + 1
    value = float((errors_among(confidences, wrong) / np.arange(1, n + 1)).mean())
    if c == 1:
        return Bounded(value=value, lower=0.0, upper=1.0)
    sums = np.bincount(clusters, weights=_influence(confidences, wrong))
    sizes = np.bincount(clusters).astype(float)
    spread = float(np.sqrt(c / (c - 1) * ((sums - sums.mean()) ** 2).sum())) / n
    freedom = max(1.0, stats.effective_clusters(sizes) - 1)
    reach = max(-float(special.stdtrit(freedom, _TAIL)) * spread, stats.unseen_share(sizes, _TAIL))
    return Bounded(value=value, lower=max(0.0, value - reach), upper=min(1.0, value + reach))


def _influence(confidences: Floats, wrong: Mask) -> Floats:
    """(n,) the influence of each item on the area: the risk at its own coverage, and what it adds to all later ones."""
    order = np.argsort(-confidences, kind="stable")
    among = errors_among(confidences, wrong)
    ranks = np.arange(1, len(wrong) + 1)
    risks = among / ranks
    _, places = np.unique(-confidences, return_inverse=True)
    # Items of a tie have the mean of the places that they share.
    shared = np.bincount(places[order], weights=risks) / np.bincount(places[order])
    later = np.cumsum((1 / ranks)[::-1])[::-1], np.cumsum((risks / ranks)[::-1])[::-1]
    ones, weighted = (np.bincount(places[order], weights=sums) / np.bincount(places[order]) for sums in later)
    influence: Floats = shared[places] + wrong * ones[places] - weighted[places]
    return influence


def _curve(confidences: Floats, wrong: Mask) -> tuple[tuple[float, float], ...]:
    n = len(wrong)
    risks = errors_among(confidences, wrong) / np.arange(1, n + 1)
    places = np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).round().astype(int))
    return tuple((float(place + 1) / n, float(risks[place])) for place in places)
