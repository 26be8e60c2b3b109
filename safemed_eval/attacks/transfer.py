"""transfer: adversarial images of one or several other models, tried on this one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safemed_eval.attacks._common.base import Attack, BallAttack, Facts, refuse_counts
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.attacks.pgd import PGD
from safemed_eval.grammar import ALWAYS, LATER

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify

AREA = (0.5, 0.9)
"""Smallest and largest share of the canvas that a crop covers."""
STRETCH = (3 / 4, 4 / 3)
"""Smallest and largest width of a crop over its height, both as shares of the canvas's sides."""


@dataclass(frozen=True, kw_only=True)
class Transfer(BallAttack):
    """PGD on surrogate models, without early stopping; the search does not use the judged model.

    Several surrogates are searched as one `Ensemble`. With crops each step sees another random part of the canvas,
    enlarged to the canvas's size, the same for all surrogates. A model with masked gradients loses more accuracy under
    it than under pgd: its robustness is then only apparent.

    Args:
        model: the surrogate, written as for --model (`from=` in a spec); several are joined by "+". A path that exists
            is one surrogate, whatever its name.
        crops: search on random crops of the canvas.
    Source:
        Papernot et al. 2016 (arXiv:1605.07277); as a test of defences, Athalye et al. 2018 (arXiv:1802.00420); crops
        after Li et al. 2025 (arXiv:2503.10635). Differs from the last: the goal is an answer other than gold instead
        of the features of a target image, the start is random, and the step is pgd's.
    """

    facts = Facts(
        black_box=True,
        on_surrogate=True,
        example="transfer:from=CKPT",
        summary="several as from=A+B; further keys: crops=yes",
    )

    model: str = field(metadata={"key": "from"})
    steps: int = field(default=10, metadata=ALWAYS)
    crops: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(steps=self.steps)
        if not all(self.surrogates):
            raise ValueError(f"from={self.model}: a name is missing; several are written from=A+B")
        if len({*self.surrogates}) < len(self.surrogates):
            raise ValueError(f"from={self.model}: names a model twice")

    @property
    def surrogates(self) -> tuple[str, ...]:
        return (self.model,) if _is_path(self.model) else tuple(name.strip() for name in self.model.split("+"))

    @property
    def on_smoothed(self) -> Attack:
        return self

    @property
    def _surrogate_search(self) -> PGD:
        return PGD(eps=self.eps, norm=self.norm, steps=self.steps, early_stop=False)

    def search(self, problem: Problem) -> Attacked:
        if self.crops:
            problem = replace(problem, classify=_Cropping(problem.classify, problem.generators))
        return self._surrogate_search.search(problem)


def _is_path(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # longer than a path may be
        return False


class Ensemble:
    """Several models bound to the same questions, as one: the normalised mean of their log-probabilities.

    For two options the log-odds are the mean of the models' own; the best L-infinity attack on linear models moves
    each pixel by eps along the sign of their weights' sum.

    Source:
        Dong et al. 2018 (arXiv:1710.06081), ensemble in logits with equal weights.
    """

    def __init__(self, members: Sequence[Classify], at_once: int | None = None) -> None:
        self._members = members
        self.at_once = at_once

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.stack([member(canvas) for member in self._members]).mean(0).log_softmax(1)

    def take(self, rows: Sequence[int]) -> Ensemble:
        return Ensemble([member.take(rows) for member in self._members])


class _Cropping:
    """Shows a model a random crop of each row, another one in each call."""

    def __init__(self, classify: Classify, generators: Sequence[torch.Generator]) -> None:
        self._classify, self._generators = classify, generators
        self.at_once = getattr(classify, "at_once", None)

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        import torch

        return self._classify(torch.stack([crop(*row) for row in zip(canvas, self._generators, strict=True)]))

    def take(self, rows: Sequence[int]) -> _Cropping:
        return _Cropping(self._classify.take(rows), [self._generators[row] for row in rows])


def crop(image: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Cut a random rectangle out of an image, and enlarge it to the image's size, by linear interpolation.

    The share of its area is uniform in AREA, and the logarithm of its stretch in that of STRETCH; a side that would be
    longer than the image's is cut.

    Args:
        image: (3, H, W) float32.
    """
    import torch
    from torchvision.transforms.v2 import functional as vision

    height, width = image.shape[1:]
    area, stretch, down, right = torch.rand(4, generator=rng, device=rng.device, dtype=torch.float64).tolist()
    share = AREA[0] + area * (AREA[1] - AREA[0])
    ratio = math.exp(math.log(STRETCH[0]) + stretch * math.log(STRETCH[1] / STRETCH[0]))
    rows = min(height, max(1, round(height * math.sqrt(share / ratio))))
    columns = min(width, max(1, round(width * math.sqrt(share * ratio))))
    top, left = int(down * (height - rows + 1)), int(right * (width - columns + 1))
    cut: torch.Tensor = vision.resized_crop(image, top, left, rows, columns, [height, width], antialias=True)
    return cut


ATTACK = Transfer
