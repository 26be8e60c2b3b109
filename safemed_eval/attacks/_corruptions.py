"""How corrupt changes an image: (3, H, W) float32 in [0, 1], a strength and a generator -> the same, unclamped.

The strengths, and their units, are in `corrupt.STRENGTHS`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as vision

from safemed_eval.attacks.corrupt import PIXEL_BLUR, Kind

Corruption = Callable[[torch.Tensor, float, torch.Generator], torch.Tensor]

_GREY = 4 / 255
"""Channels of a grey image, which JPEG may have pulled apart, differ by no more."""
_WAVES = 2
"""Half waves of the field of gain across the canvas, at most."""
_POINTS = 8
"""Of a line of motion, for each pixel of its length."""


def noise(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Gaussian noise, independent per pixel and, unless the image is grey, per channel."""
    grey = bool((image.amax(0) - image.amin(0)).max() <= _GREY)
    shape = (1, *image.shape[1:]) if grey else image.shape
    return image + strength / 255 * torch.randn(shape, generator=rng, device=image.device)


def blur(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """A Gaussian, cut off at four standard deviations; `PIXEL_BLUR` is part of it."""
    sigma = math.hypot(strength * min(image.shape[1:]), PIXEL_BLUR)
    blurred: torch.Tensor = vision.gaussian_blur(image, [2 * math.ceil(4 * sigma) + 1] * 2, [sigma, sigma])
    return blurred


def motion(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """The mean over a straight line in a random direction, centred at each pixel."""
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
    """Grey levels drawn away from their mean, or towards it."""
    changed: torch.Tensor = vision.adjust_contrast(image, strength ** _sign(rng))
    return changed


def brightness(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """All grey levels moved up, or down."""
    return image + _sign(rng) * strength / 255


def jpeg(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Through an 8-bit JPEG file."""
    file = io.BytesIO()
    pixels = (image.permute(1, 2, 0) * 255).round().to("cpu", torch.uint8)
    Image.fromarray(pixels.numpy()).save(file, "jpeg", quality=int(strength))
    decoded = np.asarray(Image.open(file)) / 255
    return torch.from_numpy(decoded).to(image).permute(2, 0, 1)


def gamma(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """A power of the grey levels: darker, or brighter."""
    changed: torch.Tensor = vision.adjust_gamma(image, strength ** _sign(rng))
    return changed


def resolution(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """Down to fewer pixels, and up again."""
    height, width = image.shape[1:]
    coarse = [max(1, round(side / strength)) for side in (height, width)]
    small = vision.resize(image, coarse, antialias=True)
    large: torch.Tensor = vision.resize(small, [height, width], antialias=True)
    return large


def bias(image: torch.Tensor, strength: float, rng: torch.Generator) -> torch.Tensor:
    """A smooth field of gain: exp of low cosines with random weights, from -strength to strength."""
    weights = torch.randn((_WAVES + 1, _WAVES + 1), generator=rng, device=image.device)
    down, right = (
        torch.cos(math.pi * torch.outer(torch.arange(_WAVES + 1), (torch.arange(side) + 0.5) / side)).to(image)
        for side in image.shape[1:]
    )
    field = down.T @ weights @ right
    low, high = field.aminmax()
    return image * torch.exp(strength * (2 * (field - low) / (high - low) - 1))


def _sign(rng: torch.Generator) -> int:
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
