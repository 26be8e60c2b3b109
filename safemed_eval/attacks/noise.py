"""noise: one uniform draw from the ball, the random control that every attack must beat."""

from __future__ import annotations

from dataclasses import dataclass

from safemed_eval.attacks._common.base import BallAttack, Facts
from safemed_eval.attacks._common.problem import Attacked, Problem


@dataclass(frozen=True, kw_only=True)
class Noise(BallAttack):
    """Uniform noise in the ball; the model is not used."""

    facts = Facts(role="control", strength=0, aims_at=None, example="noise", summary="the random control")

    def search(self, problem: Problem) -> Attacked:
        drawn = problem.sample(self.threat, range(len(problem)))
        return Attacked(canvas=problem.on_grid(drawn, self.threat), steps=[0] * len(problem))


ATTACK = Noise
