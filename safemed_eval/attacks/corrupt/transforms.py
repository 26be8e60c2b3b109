"""The transforms of MedMNIST-C's corruptions, written anew after its descriptions and strengths; see `medmnist_c`.

Each takes a (3, H, W) float32 image in [0, 1], a generator, and the numbers of its strength, and returns an image of
that shape that may leave [0, 1]. What it draws does not depend on the strength: a stronger one uses the same numbers,
or more of the same sequence. Lengths in pixels are those of an image of SIDE x SIDE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from random import Random
from string import ascii_lowercase
from typing import TYPE_CHECKING

from safemed_eval.attacks.corrupt import own

if TYPE_CHECKING:
    import torch

SIDE = 224
"""Side of MedMNIST-C's images in pixels."""
LEVELS = 256
RING, INSIDE, BORDER = 130 / 255, 100 / 255, 2
"""How far a bubble turns pixels white on its border and inside, and the width of its border in pixels."""
SMALLEST_BUBBLE, FEWEST_BUBBLES, LARGEST_BUBBLE = 3, 7, 17
"""Smallest radius in pixels, and number, of bubbles; their centres leave room for the largest radius."""
SPOT, INK = (8, 16), 0.95
"""Smallest and largest mean radius of a spot of stain in pixels, and its share of black."""
FEWEST_LETTERS, MOST_LETTERS, SMALLEST_FONT, LETTER, FONT = 3, 10, 0.14, 8, 30
"""Fewest and most letters of a word, the smallest scale of its font, the width in pixels that is kept for a letter, and
the size of Pillow's font at scale 1, where its capitals are about as high as those of OpenCV's Hershey Duplex."""
MARGIN = 10
"""Pixels at the edge that are free of spots and of the beginnings of words."""
_SEEDS = 2**31


def pixelate(image: torch.Tensor, rng: torch.Generator, factor: float) -> torch.Tensor:
    """Average over blocks: the shorter side keeps `factor` * SIDE of them, at most its own pixels."""
    import torch

    sides = image.shape[1:]
    blocks = [max(1, min(side, round(int(SIDE * factor) * side / min(sides)))) for side in sides]
    # The block of each row and of each column: that in which its middle lies.
    down, right = (
        ((torch.arange(side) + 0.5) * count / side).long().to(image.device)
        for side, count in zip(sides, blocks, strict=True)
    )
    rows, columns = (torch.nn.functional.one_hot(places).to(image) for places in (down, right))
    means = (rows / rows.sum(0)).T @ image @ (columns / columns.sum(0))
    return means[:, down][:, :, right]


def jpeg_compression(image: torch.Tensor, rng: torch.Generator, quality: float) -> torch.Tensor:
    """Compress to an 8-bit JPEG file, and decode it. Its blocks are 8 x 8 pixels of the canvas, whatever its size."""
    return own.jpeg(image, quality, rng)


def gaussian_noise(image: torch.Tensor, rng: torch.Generator, sigma: float) -> torch.Tensor:
    """Add Gaussian noise of this standard deviation, independent per pixel and channel."""
    return image + sigma * _normal(image, rng)


def speckle_noise(image: torch.Tensor, rng: torch.Generator, sigma: float) -> torch.Tensor:
    """Add Gaussian noise of this standard deviation times the pixel, independent per pixel and channel."""
    return image + image * sigma * _normal(image, rng)


def impulse_noise(image: torch.Tensor, rng: torch.Generator, amount: float) -> torch.Tensor:
    """Set this share of all values to 0 or to 1, half of them each, independently per pixel and channel."""
    import torch

    drawn, salt = torch.rand((2, *image.shape), generator=rng, device=image.device)
    return torch.where(drawn < amount, (salt < 0.5).to(image), image)


