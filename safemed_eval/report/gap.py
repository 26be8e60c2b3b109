"""The gap: what is certified of a smoothed model, and what attacks on it leave, at the same L2 radii."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from safemed_eval import stats
from safemed_eval.core import CLEAN
from safemed_eval.report.curves import Curve, curve_of
from safemed_eval.report.findings.attack_sizes import sized_attacks
from safemed_eval.report.load import LoadedRun
from safemed_eval.rounding import percent_down, percent_up
from safemed_eval.smoothing import UNCLEAR

NOTE = (
    "Robust accuracy of the smoothed model lies between the two: certified accuracy bounds it from below, attacks from "
    "above. There an unclear vote, or an item that failed, counts as right: it proves nothing. Bars and band: 95 % "
    "intervals."
)
R = TypeVar("R", bound=LoadedRun)


@dataclass(frozen=True, kw_only=True)
class Left:
    """What one attack leaves of the smoothed model's accuracy, beside what is certified at its size.

    Attributes:
        eps: L2 bound of the attack; 0 is the clean image.
        left: share of items that stay right, whose vote is unclear, or that failed or could not be attacked.
        certified: share of items that are right with a certified radius of at least eps; None above the ceiling.
    """

    eps: float
    condition: str
    left: stats.Proportion
    certified: stats.Proportion | None

    @property
    def certified_text(self) -> str:
        """In percent, rounded down."""
        share = self.certified.estimate if self.certified else None
        return ">ceiling" if share is None else percent_down(share)

    @property
    def left_text(self) -> str:
        """In percent, rounded up."""
        return percent_up(self.left.estimate)


@dataclass(frozen=True, kw_only=True)
class Gap(Generic[R]):
    """A certify run, and a run of L2 attacks on the same smoothed model.

    Attributes:
        families: the attacks that differ in eps only, each from small to large, the clean image first.
    """

    certified: R
    attacked: R
    curve: Curve
    families: dict[str, list[Left]]

    @property
    def title(self) -> str:
        return f"{self.certified.name}, {self.certified.budget.kind.title}"

    @property
    def few(self) -> bool:
        """True where the clusters are too few to trust an interval."""
        return self.curve.few or any(point.left.few for points in self.families.values() for point in points)


def gaps_of(runs: Sequence[R]) -> list[Gap[R]]:
    """Pair each certify run with each run of L2 attacks on the same smoothed model and the same questions."""
    attacked = [run for run in runs if _l2_attacks(run)]
    gaps = []
    for proofs in (run for run in runs if run.kind == "certify" and run.budget.kind.measure == "l2"):
        curve = curve_of(proofs)
        for attacks in attacked if curve else ():
            families = _families(proofs, attacks)
            if curve and families and not _differences(proofs, attacks):
                gaps.append(Gap(certified=proofs, attacked=attacks, curve=curve, families=families))
    return gaps


def why_no_gap(runs: Sequence[LoadedRun]) -> list[str]:
    """Say, of each certify run that stands in no gap, why; in one sentence where that holds for all of them."""
    proved = [run for run in runs if run.kind == "certify" and run.budget.kind.measure == "l2" and curve_of(run)]
    answered = [run for run in runs if run.kind == "evaluate" and run.records]
    smoothed = [run for run in answered if run.voting]
    attacked = [run for run in smoothed if _l2_attacks(run)]
    if not proved:
        return ["No gap is shown: no run of certify with L2 radii is here that measured anything."]
    if not smoothed:
        return [
            "No gap is shown: no run of evaluate with --smooth is here. Certificates are of the smoothed model, and "
            "attacks on the model without noise say nothing about it."
        ]
    if not attacked:
        return ["No gap is shown: no attack on the smoothed model is bounded in L2, the norm of the certificates."]
    paired = [id(gap.certified) for gap in gaps_of(runs)]
    return [_why(run, attacked) for run in proved if id(run) not in paired]


def _why(proofs: LoadedRun, attacked: Sequence[LoadedRun]) -> str:
    nearest = min(attacked, key=lambda run: len(_differences(proofs, run)))
    others = _differences(proofs, nearest)
    reason = f"they differ in {', '.join(others)}" if others else "nothing was measured under its attacks"
    return f"No gap is shown for {proofs.name}: of the attacked runs {nearest.name} is the nearest, and {reason}."


def _differences(proofs: LoadedRun, attacks: LoadedRun) -> list[str]:
    """What keeps two runs from being of one smoothed model and the same questions."""
    here, there, voting = proofs.spec, attacks.spec, attacks.voting
    same = {
        "model": here.model == there.model,
        "dtype": here.load.dtype == there.load.dtype,
        "prompt": here.asking == there.asking,
        "items": (here.data, here.select, here.skipped) == (there.data, there.select, there.skipped),
        "items that are done": set(proofs.rows.items) == set(attacks.rows.items),
        "canvas": here.grid == there.grid,
        "noise and sigma": voting is not None and voting.kind == proofs.budget.kind,
        "order of options": not proofs.random_order and here.shuffle_options == there.shuffle_options,
    }
    return [what for what, equal in same.items() if not equal]


def _l2_attacks(run: LoadedRun) -> dict[str, list[tuple[float, str]]]:
    """The L2 attacks on a smoothed model, by family, each with its (eps, condition) from small to large."""
    families: dict[str, list[tuple[float, str]]] = {}
    for attack in sized_attacks(run) if run.voting and run.records else ():
        if attack.norm == "l2" and attack.facts.role != "control":
            families.setdefault(attack.family, []).append((attack.eps, attack.condition))
    return {family: sorted(points) for family, points in families.items()}


def _families(proofs: LoadedRun, attacks: LoadedRun) -> dict[str, list[Left]]:
    """The points of each family; none for one of which nothing was measured."""
    families = {}
    for family, sizes in _l2_attacks(attacks).items():
        points = [_left(proofs, attacks, eps, condition) for eps, condition in [(0.0, CLEAN), *sizes]]
        known = [point for point in points if point]
        if any(point.eps for point in known):
            families[family] = known
    return families


def _left(proofs: LoadedRun, attacks: LoadedRun, eps: float, condition: str) -> Left | None:
    """What a condition leaves; None where all of its items failed."""
    rows, proved = attacks.answers.all_under(condition), proofs.certificates
    if condition in attacks.all_failed:
        return None
    unclear = np.array([record.abstained == UNCLEAR for record in rows], dtype=bool)
    left = rows.share(rows.correct | unclear | rows.failed | rows.unavailable)
    certified = proved.share(proved.right_radii >= eps) if eps <= proofs.ceiling else None
    return None if left.estimate is None else Left(eps=eps, condition=condition, left=left, certified=certified)
