"""The worst group of patients, and the gap to the best, with intervals that count every group that was looked at."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from safemed_eval import stats
from safemed_eval.core import UNKNOWN
from safemed_eval.report.analyses.bounded import Bounded
from safemed_eval.report.columns import Column
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.rows import Answers, Certificates, Floats, Mask, Names
from safemed_eval.smoothing import Sequential
from safemed_eval.stats import Codes

FEWEST = 2
"""Groups that a comparison needs."""


@dataclass(frozen=True, kw_only=True)
class Extremes:
    """The groups with the lowest and the highest share of successes, and the gap between them.

    Attributes:
        groups: how many were compared; `left_out` are those that were not: effectively fewer than ten clusters, or
            nothing measured since items failed, and items without a value.
        worst, best: their names, with shares whose intervals hold for all groups at once; None: fewer than two groups.
        gap: between the best and the worst of the groups, whichever they truly are.
    """

    groups: int
    left_out: tuple[str, ...]
    worst: tuple[str, Bounded] | None = None
    best: tuple[str, Bounded] | None = None
    gap: Bounded | None = None


def extremes(
    successes: Mask, clusters: Codes, names: Names, *, alpha: float = 0.05, unmeasured: Collection[str] = ()
) -> Extremes:
    """Find the worst and the best group.

    The interval of each of G groups has level 1 - alpha / G (Bonferroni), so that all hold at once, and that of the
    group that looks worst with them. Those of the G (G - 1) / 2 differences share alpha likewise; the true gap is the
    largest absolute difference, and lies between the largest lower and the largest upper end.

    Args:
        successes: (n,) one bool per item. clusters: (n,) its cluster. names: (n,) its group.
        unmeasured: groups of which nothing was measured; see `Rows.nothing_measured`.
    Source:
        Differences: Zou and Donner 2008, "Construction of confidence limits about effect measures" (MOVER), from the
        intervals of `stats.clustered_proportion`. Groups that share clusters are correlated; only a negative
        correlation counts, which makes intervals wider.
    """
    every = sorted(set(names))
    kept = [
        name
        for name in every
        if name not in (UNKNOWN, *unmeasured) and not stats.too_few(stats.cluster_codes(clusters[names == name]))
    ]
    left_out = tuple(name for name in every if name not in kept)
    if len(kept) < FEWEST:
        return Extremes(groups=len(kept), left_out=left_out)
    bounded = {name: _share(successes, clusters, names == name, alpha / len(kept)) for name in kept}
    ranked = sorted(kept, key=lambda name: bounded[name].value)
    pairs = list(combinations(kept, 2))
    parts = {name: _share(successes, clusters, names == name, alpha / len(pairs)) for name in kept}
    sums = {name: _residuals(successes, clusters, names == name) for name in kept}
    found = [
        _difference(parts[one], parts[other], _correlation(sums[one], sums[other]))
        for pair in pairs
        for one, other in (pair, pair[::-1])
    ]
    worst, best = ranked[0], ranked[-1]
    return Extremes(
        groups=len(kept),
        left_out=left_out,
        worst=(worst, bounded[worst]),
        best=(best, bounded[best]),
        gap=Bounded(
            value=bounded[best].value - bounded[worst].value,
            lower=max(0.0, *(lower for lower, _ in found)),
            upper=max(upper for _, upper in found),
        ),
    )


def _share(successes: Mask, clusters: Codes, group: Mask, alpha: float) -> Bounded:
    share = stats.clustered_proportion(successes[group], clusters[group], alpha=alpha)
    assert share.estimate is not None and share.lower is not None and share.upper is not None
    return Bounded(value=share.estimate, lower=share.lower, upper=share.upper)


def _residuals(successes: Mask, clusters: Codes, group: Mask) -> Floats:
    """(c,) sums by cluster of the group's outcomes minus their mean."""
    off = np.where(group, successes - successes[group].mean(), 0.0)
    return np.bincount(clusters, weights=off).astype(float)


def _correlation(one: Floats, other: Floats) -> float:
    """The correlation of two groups' shares if it is negative, else 0; 0 for groups without a common cluster."""
    spread = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return min(0.0, float((one * other).sum()) / spread) if spread else 0.0


def _difference(one: Bounded, other: Bounded, correlation: float) -> tuple[float, float]:
    """The interval of one share minus another."""
    value = one.value - other.value
    ends = []
    for down, up in (
        (one.value - one.lower, other.upper - other.value),
        (one.upper - one.value, other.value - other.lower),
    ):
        ends.append(float(np.sqrt(max(0.0, down**2 + up**2 - 2 * correlation * down * up))))
    return max(-1.0, value - ends[0]), min(1.0, value + ends[1])


def extremes_of(run: LoadedRun, column: Column) -> Iterator[tuple[str, Extremes]]:
    """Compare the groups of a column under each condition, or at each radius of a certify run; yields (name, result).

    Nothing is yielded for what was not measured: every item failed, or no such radius could be certified.
    """
    for name, rows, successes in _measured(run):
        unmeasured = [group for group, part in rows.split(column).items() if part.nothing_measured]
        yield name, extremes(successes, rows.clusters, rows.names(column), unmeasured=unmeasured)


def _measured(run: LoadedRun) -> Iterator[tuple[str, Answers | Certificates, Mask]]:
    if run.kind == "evaluate":
        for condition in run.conditions:
            rows = run.answers.under(condition)
            if len(rows) and condition not in run.all_failed:
                yield condition, rows, rows.correct
        return
    certificates, budget = run.certificates, run.budget
    if not len(certificates) or run.all_failed:
        return
    for name, radius in run.points.items():
        asked = budget.asked(radius) if isinstance(budget, Sequential) else radius
        if asked is not None and asked <= run.ceiling:
            yield f"r>={name}", certificates, certificates.right_radii >= asked
