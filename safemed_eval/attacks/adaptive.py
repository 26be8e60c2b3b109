"""adaptive: against models that write before they answer, the worst of three attacks on what they write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from safemed_eval.attacks._base import Attacked, BallAttack, refuse_counts
from safemed_eval.grammar import ALWAYS

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify, Reasons


@dataclass(frozen=True, kw_only=True)
class Adaptive(BallAttack):
    """PGD on three goals, with as many gradient steps each; an item has fallen if it fell to any of them.

    - `answer`: the bare option letter after the cue loses to the others, as in pgd.
    - `rationale`: what the model writes, its own rationale and then the gold answer, becomes unlikely.
    - `wrong-option`: a rationale for the likeliest wrong option, and that option, become likely.

    The two texts are taken from the clean image, and every `refresh` steps anew from what the model writes at the
    point that the search has reached. A row stops where it writes a wrong answer or none. The records say which of the
    three left it right. An attack on the letter alone misses a model whose answer hangs on its rationale; without the
    other two, reasoning looks more robust than it is.

    Args:
        step: size of one step as a fraction of eps; by default 2.5 / steps, at most 1.
    """

    steps: int = field(default=10, metadata=ALWAYS)
    step: float | None = None
    refresh: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(steps=self.steps, refresh=self.refresh)
        if self.step is not None and not 0 < self.step <= 2:
            raise ValueError(f"step is a fraction of eps in (0, 2], got {self.step:g}")

    @property
    def needs_texts(self) -> bool:
        return True

    @property
    def step_size(self) -> float:
        """Size of one step, in the unit of eps."""
        return self.threat.eps * (min(1.0, 2.5 / self.steps) if self.step is None else self.step)

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
