"""pgd: projected gradient descent, many small steps inside the ball."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from safemed_eval.attacks._base import Attack, Attacked, Loss, Start, SteppedAttack, Target, refuse_counts

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify


@dataclass(frozen=True, kw_only=True)
class PGD(SteppedAttack):
    """Steepest ascent on the loss, projected back into the ball after each step.

    Args:
        target: none: away from gold. Otherwise towards one wrong option, chosen once on the clean image.
        early_stop: leave a row alone that is answered wrongly at once, and stop it at the first point that succeeds.
    Source:
        Madry et al. 2018 (arXiv:1706.06083). Differs: the loss is over the K options of the question; the clean image
        is tried first, a row stops at the first point that succeeds, and a row that never does returns its point of
        largest loss, not its last one. `early_stop=no` is the plain algorithm.
    """

    start: Start = "random"
    restarts: int = 1
    loss: Loss = "ce"
    target: Target = "none"
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(restarts=self.restarts)
        if self.restarts > 1 and self.start == "zero":
            raise ValueError("restarts from start=zero would repeat each other; use start=random")

    @property
    def refills(self) -> bool:
        return True

    def looks(self, options: int) -> int:
        return (self.target != "none") + self.early_stop + self.restarts * (self.steps + 1)

    @property
    def on_smoothed(self) -> Attack:
        return replace(self, early_stop=False)

    def search(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        quantize: bool,
    ) -> Attacked:
        from safemed_eval.attacks._ascent import ascend, goal_of

        goal = goal_of(self, classify, canvas, labels, generators)
        return ascend(classify, canvas, goal, self, generators, quantize)


ATTACK = PGD
