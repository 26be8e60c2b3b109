"""What every attack is: a frozen spec, a threat model, and a search inside its ball."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from safemed_eval import grammar
from safemed_eval.threat import Norm, Threat

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify

Loss = Literal["ce", "margin"]
Start = Literal["random", "zero"]
Target = Literal["none", "runner-up", "least-likely", "random"]


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """What a search returns: (B, 3, H, W) canvases, and how many gradient steps each row took."""

    canvas: torch.Tensor
    steps: list[int]
    targets: list[int] | None = None
    """The option that each row was pushed to, for a targeted attack."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack with its options. Call it; a subclass implements `search`."""

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @property
    def threat(self) -> Threat:
        """The ball that bounds the attack."""
        raise NotImplementedError

    def __str__(self) -> str:
        return grammar.write(self.name, self)

    def __call__(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        *,
        quantize: bool = False,
    ) -> Attacked:
        """Search for canvases that change the answers. Success is for the caller to judge, on the result.

        Args:
            classify: bound to the B questions of the canvases.
            canvas: (B, 3, H, W) float32 in [0, 1]. labels: (B,) int64, the gold options.
            generators: one a row, so that a row's result does not depend on its batch mates.
            quantize: keep the result on 8-bit grey levels.
        Raises:
            RuntimeError: the search left its ball or [0, 1].
        """
        found = self.search(classify, canvas, labels, generators, quantize)
        inside = found.canvas if quantize else self.threat.project(canvas, found.canvas)
        self.threat.check(canvas, inside)
        return Attacked(canvas=inside.detach(), steps=found.steps, targets=found.targets)

    def search(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        quantize: bool,
    ) -> Attacked:
        """The search itself; see `__call__` for the arguments."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class BallAttack(Attack):
    """An attack inside an L-infinity or L2 ball of size eps (in [0, 1] pixel units)."""

    eps: float
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"eps must be above 0, got {self.eps}")
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(f"eps={self.eps:g} is more than the whole [0, 1] range; grey levels are written eps=4/255")

    @property
    def threat(self) -> Threat:
        return Threat(norm=self.norm, eps=self.eps)
