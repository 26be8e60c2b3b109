"""The contract of a kind of noise, and the canvas that a certificate is about. No torch here."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from safemed_eval import grammar
from safemed_eval.core import DEFAULT_NOISE
from safemed_eval.smoothing.evidence import Floats
from safemed_eval.smoothing.noise._lattice import SCALE
from safemed_eval.smoothing.two_class import Null

if TYPE_CHECKING:
    import torch

Measure = Literal["l2", "l1", "parameter", "patch"]
"""What a radius measures: a norm of the change of the pixels, the change of one parameter of the display, or the side
of the square outside of which no pixel changes."""


@dataclass(frozen=True, kw_only=True)
class FileView:
    """The image that a canvas shows, at its own size in pixels, and the linear map R between the two.

    Args:
        norm: ||R||_2, rounded up.
        gain: grey levels per stored value, for a DICOM file with a linear window; see `data.images.picture.Window`.
        cut: share of such an image's pixels that its window shows as plain black or white.
    """

    height: Annotated[int, Gt(0)]
    width: Annotated[int, Gt(0)]
    norm: Annotated[float, Gt(0)]
    gain: Annotated[float, Gt(0)] | None = None
    cut: Annotated[float, Ge(0), Le(1)] | None = None


@dataclass(frozen=True, kw_only=True)
class View:
    """The canvas on which a certificate was made, in pixels.

    Args:
        file: the image that it shows, where radii are measured on that; None: they are measured on the canvas.
    """

    height: Annotated[int, Gt(0)]
    width: Annotated[int, Gt(0)]
    file: FileView | None = None

    @property
    def values(self) -> int:
        """Number of values that get noise: one per pixel and channel."""
        return 3 * self.height * self.width

    @property
    def rounding(self) -> float:
        """L2 length by which a change of the canvas may exceed norm times that of the file.

        Both canvases are rounded to the lattice, each value by half a step at most: sqrt(values) steps together. The
        millionth stands for R being computed in float64. 8-bit pixels that are not resized lie on the lattice.
        """
        file = self.file
        if file is None or ((file.height, file.width) == (self.height, self.width) and file.gain is None):
            return 0.0
        return math.sqrt(self.values) / SCALE * (1 + 1e-6)

    def from_canvas(self, radius: float) -> float:
        """The largest L2 change of what radii are measured on that moves the canvas by no more than this.

        ||round(R x) - round(R x')|| <= ||R|| ||x - x'|| + rounding. 0 where rounding alone is more.
        """
        return max(0.0, radius - self.rounding) / self.file.norm if self.file else radius

    def on_canvas(self, distance: float) -> float:
        """The most by which a change of this L2 length moves the canvas; the other way round."""
        return distance * self.file.norm + self.rounding if self.file and distance else distance

    def in_stored_values(self, radius: float) -> float | None:
        """The same radius as an L2 length of stored values, for a DICOM file with a linear window; None for others.

        A stored value is shown in three channels: its change of s changes the pixels by sqrt(3) gain s / 255.
        """
        gain = self.file.gain if self.file else None
        return None if gain is None else 255 * radius / (math.sqrt(3) * gain)


class Kind(ABC):
    """A way to change copies of an image, and what their votes certify.

    A class is one kind; its fields are the options of its spec string.

    Attributes:
        name: of the kind.
        randomness: what sigma is the standard deviation of; for a kind without sigma, why there is none.
        measure: what its radii measure.
        radius_name, unit: name of the radius and its unit, for axes and tables.
        caveat: what its certificates lack in floating point, after "certificates under this noise"; None: nothing.
        factor: where a radius is the logarithm of a factor, what that changes: a second axis shows it.
    """

    name: ClassVar[str]
    randomness: ClassVar[str]
    measure: ClassVar[Measure]
    radius_name: ClassVar[str]
    unit: ClassVar[str]
    caveat: ClassVar[str | None] = None
    factor: ClassVar[str | None] = None

    def __str__(self) -> str:
        """The canonical spec string, without sigma."""
        name, pairs = grammar.split(grammar.write(self.name, self))
        rest = grammar.parts({key: value for key, value in pairs.items() if key != "sigma"})
        return f"{name}:{','.join(rest)}" if rest else name

    def words(self, radius: float) -> str | None:
        """Say in the words of the user what is certified at this radius; None where the number says all."""
        return None

    def words_on_window(self, radius: float, centre: float, width: float) -> str | None:
        """Say it in terms of the window, such as 40/400 HU, through which an image is shown; None: it has none."""
        return None

    @property
    def title(self) -> str:
        """The noise as reports name it: "sigma 0.25", "gamma, sigma 0.5"."""
        sigma = getattr(self, "sigma", None)
        if sigma is None:
            return str(self)
        return f"sigma {sigma:g}" if str(self) == DEFAULT_NOISE else f"{self}, sigma {sigma:g}"

    @property
    def scale(self) -> str:
        """What its radii are and their unit, as axes and captions name them: "L2 radius ([0, 1] pixel units)"."""
        return f"{self.radius_name} ({self.unit})"


class Noise(Kind):
    """A kind of random change, drawn independently of the image.

    It holds everything that depends on the distribution of the noise: the draws, and the radius that they certify.
    """

    @abstractmethod
    def draw(self, canvas: torch.Tensor, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw the randomness of n copies of canvases of this shape: (n, ...), on the canvas's device.

        Args:
            canvas: (3, H, W) float32; its values are not looked at.
        """

    @abstractmethod
    def apply(self, canvas: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Change canvases as drawn: (3, H, W) or (n, 3, H, W) float32 -> (n, 3, H, W) float32, not clamped.

        It is differentiable in the canvas.
        """

    @abstractmethod
    def radius(self, p_lower: float, view: View | None = None) -> float | None:
        """The radius that is certified if the class has at least this probability; None where there is none."""

    @abstractmethod
    def probability_needed(self, radius: float, view: View | None = None) -> float:
        """The probability p0 that a class must exceed at the image to be the answer everywhere within the radius."""

    @abstractmethod
    def probability_left(self, p_lower: float, radius: float, distance: float, view: View | None = None) -> float:
        """Lower bound of the class's probability at a distance from an image with this certificate."""

    def claim(self, p_lower: float, radius: float, distance: float, view: View | None) -> float:
        """Lower bound, too, of the probability with which drawn copies vote for it there."""
        return max(0.0, self.probability_left(p_lower, radius, distance, view) - self.slack(view))

    def slack(self, view: View | None) -> float:
        """Bound of the total variation distance between the noise that is drawn and the one that is certified for.

        It is subtracted from every lower bound of a probability that counted votes give.
        """
        return 0.0

    def null(self, p0: Floats) -> Null | None:
        """The distributions of votes for a class and one rival that refute a radius with this `probability_needed`.

        None: what the rival gets does not help, so that only the class's own probability is looked at.
        """
        return None

    def snap(self, canvas: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        """Move a changed canvas to the nearest one towards `canvas` that certificates are about."""
        return moved
