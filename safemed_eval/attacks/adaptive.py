"""adaptive: against models that write before they answer, the worst of three attacks on what they write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from safemed_eval.attacks._base import Attacked, SteppedAttack, refuse_counts

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify, Need, Reasons


@dataclass(frozen=True, kw_only=True)
class Adaptive(SteppedAttack):
    """PGD on three goals, with as many gradient steps each; an item has fallen if it fell to any of them.

    - `answer`: the bare option letter after the cue loses to the others, as in pgd.
    - `rationale`: what the model writes, its own rationale and then the gold answer, becomes unlikely.
    - `wrong-option`: a rationale for the likeliest wrong option, and that option, become likely.

    The two texts are taken from the clean image, and every `refresh` steps anew from what the model writes at the
    point that the search has reached. A row stops where it writes a wrong answer or none. The records say which of the
    three left it right. An attack on the letter alone misses a model whose answer hangs on its rationale; without the
    other two, reasoning looks more robust than it is.
    """

    refresh: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(refresh=self.refresh)

    @property
    def needs(self) -> tuple[Need, ...]:
        return (*super().needs, "texts")

    def looks(self, options: int) -> int:
        return 2 + 3 * (self.steps + math.ceil(self.steps / self.refresh))

    def search(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        quantize: bool,
    ) -> Attacked:
        from safemed_eval.attacks._adaptive import worst_of_three

        if not hasattr(classify, "likelihood"):
            raise TypeError("adaptive asks for what a model writes, and how likely a text is: see core.Reasons")
        return worst_of_three(cast("Reasons", classify), canvas, labels, self, generators, quantize)


ATTACK = Adaptive
