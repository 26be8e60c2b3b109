"""clean: no attack. The images as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safemed_eval.attacks._base import Attack, Attacked
from safemed_eval.threat import Threat

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify, Need


@dataclass(frozen=True, kw_only=True)
class Clean(Attack):
    """Returns the canvases unchanged."""

    @property
    def threat(self) -> Threat:
        return Threat(norm="linf", eps=0.0)

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
        return Attacked(canvas=canvas, steps=[0] * len(canvas))


ATTACK = Clean
