"""fgsm: one step of full size along the sign of the gradient (for L2, along the gradient)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safemed_eval.attacks._base import Attacked, BallAttack, Loss

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify


@dataclass(frozen=True, kw_only=True)
class FGSM(BallAttack):
    """PGD with one step of size eps from the clean image.

    Source:
        Goodfellow et al. 2015 (arXiv:1412.6572). Differs: an image that is answered wrongly is left as it is, and one
        whose loss would fall is not moved; `early_stop=no` is the plain step for every image.
    """

    loss: Loss = "ce"
    early_stop: bool = True

    def search(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        quantize: bool,
    ) -> Attacked:
        from safemed_eval.attacks._ascent import Goal, ascend

        return ascend(
            classify,
            canvas,
            Goal(loss=self.loss, labels=labels, targeted=False),
            threat=self.threat,
            steps=1,
            step_size=self.eps,
            start="zero",
            restarts=1,
            early_stop=self.early_stop,
            quantize=quantize,
            generators=generators,
        )


ATTACK = FGSM
