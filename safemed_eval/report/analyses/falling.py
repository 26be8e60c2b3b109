"""What goes with falling under attack: a logistic regression on the groups of items, with errors by cluster."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from safemed_eval import stats
from safemed_eval.attacks import facts_of
from safemed_eval.core import CLEAN
from safemed_eval.report.columns import Column
from safemed_eval.report.load import in_order
from safemed_eval.report.rows import Floats, Mask, Names, Slicing
from safemed_eval.report.run import Run

MODEL = "model"
"""The column of runs that are asked together."""
_FEWEST = 5
"""Items that fell, and that held, for each odds ratio."""
_TAIL = 0.025
_TIE = 1e-6
_AT_ONCE = 4096
"""Clusters whose matrices are in memory at a time."""
REFERENCE = "reference"
"""In place of the odds ratio of a level with which others are compared."""


@dataclass(frozen=True, kw_only=True)
class Odds:
    """One level of a column, against the reference level of that column, the others being equal.

    Attributes:
        n, fallen: items that were right when clean, and how many of them are wrong under the attack.
        ratio: odds ratio of falling with its 95 % interval, all above 0; None for the reference and where not known.
        reason: why it is not known; "reference".
    """

    column: str
    level: str
    n: int
    fallen: int
    ratio: float | None = None
    lower: float | None = None
    upper: float | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Falling:
    """The regression of one attack.

    Attributes:
        n, fallen, clusters: of the items in it: right when clean, and not failed under the attack.
        failed: items that were right when clean, but failed under the attack; they are not in it.
        odds: each level of each column. reason: why there is no regression at all; empty if there is.
    """

    condition: str
    n: int
    fallen: int
    clusters: int
    failed: int
    odds: tuple[Odds, ...]
    reason: str


def falling(runs: Sequence[Run]) -> tuple[Falling, ...]:
    """Regress falling on modality, question type, the columns of `Run.by`, and the model, for each attack.

    Runs that were asked the same attack share a regression; their items of one patient, or image, are one cluster.
    """
    return _regressions(tuple(runs))


@lru_cache(maxsize=1)  # tables and figures of a report ask for the same
def _regressions(runs: tuple[Run, ...]) -> tuple[Falling, ...]:
    found = []
    evaluated = [run for run in runs if run.kind == "evaluate" and run.records]
    conditions = dict.fromkeys(condition for run in evaluated for condition in run.conditions)
    for condition in conditions:
        asked = [run for run in evaluated if condition in run.conditions]
        if facts_of(condition, {}).role == "attack" and all(CLEAN in run.conditions for run in asked):
            found.append(_of_attack(condition, asked))
    return tuple(found)


def _of_attack(condition: str, runs: Sequence[Run]) -> Falling:
    fallen, clusters, failed = list[bool](), list[str](), 0
    levels: dict[str, list[str]] = {}
    for run in runs:
        clean = run.answers.under(CLEAN)
        right = set(clean.items[clean.correct])
        rows = run.answers.under(condition)
        rows = rows.where(np.array([item in right for item in rows.items], dtype=bool))
        failed += int(rows.failed.sum())
        rows = rows.where(~rows.failed)
        fallen += (~rows.correct).tolist()
        clusters += [record.cluster for record in rows]
        for title, by in _titled(run).items():
            levels.setdefault(title, []).extend(rows.names(by))
        levels.setdefault(MODEL, []).extend([run.name] * len(rows))
    outcome, codes = np.array(fallen, dtype=bool), stats.cluster_codes(clusters)
    odds, reason = odds_of(outcome, codes, {column: np.array(names, dtype=object) for column, names in levels.items()})
    return Falling(
        condition=condition,
        n=len(fallen),
        fallen=sum(fallen),
        clusters=len(set(clusters)),
        failed=failed,
        odds=odds,
        reason=reason,
    )


def _titled(run: Run) -> dict[str, Slicing | Column]:
    """All that a run is broken down by, each under a title of its own: the user's columns may be called as others."""
    titled = dict[str, Slicing | Column]()
    for by, title in run.slicings.items():
        while title in (MODEL, *titled):
            title += " (data)"
        titled[title] = by
    return titled


