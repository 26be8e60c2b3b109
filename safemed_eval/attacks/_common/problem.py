"""What an attack gets, a batch of images with their questions, and what its search returns.

A search may be confined to a region of the canvas: all other pixels keep their value exactly, in every attack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from safemed_eval.threat import Rectangle, Threat

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify, Question

_SHOWN = ("write", "after", "likelihood")
"""The methods of `core.Reasons` whose first argument is a canvas."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A batch to attack: B images with their questions and gold answers.

    Args:
        classify: bound to the B questions.
        canvas: (B, 3, H, W) float32 in [0, 1].
        labels: (B,) int64, the gold options.
        generators: one per row, so that a row's result does not depend on its batch mates.
        quantize: search among images on 8-bit grey levels only.
        questions: the B questions, for attacks that use their texts; None where the caller has none.
        fitted: (3, H, W) float32, what `Attack.fit` made of other items; None for an attack that is not fitted.
        region: (B, 1, H, W) bool, the pixels that may change; None: all. `classify` then sees the clean pixels
            elsewhere, whatever it is shown, and has no gradient there.
        modalities: the modalities of the B images, each None where it is not known, for attacks that differ by them;
            None where the caller has none.
    """

    classify: Classify
    canvas: torch.Tensor
    labels: torch.Tensor
    generators: Sequence[torch.Generator]
    quantize: bool = False
    questions: Sequence[Question] | None = None
    fitted: torch.Tensor | None = None
    region: torch.Tensor | None = None
    modalities: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.canvas)

    def take(self, rows: Sequence[int]) -> Problem:
        """The same problem for these rows only."""
        return Problem(
            classify=self.classify.take(rows),
            canvas=self.canvas[list(rows)],
            labels=self.labels[list(rows)],
            generators=[self.generators[row] for row in rows],
            quantize=self.quantize,
            questions=None if self.questions is None else [self.questions[row] for row in rows],
            fitted=self.fitted,
            region=None if self.region is None else self.region[list(rows)],
            modalities=None if self.modalities is None else [self.modalities[row] for row in rows],
        )

    def sample(self, threat: Threat, rows: Sequence[int]) -> torch.Tensor:
        """Draw a uniform point from the ball of each of these rows, within its region."""
        chosen = list(rows)
        region = None if self.region is None else self.region[chosen]
        return threat.sample(self.canvas[chosen], [self.generators[row] for row in chosen], region)

    def on_grid(self, canvas: torch.Tensor, threat: Threat) -> torch.Tensor:
        """The canvases moved to 8-bit grey levels inside the ball if `quantize` is set, else as they are."""
        return threat.snap(self.canvas, canvas) if self.quantize else canvas


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """Result of a search."""

    canvas: torch.Tensor
    """(B, 3, H, W) float32 in [0, 1]."""
    steps: list[int]
    """Gradient steps that each row took until it stopped; for ART's attacks, images shown to the model."""
    targets: list[int] | None = None
    """The option that each row was to be answered with, for a targeted attack."""
    climb: list[list[float] | None] | None = None
    """Highest value of each row's goal at its first gradient and after each quarter of them: five numbers."""
    dead: list[float | None] | None = None
    """Share of each row's gradients that were zero at every pixel; None, as in `climb`, for a row that took none, and
    for one whose region is empty."""
    parts: list[dict[str, bool]] | None = None
    """For an attack made of several: whether a row's answer was right after each of those that it reached."""
    rectangles: Sequence[Rectangle | None] | None = None
    """For an attack on a part of the canvas: the rectangle outside of which no pixel of a row differs; None for a row
    that was left as it is."""


class Contained:
    """A model that sees the clean pixels outside of each row's region, whatever it is shown there.

    Its gradient is zero there, so that no search has to know of regions. What else `classify` has, it has too.

    Args:
        canvas: (B, 3, H, W) the clean canvases of the rows that `classify` is bound to.
        region: (B, 1, H, W) bool, the pixels that may change.
    """

    def __init__(self, classify: Classify, canvas: torch.Tensor, region: torch.Tensor) -> None:
        self._classify, self._canvas, self._region = classify, canvas, region

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        return self._classify(self.inside(canvas))

    def take(self, rows: Sequence[int]) -> Contained:
        chosen = list(rows)
        return Contained(self._classify.take(rows), self._canvas[chosen], self._region[chosen])

    def inside(self, canvas: torch.Tensor) -> torch.Tensor:
        """The canvases with the clean pixels put back outside of the regions."""
        import torch

        return torch.where(self._region, canvas, self._canvas)

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._classify, name)
        if name not in _SHOWN:
            return inner
        return lambda canvas, *given: inner(self.inside(canvas), *given)


def search_within(problem: Problem, region: torch.Tensor, search: Callable[[Problem], Attacked]) -> Attacked:
    """Search with a model that sees changes within the region only, and put the clean pixels back elsewhere.

    A row whose region is empty stays clean; that it has no gradient says nothing about the model, and is not kept.

    Args:
        region: (B, 1, H, W) bool.
    """
    contained = Contained(problem.classify, problem.canvas, region)
    attacked = search(replace(problem, classify=contained, region=region))
    empty = (~region).flatten(1).all(1).tolist()
    dead = attacked.dead and [None if none else share for share, none in zip(attacked.dead, empty, strict=True)]
    return replace(attacked, canvas=contained.inside(attacked.canvas), dead=dead)
