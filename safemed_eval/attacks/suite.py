"""suite: several attacks that fail in different ways, one after the other; what falls to any has fallen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from safemed_eval.attacks._base import Attacked, BallAttack, refuse_counts
from safemed_eval.attacks.apgd import APGD
from safemed_eval.attacks.art import ART
from safemed_eval.grammar import ALWAYS

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify


_QUERIES_A_ROUND = 3
"""Of ART's Square."""


@dataclass(frozen=True, kw_only=True)
class Suite(BallAttack):
    """APGD on the cross-entropy, APGD towards each wrong option in turn, and Square, which sees no gradient.

    Only rows that are still answered rightly go on to the next. Records say which of the three a row met, and whether
    its answer was right after each.

    Args:
        steps: gradients of each APGD.
        queries: about how many images Square shows to the model, for each row.
    Source:
        AutoAttack, Croce and Hein 2020 (arXiv:2003.01690), for a question of K options. Differs: all K - 1 wrong
        options are targets; where a question has fewer than four, the margin stands for the targeted DLR loss, which is
        undefined there; FAB is left out; Square is that of the adversarial robustness toolbox.
    """

    steps: int = field(default=100, metadata=ALWAYS)
    queries: int = 600

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(steps=self.steps, queries=self.queries)

    @property
    def square(self) -> ART:
        """The black-box member."""
        rounds = max(1, self.queries // _QUERIES_A_ROUND)
        return ART(method="SquareAttack", eps=self.eps, norm=self.norm, options={"max_iter": rounds})

    def looks(self, options: int) -> int:
        return 1 + options * (1 + self._climb.looks(options)) + 1 + self.queries

    @property
    def _climb(self) -> APGD:
        return APGD(eps=self.eps, norm=self.norm, steps=self.steps)

    def search(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        quantize: bool,
    ) -> Attacked:
        from safemed_eval.attacks._suite import Course, targets_by_rank

        course = Course(classify, canvas, labels, generators, quantize)
        course.meet("apgd-ce", self._climb)
        for targets in targets_by_rank(course.clean, labels):
            course.meet("apgd-targeted", replace(self._climb, loss="dlr"), targets)
        course.meet("square", self.square)
        return course.result()


ATTACK = Suite
