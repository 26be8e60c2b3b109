"""corrupt: a natural corruption of the image, of a kind that a hospital meets every day. The model is never asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal, get_args

from safemed_eval.attacks._base import Attack, Attacked
from safemed_eval.threat import Threat

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify, Need

Kind = Literal["noise", "blur", "motion", "contrast", "brightness", "jpeg", "gamma", "resolution", "bias"]

SEVERITIES = range(1, 6)
STRENGTHS: dict[Kind, tuple[float, float, float, float, float]] = {
    "noise": (4, 8, 14, 22, 32),  # of a detector: standard deviation in grey levels
    "blur": (0.004, 0.0065, 0.0095, 0.013, 0.018),  # out of focus: standard deviation, of the shorter side; PIXEL_BLUR
    "motion": (0.012, 0.02, 0.03, 0.043, 0.06),  # along a line: its length, of the shorter side
    "contrast": (1.1, 1.2, 1.35, 1.6, 2),  # window width: the factor around the mean grey level, or its inverse
    "brightness": (7, 14, 22, 32, 44),  # window level: a shift in grey levels, up or down
    "jpeg": (60, 35, 20, 12, 8),  # compression: quality, from 100 down to 1
    "gamma": (1.1, 1.25, 1.45, 1.7, 2.1),  # display curve: the exponent, or its inverse
    "resolution": (1.3, 1.7, 2.3, 3.1, 4.2),  # coarse sampling: pixels of the canvas along the side of one that is left
    "bias": (0.12, 0.24, 0.4, 0.6, 0.85),  # uneven gain, as of coils: the largest |logarithm| of a smooth factor
}
"""How strong each kind is at severity 1, barely visible, to 5, bad, while a human still reads the image."""
PIXEL_BLUR = 0.4
"""Standard deviation, in pixels, that is added to every blur (their squares add up): one of a quarter of a pixel, as on
a canvas of 64 x 64, leaves every grey level as it is."""


@dataclass(frozen=True, kw_only=True)
class Corrupt(Attack):
    """One kind of corruption at one severity.

    Noise, directions, signs and fields are drawn once per item and kind: from one severity to the next only the
    strength grows, so that a curve over severities is about the same damage.

    Args:
        kind: see STRENGTHS.
        severity: 1 to 5.
    Source:
        Kinds, and five severities, after Hendrycks and Dietterich 2019 (arXiv:1903.12261). Differs: what happens to
        medical images, with strengths of our own; lengths grow with the canvas; one draw for all severities.
    """

    kind: Kind
    severity: int

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity goes from {SEVERITIES[0]} to {SEVERITIES[-1]}, got {self.severity}")

    @classmethod
    def spread(cls, pairs: Mapping[str, str]) -> list[Mapping[str, str]]:
        """Without a kind all of them, without a severity all five."""
        kinds = [pairs["kind"]] if "kind" in pairs else get_args(Kind)
        severities = [pairs["severity"]] if "severity" in pairs else map(str, SEVERITIES)
        return [{**pairs, "kind": kind, "severity": severity} for kind, severity in product(kinds, severities)]

    @property
    def threat(self) -> Threat:
        """No bound but [0, 1]."""
        return Threat(norm="linf", eps=1.0)

    @property
    def needs(self) -> tuple[Need, ...]:
        return ()

    def looks(self, options: int) -> int:
        return 0

    @property
    def stream(self) -> str:
        return f"{self.name}:kind={self.kind}"

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
        import torch

        from safemed_eval.attacks._corruptions import CORRUPTIONS

        corrupt, strength = CORRUPTIONS[self.kind], STRENGTHS[self.kind][self.severity - 1]
        rows = [corrupt(image, strength, rng) for image, rng in zip(canvas, generators, strict=True)]
        corrupted = torch.stack(rows).clamp(0, 1)
        if quantize:
            corrupted = self.threat.snap(canvas, corrupted)
        return Attacked(canvas=corrupted, steps=[0] * len(canvas))


ATTACK = Corrupt
