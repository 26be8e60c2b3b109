"""Computes the numbers of any part of a run. Items that failed stay in every denominator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import TypeVar

import numpy as np

from safemed_eval.core import CLEAN
from safemed_eval.report.findings.attack_sizes import sized_attacks
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.rows import Answers, Certificates, Floats, Mask
from safemed_eval.report.summary.numbers import Answered, AnsweredBy, Certified, Point, Rest, Share
from safemed_eval.smoothing import NO_ANSWER, WRONG, Budget, DonorVote, Sequential

Part = TypeVar("Part", Answers, Certificates)


def answers_measure(run: LoadedRun) -> Callable[[Answers], AnsweredBy]:
    """Make the function that measures some of the rows of an evaluate run."""
    huge = {attack.condition for attack in sized_attacks(run) if attack.is_huge and attack.facts.should_flip}
    parts = {name: _parts_of(run.answers.under(name)) for name in run.conditions}
    voted = run.voting is not None

    def measure(part: Answers) -> AnsweredBy:
        right = {record.item for record in part.under(CLEAN) if record.correct}
        return {
            name: _answered(
                part.all_under(run.grounded.get(name, name)),
                right=right,
                voted=voted,
                grounded=name in run.grounded,
                huge=name in huge,
                parts=parts.get(name, ()),
            )
            for name in run.measures
        }

    return measure


def _parts_of(rows: Answers) -> list[str]:
    """The names of the parts of an attack that is made of several."""
    return list(dict.fromkeys(name for record in rows for name in record.parts or ()))


def _answered(
    rows: Answers, *, right: Set[str], voted: bool, grounded: bool, huge: bool, parts: Sequence[str]
) -> Answered:
    """Measure the rows of one condition.

    Args:
        right: the items that are answered rightly on clean images: only these can flip.
        grounded: count only the answers that depend on the image, and say nothing of the attack's steps.
    """
    unavailable = int(rows.unavailable.sum())
    rows = rows.where(~rows.unavailable)
    successes = rows.correct & rows.dependent if grounded else rows.correct
    share = _share(rows, successes)
    was_right = np.array([record.item in right for record in rows], dtype=bool)
    flipped = rows.steps[was_right & ~rows.correct & (rows.steps > 0)]
    if voted:
        silent = sum(record.abstained == NO_ANSWER for record in rows)
    else:
        silent = int((~rows.answered & ~rows.failed).sum())
    return Answered(
        **vars(share),
        no_answer=silent,
        abstained=sum(record.abstained is not None for record in rows) if voted and len(rows) else None,
        median_steps=None if voted or grounded or not len(flipped) else float(np.median(flipped)),
        image_blind=share.count if huge else None,
        parts={name: _share(rows, _left_right(rows, name)) for name in parts} or None,
        unavailable=unavailable,
    )


def _left_right(rows: Answers, part: str) -> Mask:
    """Return which items were right after this part of an attack; one that did not meet it was wrong before."""
    return np.array([(record.parts or {}).get(part, False) for record in rows], dtype=bool)


def _share(rows: Answers | Certificates, successes: Mask, *, known: bool = True) -> Share:
    """The share of successes.

    Args:
        known: whether it says anything; else the share and its bounds are None.
    """
    share, failed = rows.share(successes), rows.failed
    count, nothing, rest = int(failed.sum()), rows.nothing_measured, None
    known = known and not nothing
    if count and known:
        others = rows.where(~failed).share(successes[~failed])
        rest = Rest(share=others.estimate, lower=others.lower, upper=others.upper, count=others.count, n=others.n)
    return Share(
        share=share.estimate if known else None,
        lower=share.lower if known else None,
        upper=share.upper if known else None,
        count=share.count if known else None,
        n=share.n,
        clusters=share.clusters,
        few=known and share.few,
        failed=count,
        all_failed=nothing,
        without_failed=rest,
    )


def certificates_measure(
    run: LoadedRun, radii: Mapping[str, float] | None = None
) -> Callable[[Certificates], Certified]:
    """Make the function that measures some of the rows of a certify run; see `certify_summary` for its radii."""
    points = radii or run.points
    return partial(_certified, points=points, budget=run.budget, ceiling=run.ceiling, donor_vote=run.donor_vote)


def _certified(
    rows: Certificates,
    points: Mapping[str, float],
    budget: Budget,
    ceiling: float,
    donor_vote: DonorVote | None,
) -> Certified:
    n, nothing = len(rows), rows.nothing_measured
    right = rows.right_radii
    grounded = rows.grounded_radii(donor_vote) if donor_vote else None
    reached = np.nan_to_num(right, nan=0.0)
    abstained = [record.abstained for record in rows]
    none = sum(reason is not None for reason in abstained)
    half = float(np.quantile(np.nan_to_num(right, nan=-1.0), 0.5, method="higher")) if n else -1.0
    # Sequential certificates are of the gold answer alone; where draws end with a wrong selection, so are fixed ones.
    gold_only = isinstance(budget, Sequential)
    unseen = gold_only or nothing or WRONG in abstained
    return Certified(
        points={name: _point(rows, right, value, budget, ceiling) for name, value in points.items()},
        grounded={}
        if grounded is None
        else {name: _point(rows, grounded, value, budget, ceiling) for name, value in points.items()},
        n=n,
        clusters=int(rows.clusters.max()) + 1 if n else 0,
        abstained=none,
        abstention=none / n if n and not nothing else None,
        no_answer=None if gold_only else abstained.count(NO_ANSWER),
        wrong=None if unseen else int((~np.isnan(rows.radii) & ~rows.correct).sum()),
        average_radius=float(reached.mean()) if n and not nothing else None,
        median_radius=half if half >= 0 else None,
        failed=int(rows.failed.sum()),
        all_failed=nothing,
        at_least=gold_only,
    )


def _point(rows: Certificates, right: Floats, value: float, budget: Budget, ceiling: float) -> Point:
    asked = budget.asked(value) if isinstance(budget, Sequential) else value
    above = asked is not None and asked > ceiling
    share = _share(rows, right >= (value if asked is None else asked), known=asked is not None and not above)
    return Point(**vars(share), radius=value, asked=asked is not None, above_ceiling=above)
