"""noise: one uniform draw from the ball, the random control that every real attack must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safemed_eval.attacks._base import Attack, Attacked, BallAttack

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify, Need


@dataclass(frozen=True, kw_only=True)
class Noise(BallAttack):
    """Uniform noise in the ball; the model is never asked."""

    @property
    def needs(self) -> tuple[Need, ...]:
        return ()

    def looks(self, options: int) -> int:
        return 0

    @property
    def on_smoothed(self) -> Attack:
        return self

    def search(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        quantize: bool,
    ) -> Attacked:
        drawn = self.threat.sample(canvas, generators)
        if quantize:
            drawn = self.threat.snap(canvas, drawn)
        return Attacked(canvas=drawn, steps=[0] * len(canvas))


ATTACK = Noise
