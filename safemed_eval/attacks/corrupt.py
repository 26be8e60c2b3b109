"""corrupt: natural corruptions of the image that occur in hospitals every day. The model is not used."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal, get_args

from safemed_eval.attacks._base import Attack, Facts
from safemed_eval.attacks._problem import Attacked, Problem
from safemed_eval.threat import Threat

if TYPE_CHECKING:
    import torch

    Corruption = Callable[[torch.Tensor, float, torch.Generator], torch.Tensor]
    """(3, H, W) float32 in [0, 1], a strength in the unit of STRENGTHS, a generator -> the same image, unclamped."""

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
"""Strength of each kind at severities 1, barely visible, to 5, strong; a human can still read the image."""
PIXEL_BLUR = 0.4
"""Standard deviation, in pixels, that is added to every blur (their squares add up): one of a quarter of a pixel, as on
a canvas of 64 x 64, leaves every grey level as it is."""
_GREY_IMAGE = 4 / 255
"""Largest difference between the channels of a grey image, which JPEG may have pulled apart."""
_WAVES = 2
"""Half waves of the field of gain across the canvas, at most."""
_POINTS = 8
"""Points along a line of motion, for each pixel of its length."""


@dataclass(frozen=True, kw_only=True)
class Corrupt(Attack):
    """One kind of corruption at one severity.

    Noise, directions, signs and fields are drawn once per item and kind: only the strength grows with the severity, so
    that the points of a curve over severities share their random numbers.

    Args:
        kind: see STRENGTHS.
        severity: 1 to 5.
    Source:
        Kinds, and five severities, after Hendrycks and Dietterich 2019 (arXiv:1903.12261). Differs: corruptions of
        medical images, with strengths of our own; lengths grow with the canvas; one draw for all severities.
    """

    facts = Facts(
        role="corruption",
        aims_at=None,
        example="corrupt:kind=jpeg,severity=3",
        summary="without them all kinds, all five",
    )

    kind: Kind
    severity: int

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity goes from {SEVERITIES[0]} to {SEVERITIES[-1]}, got {self.severity}")

    @classmethod
    def spread(cls, pairs: Mapping[str, str]) -> list[Mapping[str, str]]:
        """Expand to all kinds where none is given, and to all five severities where none is given."""
        kinds = [pairs["kind"]] if "kind" in pairs else get_args(Kind)
        severities = [pairs["severity"]] if "severity" in pairs else map(str, SEVERITIES)
        return [{**pairs, "kind": kind, "severity": severity} for kind, severity in product(kinds, severities)]

    @property
    def threat(self) -> Threat:
        """All of [0, 1]."""
        return Threat(norm="linf", eps=1.0)

    @property
    def stream(self) -> str:
        return f"{self.name}:kind={self.kind}"

    def search(self, problem: Problem) -> Attacked:
        import torch

        corrupt, strength = CORRUPTIONS[self.kind], STRENGTHS[self.kind][self.severity - 1]
        rows = [corrupt(image, strength, rng) for image, rng in zip(problem.canvas, problem.generators, strict=True)]
        corrupted = torch.stack(rows).clamp(0, 1)
        return Attacked(canvas=problem.on_grid(corrupted, self.threat), steps=[0] * len(problem))


def noise(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Add Gaussian noise, independent per pixel and, unless the image is grey, per channel."""
    import torch

    grey = bool((image.amax(0) - image.amin(0)).max() <= _GREY_IMAGE)
    shape = (1, *image.shape[1:]) if grey else image.shape
    return image + strength / 255 * torch.randn(shape, generator=rng, device=image.device)


def blur(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Blur with a Gaussian that is cut off at four standard deviations and includes PIXEL_BLUR."""
    from torchvision.transforms.v2 import functional as vision

    sigma = math.hypot(strength * min(image.shape[1:]), PIXEL_BLUR)
    blurred: torch.Tensor = vision.gaussian_blur(image, [2 * math.ceil(4 * sigma) + 1] * 2, [sigma, sigma])
    return blurred


def motion(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Average over a straight line in a random direction, centred at each pixel."""
    import torch

    length = strength * min(image.shape[1:])
    angle = math.pi * float(torch.rand((), generator=rng, device=image.device))
    points = torch.linspace(-0.5, 0.5, 2 * math.ceil(_POINTS * length) + 1, dtype=torch.float64) * length
    reach = math.ceil(length / 2)
    cells = torch.arange(-reach, reach + 1)
    # Each point of the line is shared by the four pixels around it.
    down, right = (
        (1 - (points[:, None] * slope - cells).abs()).clamp_min(0) for slope in (math.sin(angle), math.cos(angle))
    )
    kernel = torch.einsum("pi,pj->ij", down, right) / len(points)
    padded = torch.nn.functional.pad(image[:, None], [reach] * 4, mode="replicate")
    return torch.nn.functional.conv2d(padded, kernel.to(image)[None, None])[:, 0]


def contrast(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Stretch the grey levels away from their mean, or shrink them towards it."""
    from torchvision.transforms.v2 import functional as vision

    changed: torch.Tensor = vision.adjust_contrast(image, strength ** _sign(rng))
    return changed


def brightness(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Shift all grey levels up, or down."""
    return image + _sign(rng) * strength / 255


def jpeg(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Compress to an 8-bit JPEG file, and decode it."""
    import numpy as np
    import torch
    from PIL import Image

    file = io.BytesIO()
    pixels = (image.permute(1, 2, 0) * 255).round().to("cpu", torch.uint8)
    Image.fromarray(pixels.numpy()).save(file, "jpeg", quality=int(strength))
    decoded = np.asarray(Image.open(file)) / 255
    return torch.from_numpy(decoded).to(image).permute(2, 0, 1)


def gamma(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Raise the grey levels to a power, which darkens or brightens the image."""
    from torchvision.transforms.v2 import functional as vision

    changed: torch.Tensor = vision.adjust_gamma(image, strength ** _sign(rng))
    return changed


def resolution(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Resize to fewer pixels, and back."""
    from torchvision.transforms.v2 import functional as vision

    height, width = image.shape[1:]
    coarse = [max(1, round(side / strength)) for side in (height, width)]
    small = vision.resize(image, coarse, antialias=True)
    large: torch.Tensor = vision.resize(small, [height, width], antialias=True)
    return large


def bias(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Multiply by a smooth field: exp of low cosines with random weights, scaled to [-strength, strength]."""
    import torch

    weights = torch.randn((_WAVES + 1, _WAVES + 1), generator=rng, device=image.device)
    down, right = (
        torch.cos(math.pi * torch.outer(torch.arange(_WAVES + 1), (torch.arange(side) + 0.5) / side)).to(image)
        for side in image.shape[1:]
    )
    field = down.T @ weights @ right
    low, high = field.aminmax()
    return image * torch.exp(strength * (2 * (field - low) / (high - low) - 1))


def _sign(rng: torch.Generator) -> int:
    import torch

    return 1 if bool(torch.randint(2, (), generator=rng, device=rng.device)) else -1


CORRUPTIONS: dict[Kind, Corruption] = {
    "noise": noise,
    "blur": blur,
    "motion": motion,
    "contrast": contrast,
    "brightness": brightness,
    "jpeg": jpeg,
    "gamma": gamma,
    "resolution": resolution,
    "bias": bias,
}


ATTACK = Corrupt
