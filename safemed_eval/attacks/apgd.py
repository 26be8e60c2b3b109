"""apgd: projected gradient descent that finds its own step size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safemed_eval.attacks._base import Attacked, BallAttack, Loss, Target, refuse_counts
from safemed_eval.grammar import ALWAYS

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify


@dataclass(frozen=True, kw_only=True)
class APGD(BallAttack):
    """Ascent with momentum whose step starts at 2 eps and is halved where it no longer helps.

    Args:
        loss: dlr is that of the source where a question has enough options for it (three, four for a target), and the
            margin elsewhere.
        target: none: away from gold. Otherwise towards one wrong option, chosen once on the clean image.
    Source:
        Croce and Hein 2020 (arXiv:2003.01690), algorithm 1. Differs: as pgd here, the clean image is tried first and a
        row stops at the first point that succeeds; a start is uniform in the ball; `steps` counts gradients, of which
        the source takes one more.
    """

    steps: int = field(default=100, metadata=ALWAYS)
    restarts: int = 1
    loss: Loss = "ce"
    target: Target = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(steps=self.steps, restarts=self.restarts)

    def looks(self, options: int) -> int:
        return (self.target != "none") + 1 + self.restarts * (self.steps + 1)

    def search(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        quantize: bool,
    ) -> Attacked:
        from safemed_eval.attacks._ascent import goal_of
        from safemed_eval.attacks._auto import auto_ascend

        goal = goal_of(self, classify, canvas, labels, generators)
        return auto_ascend(classify, canvas, goal, self, generators, quantize)


ATTACK = APGD
