"""Kinds of noise, and noisy copies of an image: the same draws for every batch size, worker count and restart.

A class holds everything that depends on the distribution of its noise: the draws, and the radius that they certify.
No torch here: reports read stored votes again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from scipy.special import ndtr

from safemed_eval import stats
from safemed_eval.scale import refuse_sigma
from safemed_eval.threat import Norm

if TYPE_CHECKING:
    import torch

CHUNK = 16
"""Draws per generator. Part of the noise's identity: another size draws other noise, and counts other votes."""

Streams = Callable[[int], "torch.Generator"]
"""Maps a chunk's index to its generator."""


class Noise(ABC):
    """A kind of noise, independent of the image, that is added to its pixels.

    Attributes:
        name: of the kind.
        norm: in which its radii are measured.
    """

    name: ClassVar[str]
    norm: ClassVar[Norm]

    @abstractmethod
    def check(self) -> None:
        """Raise ValueError where a parameter is not on the scale of pixels."""

    @abstractmethod
    def draw(self, out: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Fill `out` with noise, and return it."""

    @abstractmethod
    def radius(self, p_lower: float) -> float | None:
        """The radius that is certified if the class has at least this probability; None where there is none."""

    @abstractmethod
    def ceiling(self, n: int, alpha: float) -> float | None:
        """The largest radius that n unanimous votes can certify; None where they certify none."""

    @abstractmethod
    def probability_needed(self, radius: float) -> float:
        """The probability p0 that a class must exceed at the image to be the answer everywhere within the radius."""

    @abstractmethod
    def probability_left(self, p_lower: float, radius: float, distance: float) -> float:
        """Lower bound of the class's probability at a distance from an image with this certificate."""


@dataclass(frozen=True)
class Gaussian(Noise):
    """Independent normal noise on every pixel and channel.

    Args:
        sigma: standard deviation in [0, 1] pixel units.
    Source:
        Cohen et al. 2019 (arXiv:1902.02918).
    """

    sigma: float

    name = "gaussian"
    norm = "l2"

    def check(self) -> None:
        refuse_sigma(self.sigma)

    def draw(self, out: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return out.normal_(0, self.sigma, generator=rng)

    def radius(self, p_lower: float) -> float | None:
        return stats.certified_radius(p_lower, self.sigma)

    def ceiling(self, n: int, alpha: float) -> float | None:
        return stats.radius_ceiling(self.sigma, n, alpha)

    def probability_needed(self, radius: float) -> float:
        return float(ndtr(radius / self.sigma))

    def probability_left(self, p_lower: float, radius: float, distance: float) -> float:
        return stats.certified_lower(p_lower, radius, self.sigma, distance)


def noisy_copies(
    canvas: torch.Tensor, noise: Noise, n: int, batch: int, streams: Streams, first: int = 0
) -> Iterator[torch.Tensor]:
    """Yield n noisy copies of one image, `batch` at a time, in memory that does not grow with n.

    Noise is drawn and added in float32, whatever the model computes in. Whole chunks are drawn and cut, so that the
    first copies are the same for every n.

    Args:
        canvas: (3, H, W) float32.
        first: leave out the copies before this one, a multiple of CHUNK; none of them is drawn.
    Yields:
        (b, 3, H, W) float32, not clamped; valid until the next batch is taken.
    """
    if first % CHUNK:
        raise ValueError(f"first must be a multiple of {CHUNK}, got {first}")
    draws = canvas.new_empty((batch + CHUNK - 1, *canvas.shape))
    drawn, chunk = 0, first // CHUNK
    while n:
        size = min(batch, n)
        while drawn < size:
            noise.draw(draws[drawn : drawn + CHUNK], streams(chunk))
            drawn += CHUNK
            chunk += 1
        yield draws[:size].add_(canvas)
        drawn -= size
        draws[:drawn] = draws[size : size + drawn].clone()
        n -= size
