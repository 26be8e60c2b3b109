"""fgsm: one step of full size along the sign of the gradient (for L2, along the gradient)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from safemed_eval.attacks._common.base import Attack, BallAttack, Facts, Loss
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.attacks.pgd import PGD


@dataclass(frozen=True, kw_only=True)
class FGSM(BallAttack):
    """PGD with one step of size eps from the clean image.

    Source:
        Goodfellow et al. 2015 (arXiv:1412.6572). Differs: an image that is answered wrongly is left as it is, and so
        is one whose loss would fall; `early_stop=no` is the plain step for every image. For L2 the step is scaled
        to eps and then clamped to [0, 1], so that it is shorter where pixels are saturated.
    """

    facts = Facts(strength=1, example="fgsm:eps=4/255")

    refills = True

    loss: Loss = "ce"
    early_stop: bool = True

    def looks(self, options: int) -> int:
        return self._one_step.looks(options)

    @property
    def on_smoothed(self) -> Attack:
        return replace(self, early_stop=False)

    @property
    def _one_step(self) -> PGD:
        return PGD(
            eps=self.eps,
            norm=self.norm,
            steps=1,
            step=1.0,
            start="zero",
            loss=self.loss,
            early_stop=self.early_stop,
        )

    def search(self, problem: Problem) -> Attacked:
        return self._one_step.search(problem)


ATTACK = FGSM
