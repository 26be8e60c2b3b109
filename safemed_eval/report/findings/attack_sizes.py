"""The attacks of a run that have a size, and which of them are one curve."""

from __future__ import annotations

from dataclasses import dataclass

from safemed_eval.attacks import Facts, facts_of
from safemed_eval.report.load import LoadedRun

HUGE_EPS = 0.5
"""From this L-infinity eps on the balls of all images share mid-grey: an item that never flips is image-blind."""


@dataclass(frozen=True, kw_only=True)
class SizedAttack:
    """One attack of a run that has an eps. Those of one family and norm differ in eps only."""

    condition: str
    facts: Facts
    eps: float

    @property
    def family(self) -> str:
        return self.facts.family

    @property
    def norm(self) -> str:
        return self.facts.norm

    @property
    def is_huge(self) -> bool:
        """True where the balls of all images meet: this tests the attack, not the model."""
        return self.norm == "linf" and self.eps >= HUGE_EPS and not self.facts.region


def facts_by_condition(run: LoadedRun) -> dict[str, Facts]:
    """Facts about each condition of a run; none for a certify run."""
    return {condition: facts_of(condition, run.attacks.get(condition, {})) for condition in run.conditions}


def sized_attacks(run: LoadedRun) -> list[SizedAttack]:
    """The attacks of a run that have an eps."""
    return [
        SizedAttack(condition=condition, facts=facts, eps=facts.eps)
        for condition, facts in facts_by_condition(run).items()
        if facts.eps is not None
    ]


def aims_at_letters(run: LoadedRun) -> bool:
    """Return True where a model that writes was attacked, but never through what it writes."""
    aims = {facts.aims_at for facts in facts_by_condition(run).values() if facts.role == "attack" and facts.aims_at}
    return run.spec.writes and bool(aims) and "text" not in aims
