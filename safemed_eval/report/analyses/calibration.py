"""Calibration: does a model that says 80 % turn out right 80 % of the time, clean and under attack?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from safemed_eval import stats
from safemed_eval.report.analyses.bounded import Bounded, bounded_mean
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.rows import Answers
from safemed_eval.runs.record import EvaluateRecord
from safemed_eval.seeds import seed_of
from safemed_eval.stats import Codes, Floats

BINS = 15
DRAWS = 2000
_TAIL = 0.025
_SURE = 3.0
"""Standard errors from which on the sign of a bin's error is taken as known."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The items whose confidence lies in one of 15 equally wide intervals, (0, 1/15], (1/15, 2/15], ...

    Attributes:
        confidence: the mean of theirs. accuracy: the share that is right, with its 95 % interval.
    """

    confidence: float
    accuracy: stats.Proportion


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Calibration error of some items; see `calibration_errors`."""

    ece: Bounded
    by_chance: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration of the answers to some items under one condition. All but the Brier score are in [0, 1] or [-1, 1].

    Attributes:
        n: items with probabilities; `without` counts the others by reason.
        few: effectively fewer than ten clusters: do not trust the intervals.
        ece: expected calibration error over 15 equally wide bins; `adaptive`: over 15 bins with equal numbers of items.
        by_chance: the mean ECE of a calibrated model with such confidences, on so many items.
        brier: the mean over items of sum_k (p_k - [k is gold])^2, in [0, 2].
        over: mean confidence minus accuracy; above 0 the model is overconfident.
    """

    n: int
    without: Mapping[str, int]
    few: bool
    confidence: float | None
    accuracy: float | None
    ece: Bounded | None
    by_chance: float | None
    adaptive: Bounded | None
    brier: Bounded | None
    over: Bounded | None
    bins: tuple[Bin, ...]


def calibration(run: LoadedRun, rows: Answers) -> Calibration:
    """Measure the calibration of rows of an evaluate run under one condition.

    Confidence is the probability of the likeliest option, where those of the item's own options sum to 1. Items without
    probabilities, failed ones among them, are left out and counted: they have no confidence.
    """
    known = rows.where(~np.isnan(rows.confidences))
    without = Counter(_reason(run, record) for record in rows.where(np.isnan(rows.confidences)))
    n, clusters, sure = len(known), known.clusters, known.confidences
    right = known.correct.astype(float)
    equal = calibration_errors(sure, right, clusters, width_bins(sure)) if n else None
    adaptive = calibration_errors(sure, right, clusters, count_bins(sure)) if n else None
    return Calibration(
        n=n,
        without=dict(without),
        few=stats.too_few(clusters),
        confidence=float(sure.mean()) if n else None,
        accuracy=float(right.mean()) if n else None,
        ece=equal.ece if equal else None,
        by_chance=equal.by_chance if equal else None,
        adaptive=adaptive.ece if adaptive else None,
        brier=bounded_mean(known.briers, clusters, low=0, high=2),
        over=bounded_mean(sure - right, clusters, low=-1, high=1),
        bins=_bins(known),
    )


def _reason(run: LoadedRun, record: EvaluateRecord) -> str:
    """Why a record has no probabilities."""
    if record.failed:
        return "failed"
    if run.voting:
        return "answered by vote"
    if record.rotations is not None:
        return "asked in several orders"
    return "a written answer" if run.spec.writes else "the model gives none"


def width_bins(confidences: Floats) -> Codes:
    """The equally wide bin, 0 .. 14, of each confidence in [0, 1]."""
    return np.clip(np.ceil(confidences * BINS).astype(np.int64) - 1, 0, BINS - 1)


def count_bins(confidences: Floats) -> Codes:
    """The bin of each confidence, of at most 15 that hold equal numbers of items; equal confidences share one."""
    cuts = np.unique(np.quantile(confidences, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    return np.searchsorted(cuts, confidences, side="left").astype(np.int64)


def calibration_errors(confidences: Floats, right: Floats, clusters: Codes, bins: Codes) -> Errors:
    """Expected calibration error: sum over bins of |sum of (confidence - right)| / n, with a 95 % interval.

    The error of a finite sample is above 0 though the model is calibrated, and resampling shifts it up once more: the
    percentile bootstrap of a calibrated model excludes 0 nearly always. Here the signed error d_b of each bin is taken
    to be normal around its true value, with the covariance of cluster sums (Student's t for few clusters). The lower
    end subtracts the 97.5 % quantile of sum |noise_b|, by the triangle inequality, and of the noise itself in bins
    whose sign is beyond doubt (three standard errors); the upper end adds that of the noise along the observed signs.
    Neither is nearer than `stats.unseen_share`: clusters that agree show no noise. The target is the error of these
    bins in the population.

    Args:
        confidences, right: (n,) in [0, 1]; 1 is a right answer.
        clusters: (n,) 0 .. c - 1.
        bins: (n,) the bin of each.
    Source:
        Guo et al. 2017 (arXiv:1706.04599), equation 3, with 15 bins as there. The interval is our own.
    """
    codes, n, c = stats.cluster_codes(bins), len(bins), int(clusters.max()) + 1
    width = int(codes.max()) + 1
    sums = np.zeros((c, width))
    np.add.at(sums, (clusters, codes), confidences - right)
    sizes = np.bincount(clusters, minlength=c).astype(float)
    errors: Floats = sums.sum(0) / n
    ece = float(np.abs(errors).sum())
    if c == 1:
        return Errors(ece=Bounded(value=ece, lower=0.0, upper=1.0), by_chance=None)
    residuals = sums - np.outer(sizes, errors)
    values, vectors = np.linalg.eigh(c / (c - 1) * residuals.T @ residuals / n**2)
    factor = vectors * np.sqrt(np.clip(values, 0, None))
    rng = np.random.default_rng(seed_of("calibration"))
    normal, freedom = rng.normal(size=(DRAWS, width)), max(1.0, stats.effective_clusters(sizes) - 1)
    noise = normal @ factor.T
    spread = np.sqrt((factor**2).sum(1))
    scale = np.sqrt(freedom / rng.chisquare(freedom, DRAWS))[:, None]
    along = np.sign(errors) * noise * scale
    below = np.where(np.abs(errors) > _SURE * spread, along, np.abs(along)).sum(1)
    unseen = stats.unseen_share(sizes, _TAIL)
    down, up = np.quantile(below, 1 - _TAIL), -np.quantile(along.sum(1), _TAIL)
    return Errors(
        ece=Bounded(
            value=ece, lower=max(0.0, ece - max(float(down), unseen)), upper=min(1.0, ece + max(float(up), unseen))
        ),
        by_chance=float(np.abs(noise).sum(1).mean()),
    )


def _bins(rows: Answers) -> tuple[Bin, ...]:
    places = width_bins(rows.confidences)
    parts = [rows.where(places == place) for place in np.unique(places)]
    return tuple(Bin(confidence=float(part.confidences.mean()), accuracy=part.share(part.correct)) for part in parts)