Level = tuple[str, str]
"""A column and one of its levels."""


def odds_of(fallen: Mask, clusters: stats.Codes, levels: Mapping[str, Names]) -> tuple[tuple[Odds, ...], str]:
    """Estimate odds ratios of falling, with 95 % intervals by cluster.

    Generalized estimating equations with the logit link and independence as working correlation: the estimates are
    those of a logistic regression, the standard errors count clusters (sandwich, corrected for few of them), and the
    intervals are Student's t with as many degrees of freedom as clusters exceed parameters. The reference of a column
    is its most frequent level.

    A level is left out with its items, and has a reason instead of numbers, where all or none of them fell (its odds
    ratio is infinite or 0), or where they are effectively fewer than ten clusters; a whole column, where it has one
    level, or cannot be told apart from the columns before it.

    Args:
        fallen: (n,) one bool per item.
        clusters: (n,) one number per item.
        levels: of each column (n,) names.
    Returns:
        The levels; and why nothing could be estimated, else "".
    Source:
        Liang and Zeger 1986, "Longitudinal data analysis using generalized linear models"; Mancl and DeRouen 2001, "A
        covariance estimator for GEE with improved small-sample properties"; both as in statsmodels. Separation is found
        by linear programming, after Konis 2007. At least five items that fell, and five that held, for each odds ratio:
        Vittinghoff and McCulloch 2007, "Relaxing the rule of ten events per variable".
    """
    kept, reasons = _estimable(fallen, clusters, levels)
    design, shown, others = _design({column: names[kept] for column, names in levels.items()})
    reasons |= others
    whole = _unfit(fallen[kept], clusters[kept], design)
    fitted = None if whole else _fit(fallen[kept], clusters[kept], design)
    if not whole and fitted is None:
        whole = "the regression does not converge"
    odds = []
    for column, names in levels.items():
        for level in in_order(set(names)):
            of = names == level
            reason = reasons.get((column, level), whole)
            counted = Odds(column=column, level=level, n=int(of.sum()), fallen=int(fallen[of].sum()), reason=reason)
            if not reason and fitted is not None:
                ratio, lower, upper = (float(value) for value in np.exp(fitted[shown.index((column, level))]))
                counted = replace(counted, ratio=ratio, lower=lower, upper=upper)
            odds.append(counted)
    return tuple(odds), whole


def _estimable(fallen: Mask, clusters: stats.Codes, levels: Mapping[str, Names]) -> tuple[Mask, dict[Level, str]]:
    """The rows without levels that cannot be estimated, and why each of these levels cannot."""
    kept, lost = np.ones(len(fallen), dtype=bool), dict[Level, str]()
    while True:
        found = dict[Level, str]()
        for column, names in levels.items():
            present = sorted(set(names[kept]))
            for level in present if len(present) > 1 else ():
                of = kept & (names == level)
                if fallen[of].all() or not fallen[of].any():
                    found[column, level] = "all of them fell" if fallen[of].all() else "none of them fell"
                elif stats.too_few(stats.cluster_codes(clusters[of])):
                    found[column, level] = "too few clusters"
        if not found:
            return kept, lost
        lost |= found
        for column, level in found:
            kept &= levels[column] != level


def _design(levels: Mapping[str, Names]) -> tuple[Floats, list[Level | None], dict[Level, str]]:
    """The intercept and a 0/1 column for each level but the references.

    Returns:
        (n, p) the matrix; what each of its columns stands for, None for the intercept; and why levels have none.
    """
    rows = len(next(iter(levels.values())))
    matrix, shown, reasons = np.ones((rows, 1)), list[Level | None]([None]), dict[Level, str]()
    for column, names in levels.items():
        counts = Counter(names)
        first, *others = sorted(counts, key=lambda name: (-counts[name], name)) if counts else [""]
        wider = np.column_stack([matrix, *((names == name).astype(float) for name in others)])
        reason = ""
        if not others:
            reason = "one level alone"
        elif np.linalg.matrix_rank(np.unique(wider, axis=0)) < wider.shape[1]:
            reason = "cannot be told apart from the columns above"
        if reason:
            reasons |= dict.fromkeys(((column, name) for name in counts), reason)
            continue
        reasons[column, first] = REFERENCE
        matrix, shown = wider, [*shown, *((column, name) for name in others)]
    return matrix, shown, reasons


