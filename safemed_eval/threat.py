"""The threat model: the images that an adversary may choose, given a norm, a bound eps and a region.

eps is in [0, 1] pixel units: 4/255 for L-infinity is four grey levels at most at each pixel; for L2 it is the
Euclidean length of the change over the whole canvas. An adversarial canvas also stays in [0, 1]. A region names the
pixels that may change, the others keep their value: "background", "mask", or "border:16".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

if TYPE_CHECKING:
    import torch

Norm = Literal["linf", "l2"]


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """A rectangle of the canvas, in pixels: its first row and column, and its sides."""

    top: Annotated[int, Ge(0)]
    left: Annotated[int, Ge(0)]
    height: Annotated[int, Ge(0)]
    width: Annotated[int, Ge(0)]

    def inside(self, canvas: torch.Tensor) -> torch.Tensor:
        """The pixels of this rectangle, as a view: (..., H, W) -> (..., height, width)."""
        return canvas[..., self.top : self.top + self.height, self.left : self.left + self.width]


BACKGROUND, MASK = "background", "mask"
"""The regions that are the background of the canvas, and the white part of a mask file beside the image."""

# Float32 arithmetic may leave a point of the ball's surface this far outside it, times max(1, eps).
TOLERANCE = 1e-6
# 255 * float32(k / 255) may miss the integer k by this much.
_GRID_TOLERANCE = 1e-4


def spelled_region(text: str) -> str:
    """Return the one spelling of a region: "border:16" for "Border:016".

    Raises:
        ValueError: the text is no region.
    """
    name = text.lower()
    if name in (BACKGROUND, MASK):
        return name
    if (width := border_width(name)) is None:
        raise ValueError(f"region is {BACKGROUND}, border:PIXELS such as border:16, or {MASK}, got {text:.40}")
    return f"border:{width}"


def border_width(region: str) -> int | None:
    """Return 16 for "border:16", a frame of 16 canvas pixels; None for another region, or a width of 0."""
    match = re.fullmatch(r"border:([0-9]{1,5})", region)
    return int(match[1]) or None if match else None


@dataclass(frozen=True, kw_only=True)
class Threat:
    """All canvases within eps of x0 that lie in [0, 1].

    Canvases are (B, 3, H, W) float32 and each row has its own ball. With box=False they need not lie in [0, 1].
    """

    norm: Norm
    eps: float
    box: bool = True

    def size(self, delta: torch.Tensor) -> torch.Tensor:
        """Compute the norms of the rows: (B, 3, H, W) -> (B,) float64."""
        flat = delta.double().flatten(1)
        size: torch.Tensor = flat.abs().amax(1) if self.norm == "linf" else flat.norm(dim=1)
        return size

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """The steepest ascent of unit size: the sign for L-infinity, the normalised gradient for L2.

        A row whose gradient is zero stays zero.
        """
        if self.norm == "linf":
            return gradient.sign()
        return gradient * self._scale(1 / self.size(gradient).clamp_min(1e-30), gradient)

    def project(self, x0: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Move x into the ball around x0 and into [0, 1].

        For L2 this scales and then clamps: the result obeys both bounds, since x0 itself lies in [0, 1].
        """
        import torch

        if self.norm == "linf":
            return self._boxed(x.clamp(x0 - self.eps, x0 + self.eps))
        delta = x - x0
        shrink = (self.eps / self.size(delta).clamp_min(1e-30)).clamp_max(1)
        inside = self._boxed(x0 + delta * self._scale(shrink, delta))
        # Where many pixels are equal, the rounding of float32 adds up instead of averaging out: take it back.
        outside = self.size(inside.double() - x0.double()) > self.eps * (1 + TOLERANCE / 2)
        return torch.nextafter(inside, x0).where(outside.view(-1, 1, 1, 1), inside)

    def sample(
        self, x0: torch.Tensor, generators: Sequence[torch.Generator], region: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw a uniform point from each row's ball, clamped to [0, 1]; each row has its own generator.

        Args:
            region: (B, 1, H, W) bool, the pixels that may change; None: all. L-infinity noise is the same within it.
        """
        import torch

        region = torch.ones_like(x0[:, :1], dtype=torch.bool) if region is None else region
        delta = torch.empty_like(x0)
        for row, generator, inside in zip(delta, generators, region.expand_as(x0), strict=True):
            if self.norm == "linf":
                row.uniform_(-self.eps, self.eps, generator=generator)
                row.mul_(inside)
            else:
                row.normal_(generator=generator)
                row.mul_(inside)
                share = float(torch.rand((), generator=generator, device=row.device)) ** (1 / max(1, int(inside.sum())))
                row.mul_(self.eps * share / max(float(row.double().norm()), 1e-30))
        return self.project(x0, x0 + delta)

    def snap(self, x0: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Move x to 8-bit grey levels inside the ball, as an adversarial *file* of the canvas's size must be.

        L-infinity: the nearest integer within [ceil(255 (x0 - eps)), floor(255 (x0 + eps))]. L2: each change is cut
        towards x0, then the pixels that were cut most are moved one level out again while the ball has room.
        (Rounding first and projecting afterwards leaves the grid, the other order leaves the ball.)
        """
        import torch

        grey0, grey = x0.double() * 255, x.double() * 255
        if self.norm == "linf":
            low = torch.ceil(grey0 - 255 * self.eps - _GRID_TOLERANCE).clamp_min(0)
            high = torch.floor(grey0 + 255 * self.eps + _GRID_TOLERANCE).clamp_max(255)
            snapped = grey.round().clamp(low, high)
        else:
            grey0 = grey0.round()
            delta = (grey - grey0).flatten(1)
            cut = delta.trunc()
            lost = (delta - cut).abs()
            order = lost.argsort(dim=1, descending=True)
            room = (255 * self.eps) ** 2 - cut.square().sum(1, keepdim=True)
            cost = (2 * cut.abs() + 1).gather(1, order).cumsum(1)
            out = ((cost <= room) & (lost.gather(1, order) > _GRID_TOLERANCE)).to(delta.dtype)
            cut = cut + delta.sign() * torch.zeros_like(cut).scatter(1, order, out)
            snapped = grey0 + cut.view_as(grey0)
        return (snapped / 255).to(x.dtype)

    def check(
        self,
        x0: torch.Tensor,
        x: torch.Tensor,
        *,
        on_grid: bool = False,
        rectangles: Sequence[Rectangle | None] | None = None,
    ) -> None:
        """Raise RuntimeError if any row has left its bounds: a crash beats a wrong number.

        Args:
            on_grid: besides the ball and [0, 1], the 8-bit grey levels are a bound.
            rectangles: besides these, the rectangle of each row that may differ at all; None for a row: no pixel may.
        """
        grey0, grey = x0.double() * 255, x.double() * 255
        moved = (grey.round() - grey0.round()) / 255 if on_grid else x.double() - x0.double()
        worst = float(self.size(moved).max())
        if not worst <= self.eps + TOLERANCE * max(1.0, self.eps):
            raise RuntimeError(f"attack left its ball: {self.norm} {worst:.9g} > eps {self.eps:.9g}")
        if self.box and not (float(x.min()) >= 0 and float(x.max()) <= 1):
            raise RuntimeError(f"attack left [0, 1]: [{float(x.min()):.9g}, {float(x.max()):.9g}]")
        if on_grid and float((grey - grey.round()).abs().max()) > _GRID_TOLERANCE:
            raise RuntimeError("attack left the 8-bit grey levels")
        if rectangles is not None:
            changed = x != x0
            for row, rectangle in zip(changed, rectangles, strict=True):
                if rectangle:
                    rectangle.inside(row).fill_(False)
            if bool(changed.any()):
                raise RuntimeError("attack changed pixels outside its rectangle")

    def _boxed(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(0, 1) if self.box else x

    @staticmethod
    def _scale(factor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Shape (B,) float64 factors to multiply (B, 3, H, W): lengths are summed in float64, pixels stay float32."""
        return factor.to(like.dtype).view(-1, 1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class L1Ball(Threat):
    """All canvases within eps of x0 in L1, the sum of the changes of all values; for searches within L1 certificates.

    Source:
        Tramer and Boneh 2019 (arXiv:1904.13000), SLIDE: steps along the largest hundredth of the gradient's entries.
        The projection is that of Duchi et al. 2008, "Efficient projections onto the l1-ball".
    """

    def size(self, delta: torch.Tensor) -> torch.Tensor:
        return delta.double().flatten(1).abs().sum(1)

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        import torch

        flat = gradient.flatten(1)
        count = max(1, flat.shape[1] // 100)
        largest = flat.abs().topk(count, dim=1).indices
        step = torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign() / count)
        return step.view_as(gradient)

    def project(self, x0: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        delta = (x.double() - x0.double()).flatten(1)
        falling = delta.abs().sort(dim=1, descending=True).values
        surplus = falling.cumsum(1) - self.eps
        cuts = surplus / surplus.new_ones(surplus.shape[1]).cumsum(0)
        last = (falling > cuts).sum(1, keepdim=True).clamp_min(1) - 1
        cut = cuts.gather(1, last).clamp_min(0)
        inside = delta.sign() * (delta.abs() - cut).clamp_min(0)
        return self._boxed((x0.double() + inside.view_as(x0)).to(x0.dtype))