def shot_noise(image: torch.Tensor, rng: torch.Generator, photons: float) -> torch.Tensor:
    """Count photons: Poisson with mean `photons` * value, over `photons`, independent per pixel and channel.

    Each count is the quantile of one uniform number, which is the same for all strengths.
    """
    import torch

    chances = torch.rand(image.shape, generator=rng, device=image.device, dtype=torch.float64)
    most = int(photons + 10 * math.sqrt(photons) + 10)
    rates = photons * torch.arange(LEVELS, dtype=torch.float64, device=image.device) / (LEVELS - 1)
    counts = torch.arange(most, dtype=torch.float64, device=image.device)
    at_most = torch.special.gammaincc(counts + 1, rates[:, None])
    # All 256 distribution functions in one sorted sequence: that of level i goes from i to i + 1.
    level = (image.double() * (LEVELS - 1)).round()
    places = torch.searchsorted(
        (at_most + torch.arange(LEVELS, device=image.device)[:, None]).flatten(), chances + level
    )
    return ((places - level * most) / photons).to(image)


def defocus_blur(image: torch.Tensor, rng: torch.Generator, radius: float, alias: float) -> torch.Tensor:
    """Average over a disc, whose edge is smoothed by a Gaussian of standard deviation `alias`, cut off at a pixel."""
    import torch
    from torchvision.transforms.v2 import functional as vision

    scale = _scale(image)
    edge = math.ceil(scale)
    reach = int(radius * scale) + 2 * edge
    squares = torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2
    disc = (squares[:, None] + squares <= (radius * scale) ** 2).double()
    smooth = vision.gaussian_blur(disc[None] / disc.sum(), [2 * edge + 1] * 2, [alias * scale] * 2)
    return own.convolved(image, smooth[0], "reflect")


