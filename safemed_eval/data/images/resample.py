"""The resize from an image's own pixels to the canvas as a linear map R: its matrices and its norm.

`files.fit` resizes 8-bit pixels with Pillow, which rounds and clips after each of two passes. R is the same map without
rounding and clipping: along each axis Pillow's bicubic filter with antialiasing, a matrix; along both their Kronecker
product, whose norm is the product of the norms of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]
How = Literal["stretch", "pad"]

_SUPPORT = 2.0
"""Half the width of the bicubic filter, in pixels of the coarser of the two grids."""
_SLACK = 1e-9
"""Relative: by more than the error of a singular value in float64, so that norms are rounded up."""


def placed(before: tuple[int, int], size: tuple[int, int], how: How) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the height and width that an image is resized to on a canvas of this size, and its first row and column.

    Args:
        how: "pad" keeps the aspect ratio; the image stands in the middle.
    """
    if how == "stretch":
        return size, (0, 0)
    scale = min(size[0] / before[0], size[1] / before[1])
    inner = max(1, round(before[0] * scale)), max(1, round(before[1] * scale))
    return inner, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)


@lru_cache(maxsize=64)
def weights(before: int, after: int) -> Floats:
    """Compute the matrix of one pass of Pillow's bicubic resize, (after, before); each row sums to 1.

    Row i weighs the input pixels within two pixels of i's centre, or, where the image shrinks, within two output pixels
    of it; weights beyond the border are left out, and the others divided by their sum.

    Source:
        `precompute_coeffs` of Pillow's Resample.c; Keys 1981, "Cubic convolution interpolation", with a = -1/2.
    """
    scale = before / after
    stretch = max(scale, 1.0)
    centers = (np.arange(after) + 0.5) * scale
    first = (centers - _SUPPORT * stretch + 0.5).astype(np.int64).clip(0)
    last = (centers + _SUPPORT * stretch + 0.5).astype(np.int64).clip(max=before)
    matrix = np.zeros((after, before))
    for row, center, start, end in zip(matrix, centers, first, last, strict=True):
        row[start:end] = _bicubic((np.arange(start, end) - center + 0.5) / stretch)
        row /= row.sum()
    matrix.flags.writeable = False
    return matrix


def _bicubic(x: Floats) -> Floats:
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@lru_cache(maxsize=4096)
def norm_of(before: int, after: int) -> float:
    """The largest singular value of `weights`, rounded up: 1 where nothing is resized."""
    if before == after:
        return 1.0
    matrix = weights(before, after)
    gram = matrix @ matrix.T if after < before else matrix.T @ matrix
    return float(np.sqrt(np.linalg.eigvalsh(gram)[-1])) * (1 + _SLACK)


@dataclass(frozen=True, kw_only=True)
class Resize:
    """R for images of one size: (..., before) -> (..., size), in any unit of grey. Black stays black.

    Args:
        before: height and width of the image.
        size: of the canvas.
    """

    before: tuple[int, int]
    size: tuple[int, int]
    how: How = "stretch"

    @property
    def identity(self) -> bool:
        return self.before == self.size

    @cached_property
    def _placed(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return placed(self.before, self.size, self.how)

    @property
    def norm(self) -> float:
        """||R||_2, rounded up: a change of the image of L2 length d changes the canvas by at most norm * d.

        Both passes are the same for each colour, and pasting on black keeps lengths.
        """
        (height, width), _ = self._placed
        return norm_of(self.before[0], height) * norm_of(self.before[1], width) * (1 + _SLACK * (not self.identity))

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Resize (..., H, W) to (..., h, w), differentiable; nothing is clipped or rounded, but to the image's type."""
        if self.identity:
            return image
        from torch.nn.functional import pad

        (height, width), (top, left) = self._placed
        rows, columns = self._matrices(image)
        inner = rows @ (image @ columns.T)
        return pad(inner, (left, self.size[1] - left - width, top, self.size[0] - top - height))

    def _matrices(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        (height, width), _ = self._placed
        pairs = ((self.before[0], height), (self.before[1], width))
        rows, columns = (torch.tensor(weights(*pair), dtype=like.dtype, device=like.device) for pair in pairs)
        return rows, columns
