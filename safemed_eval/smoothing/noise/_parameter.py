"""Noise on one parameter of how an image is displayed, such as its gamma: all pixels change together."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

from safemed_eval.rounding import ceil_to, floor_to
from safemed_eval.smoothing.noise._normal import Normal

if TYPE_CHECKING:
    import torch

_WIDEST = 2.0


class Parameter(Normal):
    """Normal noise on one parameter t, for changes that add up: changing by s, then by t, is changing by s + t.

    The votes of copies changed by t + N are those of copies of the image changed by t, so that votes at the image tell
    how the answer holds for every t near 0: the radius is sigma * ppf(p), in the parameter. The changed image is not
    rounded to 8 bits, nor clipped unless it says so. Changes add up for real numbers; in floating point up to rounding.

    Source:
        Li et al. 2021 (TSS, arXiv:2002.12398), section 5.1 and Corollary 7: "additive resolvable" transformations.
    """

    measure = "parameter"
    caveat = "hold up to rounding: images are changed in floating point, and not rounded to 8 bits afterwards"

    def draw(self, canvas: torch.Tensor, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw a parameter for each copy: (n, 1, 1, 1) float32."""
        return canvas.new_empty((n, 1, 1, 1)).normal_(0, self.sigma, generator=rng)

    @abstractmethod
    def words(self, radius: float) -> str:
        """Say which changes are certified at this radius, in terms of a display."""


def refuse_log_sigma(sigma: float, of: str) -> None:
    """Raise ValueError where a standard deviation of a logarithm is out of range."""
    if not 0 < sigma <= _WIDEST:
        raise ValueError(f"sigma is the standard deviation of {of}, above 0 and at most {_WIDEST:g}, got {sigma:g}")


def between(radius: float) -> str:
    """Write the factors whose logarithm is within the radius, rounded inward: "0.71 and 1.41"."""
    return f"{ceil_to(math.exp(-radius), 2):g} and {floor_to(math.exp(radius), 2):g}"
