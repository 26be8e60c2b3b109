"""adaptive: against models that write before they answer, the worst of six attacks on what they write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from safemed_eval.attacks._base import Attacked, SteppedAttack, refuse_counts

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify, Need, Reasons


@dataclass(frozen=True, kw_only=True)
class Adaptive(SteppedAttack):
    """PGD on six goals, with as many gradient steps each; an item has fallen if it fell to any of them.

    - `answer`: the bare option letter after the cue loses to the others, as in pgd.
    - `thought`: the gold letter loses to the others after the thought that the model writes itself.
    - `runner-up`: the likeliest wrong letter wins there.
    - `rationale`: what the model writes, its own rationale and then the gold answer, becomes unlikely.
    - `wrong-option`: a rationale for the likeliest wrong option, and that option, become likely.
    - `no-thought`: that option, with no rationale before it, becomes likely ("stop reasoning", arXiv:2402.14899).

    What is forced on the model is taken from what it writes about the clean image, and every `refresh` steps anew from
    what it writes at the point that the search has reached. A row stops where it writes a wrong answer or none. The
    first climb on each goal begins with a step from the clean image to the edge of the ball, as FGSM does; those of
    further `restarts` begin at random points. The records say which goals left an item right. An attack on the letter
    alone misses a model whose answer depends on its rationale; without the others, reasoning looks more robust than it
    is.
    """

    refresh: int = 5
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(refresh=self.refresh, restarts=self.restarts)

    @property
    def needs(self) -> tuple[Need, ...]:
        return (*super().needs, "texts")

    def search(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        quantize: bool,
    ) -> Attacked:
        from safemed_eval.attacks._adaptive import worst_of_all

        if not hasattr(classify, "likelihood"):
            raise TypeError("adaptive asks for what a model writes, and how likely a text is: see core.Reasons")
        return worst_of_all(cast("Reasons", classify), canvas, labels, self, generators, quantize)


ATTACK = Adaptive