def motion_blur(image: torch.Tensor, rng: torch.Generator, radius: float, sigma: float) -> torch.Tensor:
    """Average along a line from each pixel on, within 45 degrees of the horizontal, with Gaussian weights.

    The line is 2 * `radius` long, as that of ImageMagick's MotionBlurImage, which MedMNIST-C calls. Differs: there it
    runs through whole pixels, here also between them.
    """
    import torch

    scale = _scale(image)
    angle = math.pi / 2 * (float(torch.rand((), generator=rng, device=image.device)) - 0.5)
    points = torch.arange(math.ceil(2 * radius * scale * own.POINTS) + 1, dtype=torch.float64) / own.POINTS
    weights = torch.exp(-0.5 * (points / (sigma * scale)) ** 2)
    kernel = own.line_kernel(angle, points, weights)
    padded = torch.nn.functional.pad(image[None], [len(kernel) // 2] * 4, mode="replicate")[0]
    blurred, (height, width) = torch.zeros_like(image), image.shape[1:]
    # The kernel is large, and zero off the line.
    for down, right in kernel.nonzero().tolist():
        blurred += float(kernel[down, right]) * padded[:, down : down + height, right : right + width]
    return blurred


def zoom_blur(image: torch.Tensor, rng: torch.Generator, stop: float, step: float) -> torch.Tensor:
    """Average over the image, and over its middle enlarged by 1, 1 + `step`, ... below `stop`."""
    import numpy as np
    import torch

    factors = torch.from_numpy(np.arange(1, stop, step)).to(image)
    shrinks = torch.zeros((len(factors), 2, 3), device=image.device)
    shrinks[:, 0, 0] = shrinks[:, 1, 1] = 1 / factors
    grid = torch.nn.functional.affine_grid(shrinks, [len(factors), *image.shape], align_corners=False)
    copies = image.expand(len(factors), -1, -1, -1)
    zoomed = torch.nn.functional.grid_sample(copies, grid, padding_mode="border", align_corners=False)
    return (image + zoomed.sum(0)) / (len(factors) + 1)


def gaussian_blur(image: torch.Tensor, rng: torch.Generator, size: float) -> torch.Tensor:
    """Blur with a Gaussian kernel of `size` pixels, whose standard deviation is 0.15 `size` + 0.35, torchvision's."""
    from torchvision.transforms.v2 import functional as vision

    scale = _scale(image)
    reach = round((size - 1) / 2 * scale)
    blurred: torch.Tensor = vision.gaussian_blur(image, [2 * reach + 1] * 2, [(0.15 * size + 0.35) * scale] * 2)
    return blurred


def brightness(image: torch.Tensor, rng: torch.Generator, factor: float) -> torch.Tensor:
    """Multiply all grey levels."""
    return image * factor


def contrast(image: torch.Tensor, rng: torch.Generator, factor: float) -> torch.Tensor:
    """Multiply the distances of all grey levels to the image's mean luminance."""
    from torchvision.transforms.v2 import functional as vision

    changed: torch.Tensor = vision.adjust_contrast(image, factor)
    return changed


def gamma(image: torch.Tensor, rng: torch.Generator, power: float) -> torch.Tensor:
    """Raise the grey levels to a power."""
    from torchvision.transforms.v2 import functional as vision

    changed: torch.Tensor = vision.adjust_gamma(image, power)
    return changed


def saturate(image: torch.Tensor, rng: torch.Generator, shift: float) -> torch.Tensor:
    """Add to the saturation of each pixel, at most to 1; hue and value stay. A pixel without a hue counts as red."""
    import torch

    value, low = image.amax(0), image.amin(0)
    spread = value - low
    red = torch.tensor([0.0, 1.0, 1.0], device=image.device)[:, None, None]
    hue = torch.where(spread > 0, (value - image) / spread.clamp_min(1e-9), red)
    saturation = (spread / value.clamp_min(1e-9) + shift).clamp_max(1)
    return value - value * saturation * hue


def stain_deposit(image: torch.Tensor, rng: torch.Generator, most: float) -> torch.Tensor:
    """Cover the image with 1 to `most` dark spots.

    Differs: MedMNIST-C pastes cut-outs of ink; these are drawn, with an edge that winds around a circle of SPOT.
    """
    import torch

    dice, scale, (height, width) = _dice(rng), _scale(image), image.shape[1:]
    clear = torch.ones((height, width))
    for _ in range(_count(dice, 1, most)):
        radius = dice.uniform(*SPOT)
        winds = [(order, dice.uniform(0, 0.5 / order), dice.uniform(0, math.tau)) for order in (2, 3, 4, 5)]
        room = MARGIN + radius * (1 + sum(depth for _, depth, _ in winds))
        down, right = (dice.uniform(room * scale, side - room * scale) for side in (height, width))
        y, x = _offsets(image, down, right)
        angle = torch.atan2(y, x)
        edge = radius * scale * (1 + sum(depth * torch.cos(order * angle + turn) for order, depth, turn in winds))
        clear *= 1 - INK * torch.sigmoid((edge - torch.hypot(y, x)) / (scale / 2))
    return image * clear.to(image)


def bubble(image: torch.Tensor, rng: torch.Generator, largest: float, most: float) -> torch.Tensor:
    """Draw FEWEST_BUBBLES to `most` bright discs of radius SMALLEST_BUBBLE to `largest`, with brighter borders.

    Differs: a disc's centre does not depend on its radius, so that bubbles of a higher severity cover the others.
    """
    import torch

    dice, scale, (height, width) = _dice(rng), _scale(image), image.shape[1:]
    white = torch.zeros((height, width))
    for _ in range(_count(dice, FEWEST_BUBBLES, most)):
        radius = _count(dice, SMALLEST_BUBBLE, largest)
        down, right = (dice.uniform(LARGEST_BUBBLE * scale, side - LARGEST_BUBBLE * scale) for side in (height, width))
        distance = torch.hypot(*_offsets(image, down, right))
        white[distance <= (radius + BORDER) * scale] = RING
        white[distance <= radius * scale] = INSIDE
    return image + white.to(image) * (1 - image)


def black_corner(image: torch.Tensor, rng: torch.Generator, factor: float) -> torch.Tensor:
    """Blacken everything outside of a circle in the middle, of `factor` times half the shorter side."""
    import torch

    height, width = image.shape[1:]
    outside = torch.hypot(*_offsets(image, height / 2, width / 2)) > factor * min(height, width) / 2
    return image.masked_fill(outside.to(image.device), 0)


def characters(
    image: torch.Tensor, rng: torch.Generator, words: float, letters: float, font_scale: float
) -> torch.Tensor:
    """Write 1 to `words` words of FEWEST_LETTERS to `letters` random letters, each word in a colour of its own.

    Differs: in Pillow's font, of the same height; a word's place does not depend on its length.
    """
    dice, scale, (height, width) = _dice(rng), _scale(image), image.shape[1:]
    for _ in range(_count(dice, 1, words)):
        length = _count(dice, FEWEST_LETTERS, letters)
        size = FONT * _count(dice, round(100 * SMALLEST_FONT), 100 * font_scale) / 100 * scale
        text = "".join(dice.choices(ascii_lowercase, k=MOST_LETTERS))[:length]
        right = dice.uniform(MARGIN * scale, width - LETTER * MOST_LETTERS * scale)
        down = dice.uniform(MARGIN * scale, height - MARGIN * scale)
        color = [dice.randrange(LEVELS) / (LEVELS - 1) for _ in range(3)]
        image = _written(image, text, size, (right, down), color)
    return image


def _written(
    image: torch.Tensor, text: str, size: float, place: tuple[float, float], color: list[float]
) -> torch.Tensor:
    """Write a text; `place` is its left end, and its base line, in pixels of the canvas."""
    import numpy as np
    import torch
    from PIL import Image, ImageDraw, ImageFont

    mask = Image.new("L", (image.shape[2], image.shape[1]))
    font = ImageFont.load_default(max(1.0, size))
    ImageDraw.Draw(mask).text(place, text, fill=LEVELS - 1, font=font, anchor="ls")
    share = torch.from_numpy(np.asarray(mask, dtype=np.float32) / (LEVELS - 1)).to(image)
    return image + share * (torch.tensor(color).to(image)[:, None, None] - image)


def _scale(image: torch.Tensor) -> float:
    """Pixels of the canvas along the side of one of an image of SIDE x SIDE."""
    return min(image.shape[1:]) / SIDE


def _normal(image: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    import torch

    return torch.randn(image.shape, generator=rng, device=image.device)


def _dice(rng: torch.Generator) -> Random:
    """Make a generator of numbers that are drawn one by one."""
    import torch

    return Random(int(torch.randint(_SEEDS, (), generator=rng, device=rng.device)))


def _count(dice: Random, low: float, high: float) -> int:
    """Draw a whole number from low to high, both included; the same draw gives more where high is more."""
    return int(low + dice.random() * (high - low + 1))


def _offsets(image: torch.Tensor, down: float, right: float) -> Iterator[torch.Tensor]:
    """Yield how far below, and to the right, of a point the middle of each pixel lies: (H, 1) and (1, W) pixels."""
    import torch

    height, width = image.shape[1:]
    yield (torch.arange(height) + 0.5 - down)[:, None]
    yield (torch.arange(width) + 0.5 - right)[None]


TRANSFORMS: dict[str, Callable[..., torch.Tensor]] = {
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "gaussian_noise": gaussian_noise,
    "speckle_noise": speckle_noise,
    "impulse_noise": impulse_noise,
    "shot_noise": shot_noise,
    "defocus_blur": defocus_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "gaussian_blur": gaussian_blur,
    "brightness_up": brightness,
    "brightness_down": brightness,
    "contrast_up": contrast,
    "contrast_down": contrast,
    "saturate": saturate,
    "stain_deposit": stain_deposit,
    "bubble": bubble,
    "black_corner": black_corner,
    "characters": characters,
    "gamma_corr_up": gamma,
    "gamma_corr_down": gamma,
}
