"""clean: no attack; the images stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

from safemed_eval.attacks._common.base import Attack, Facts
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Clean(Attack):
    """Returns the canvases unchanged."""

    facts = Facts(role="clean", aims_at=None)

    @property
    def threat(self) -> Threat:
        return Threat(norm="linf", eps=0.0)

    def search(self, problem: Problem) -> Attacked:
        return Attacked(canvas=problem.canvas, steps=[0] * len(problem))


ATTACK = Clean
