"""suite: several attacks that fail in different ways, one after the other; what falls to any has fallen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from safemed_eval.attacks._base import Attack, Attacked, BallAttack
from safemed_eval.attacks.apgd import APGD
from safemed_eval.grammar import ALWAYS

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify


@dataclass(frozen=True, kw_only=True)
class Suite(BallAttack):
    """APGD on the cross-entropy, APGD towards each wrong option in turn, and Square, which sees no gradient.

    Only rows that are still answered rightly go on to the next. Records say which of the three a row met, and whether
    its answer was right after each.

    Args:
        steps: gradients of each APGD.
        queries: images that Square may show to the model, for each row.
    Source:
        AutoAttack, Croce and Hein 2020 (arXiv:2003.01690), for a question of K options. Differs: all K - 1 wrong
        options are targets; where a question has fewer than four, the margin stands for the targeted DLR loss, which is
        undefined there; FAB is left out; Square is that of the adversarial robustness toolbox.
    """

    steps: int = field(default=100, metadata=ALWAYS)
    queries: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.queries < 1:
            raise ValueError("steps and queries must be at least 1")

    @property
    def square(self) -> Attack:
        """The black-box member."""
        from safemed_eval.attacks import parse

        return parse(f"art:SquareAttack,eps={self.eps},norm={self.norm},max_iter={self.queries}")

    def search(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        quantize: bool,
    ) -> Attacked:
        from safemed_eval.attacks._suite import Course, targets_by_rank

        climb = APGD(eps=self.eps, norm=self.norm, steps=self.steps)
        course = Course(classify, canvas, labels, generators, quantize)
        course.meet("apgd-ce", climb)
        for targets in targets_by_rank(course.clean, labels):
            course.meet("apgd-targeted", replace(climb, loss="dlr"), targets)
        course.meet("square", self.square)
        return course.result()


ATTACK = Suite