def _unfit(fallen: Mask, clusters: stats.Codes, design: Floats) -> str:
    """Why no regression should be made of these; empty if it may."""
    wanted, codes = design.shape[1] - 1, stats.cluster_codes(clusters)
    if not len(fallen) or stats.too_few(codes) or codes.max() + 1 <= wanted + 1:
        return "too few clusters"
    if not wanted:
        return "no column has two levels to compare"
    rarer = int(min(fallen.sum(), (~fallen).sum()))
    if rarer < _FEWEST * wanted:
        what = "fell" if rarer == fallen.sum() else "held"
        return f"{rarer:,} items {what}: too few for {wanted} odds ratios, {_FEWEST} for each are needed"
    return "the columns together separate what fell from what held" if separated(fallen, design) else ""


def separated(fallen: Mask, design: Floats) -> bool:
    """Tell whether some weights of the columns never contradict the outcomes, so that an odds ratio is infinite.

    They are those that maximize the sum of all margins, each of which must not be negative: 0 if there are none.
    """
    signed = np.unique(np.where(fallen, 1.0, -1.0)[:, None] * design, axis=0)
    found = optimize.linprog(-signed.sum(0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1, 1), method="highs")
    return found.fun is None or bool(found.fun < -_TIE)


def _fit(fallen: Mask, clusters: stats.Codes, design: Floats) -> Floats | None:
    """(p, 3) log odds ratios, their lower and their upper ends; None where the equations do not converge."""
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    order = np.argsort(clusters, kind="stable")
    clusters, outcome, design = clusters[order], fallen[order].astype(float), design[order]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is asked below
        result = GLM(outcome, design, family=Binomial()).fit(maxiter=100, tol=1e-10)
    estimates, chances = np.asarray(result.params), np.asarray(result.fittedvalues)
    starts = np.flatnonzero(np.diff(clusters, prepend=-1))
    errors = _errors(design, outcome - chances, chances * (1 - chances), starts)
    if errors is None or not (result.converged and np.isfinite(estimates).all()):
        return None
    reach = -float(special.stdtrit(len(starts) - design.shape[1], _TAIL)) * errors
    return np.stack([estimates, estimates - reach, estimates + reach], axis=1)


def _errors(design: Floats, residuals: Floats, weights: Floats, starts: stats.Codes) -> Floats | None:
    """Standard errors by cluster, corrected after Mancl and DeRouen (2001); None where they are not finite and above 0.

    With independence as working correlation and the canonical link, their covariance is the sum of u u' over clusters,
    where u = (B - A)^-1 s, B is the information of all items, A that of the cluster's items, and s the cluster's
    score: the step by which the estimates move when the cluster is left out. statsmodels comes to the same with one
    matrix of the size of the cluster after another, which takes minutes for a hundred thousand clusters.

    Args:
        design: (n, p), rows of a cluster side by side. residuals, weights: (n,) outcome less chance, and its variance.
        starts: (clusters,) the first row of each.
    """
    whole, total = design.T @ (weights[:, None] * design), np.zeros((design.shape[1],) * 2)
    scores = np.add.reduceat(residuals[:, None] * design, starts)
    ends = np.append(starts[1:], len(design))
    for first in range(0, len(starts), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        rows = slice(starts[some][0], ends[some][-1])
        products = (weights[rows, None] * design[rows])[:, :, None] * design[rows, None, :]
        try:
            steps = np.linalg.solve(whole - np.add.reduceat(products, starts[some] - rows.start), scores[some, :, None])
        except np.linalg.LinAlgError:
            return None
        total += np.einsum("cpi,cqi->pq", steps, steps)
    errors = np.sqrt(np.diag(total))
    return errors if np.isfinite(errors).all() and (errors > 0).all() else None
