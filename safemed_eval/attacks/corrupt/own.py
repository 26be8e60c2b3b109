"""This package's own set of corruptions: what happens to images in hospitals every day, for all modalities alike."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    import torch

    Corruption = Callable[[torch.Tensor, float, torch.Generator], torch.Tensor]
    """(3, H, W) float32 in [0, 1], a strength in the unit of STRENGTHS, a generator -> the same image, unclamped."""

Kind = Literal["noise", "blur", "motion", "contrast", "brightness", "jpeg", "gamma", "resolution", "bias"]

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
POINTS = 8
"""Points along a line of motion, for each pixel of its length."""


def is_grey(image: torch.Tensor) -> bool:
    """Tell whether the three channels of an image are the same, see _GREY_IMAGE."""
    return bool((image.amax(0) - image.amin(0)).max() <= _GREY_IMAGE)


def noise(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Add Gaussian noise, independent per pixel and, unless the image is grey, per channel."""
    import torch

    shape = (1, *image.shape[1:]) if is_grey(image) else image.shape
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
    points = torch.linspace(-0.5, 0.5, 2 * math.ceil(POINTS * length) + 1, dtype=torch.float64) * length
    return convolved(image, line_kernel(angle, points, torch.ones_like(points)), "replicate")


def line_kernel(angle: float, points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Make the kernel of a weighted mean over places of a straight line: (2R + 1, 2R + 1) float64.

    Args:
        angle: of the line, in radians; it turns from right to down.
        points: (P,) float64, the places, as signed distances from the middle in pixels.
        weights: (P,) float64, of any sum.
    """
    import torch

    reach = math.ceil(float(points.abs().max()))
    cells = torch.arange(-reach, reach + 1)
    # Each point of the line is shared by the four pixels around it.
    down, right = (
        (1 - (points[:, None] * slope - cells).abs()).clamp_min(0) for slope in (math.sin(angle), math.cos(angle))
    )
    return torch.einsum("pi,pj->ij", down, right * weights[:, None]) / weights.sum()


def convolved(image: torch.Tensor, kernel: torch.Tensor, edge: Literal["replicate", "reflect"]) -> torch.Tensor:
    """Convolve each channel with a square kernel of odd size; beyond its edge the image is repeated in this way."""
    import torch

    padded = torch.nn.functional.pad(image[:, None], [len(kernel) // 2] * 4, mode=edge)
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


def corrupted(image: torch.Tensor, kind: str, severity: int, rng: torch.Generator) -> torch.Tensor:
    """Corrupt a (3, H, W) float32 image in [0, 1]; the result may leave [0, 1]."""
    known = cast("Kind", kind)
    return CORRUPTIONS[known](image, STRENGTHS[known][severity - 1], rng)
