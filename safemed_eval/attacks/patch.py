"""patch: one square of the image with any pixels at all; the rest of the image stays exactly as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from safemed_eval.attacks._common.base import TRAVEL, Attack, Facts, refuse_counts
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.grammar import ALWAYS
from safemed_eval.threat import Rectangle, Threat

if TYPE_CHECKING:
    import torch

    from safemed_eval.attacks._common.ascent import Search


@dataclass(frozen=True, kw_only=True)
class Patch(Attack):
    """Ascent by gradient signs on the pixels of a square, which may take any value in [0, 1].

    Each row's positions are drawn at random, independently of the other rows. A row that is answered wrongly without
    a patch is left as it is.

    - `placement=best`: the patch is optimised at each of the positions separately, and the best result is kept. A row
      stops at the first point that succeeds. The adversary chooses where the patch lies.
    - `placement=random`: one patch is optimised for its expected effect, by the mean gradient over positions that are
      drawn anew for each step, and judged at one further position. The adversary does not choose where it lies.

    Args:
        size: side of the square, in canvas pixels.
        steps: gradient steps, for each position with `best`, in all with `random`.
        positions: with `best` the number of positions that are tried, all different; with `random` the number drawn
            for each step.
    Source:
        Brown et al. 2017 (arXiv:1712.09665), and Karmon et al. 2018 (arXiv:1801.02608) for a single image; expectation
        over transformation after Athalye et al. 2018 (arXiv:1707.07397). Differs: a patch for each item, a square
        without rotation or scaling, untargeted, and steps by the gradient's sign.
    """

    facts = Facts(example="patch:size=48", summary="any pixels inside one square; placement=best|random")

    size: int = field(default=48, metadata=ALWAYS)
    steps: int = field(default=40, metadata=ALWAYS)
    positions: int = field(default=5, metadata=ALWAYS)
    placement: Literal["best", "random"] = "best"

    def __post_init__(self) -> None:
        refuse_counts(size=self.size, steps=self.steps, positions=self.positions)

    @property
    def threat(self) -> Threat:
        """All of [0, 1]; the result is also bounded by its square, see `Attacked.rectangles`."""
        return Threat(norm="linf", eps=1.0)

    def refuse_canvas(self, height: int, width: int) -> None:
        if self.size > min(height, width):
            raise ValueError(
                f"size={self.size} does not fit on a canvas of {height}x{width} pixels; name a smaller one"
            )

    def looks(self, options: int) -> int:
        return 1 + self.positions * (self.steps + (self.placement == "best"))

    def search(self, problem: Problem) -> Attacked:
        from safemed_eval.attacks._common.ascent import Search, goal_of

        search = Search(problem, goal_of(problem, "ce", "none"), self.threat, early_stop=True)
        return self._best(problem, search) if self.placement == "best" else self._expected(problem, search)

    def _best(self, problem: Problem, search: Search) -> Attacked:
        """Optimise the patch at each position in turn, for the rows that no earlier position has turned wrong."""
        import torch

        canvas, count = problem.canvas, self._positions(problem.canvas)
        orders = [torch.randperm(count, generator=rng, device=canvas.device) for rng in problem.generators]
        squares = [[self._square(canvas, number) for number in order[: self.positions].tolist()] for order in orders]
        left = search.active
        for number, here in enumerate(zip(*squares, strict=True), start=1):
            search.round = number
            left = self._climb(problem, search, left, here)
        rectangles = [row[best - 1] if best else None for row, best in zip(squares, search.best_round, strict=True)]
        return replace(search.result(), rectangles=rectangles)

    def _climb(
        self, problem: Problem, search: Search, left: torch.Tensor, squares: Sequence[Rectangle]
    ) -> torch.Tensor:
        """Optimise the patch of these rows in their squares, from random pixels; return the rows still answered right.

        Args:
            squares: one for each row of the problem.
        """
        import torch

        points, inside = problem.canvas.clone(), torch.zeros_like(problem.canvas)
        for row in left.tolist():
            squares[row].inside(points[row]).uniform_(generator=problem.generators[row])
            squares[row].inside(inside[row]).fill_(1)
        for step in range(self.steps + 1):
            if not len(left):
                break
            ascend = step < self.steps
            _, slope, _, done = search.look(left, points[left], gradient=ascend, keep=True)
            left = left[~done]
            if ascend:
                search.count_step(left)
                points[left] = (points[left] + self._step_size * slope[~done].sign() * inside[left]).clamp(0, 1)
        return left

    def _expected(self, problem: Problem, search: Search) -> Attacked:
        """Optimise one patch a row for random positions, and place it at one more, drawn before the search."""
        import torch

        rows = search.active
        canvas, generators = problem.canvas[rows], [problem.generators[row] for row in rows.tolist()]
        patches = canvas.new_empty((len(rows), canvas.shape[1], self.size, self.size))

        def drawn() -> list[Rectangle]:
            count = self._positions(canvas)
            numbers = (torch.randint(count, (), generator=rng, device=canvas.device) for rng in generators)
            return [self._square(canvas, int(number)) for number in numbers]

        def placed(squares: Sequence[Rectangle]) -> torch.Tensor:
            shown = canvas.clone()
            for row, square, patch in zip(shown, squares, patches, strict=True):
                square.inside(row).copy_(patch)
            return shown

        last = drawn()
        for patch, rng in zip(patches, generators, strict=True):
            patch.uniform_(generator=rng)
        for _ in range(self.steps if len(rows) else 0):
            mean = torch.zeros_like(patches)
            for _ in range(self.positions):
                squares = drawn()
                _, slope, _, _ = search.look(rows, placed(squares), gradient=True, keep=False)
                mean += torch.stack([square.inside(row) for square, row in zip(squares, slope, strict=True)])
            search.count_step(rows)
            patches = (patches + self._step_size * mean.sign()).clamp(0, 1)
        attacked = problem.canvas.clone()
        attacked[rows] = placed(last)
        rectangles: list[Rectangle | None] = [None] * len(problem)
        for row, square in zip(rows.tolist(), last, strict=True):
            rectangles[row] = square
        # Each height of the climb is of another position: the record of a search at one point would not fit.
        canvases = problem.on_grid(attacked, self.threat)
        return replace(search.result(), canvas=canvases, rectangles=rectangles, climb=None)

    @property
    def _step_size(self) -> float:
        return min(1.0, TRAVEL["linf"] / self.steps)

    def _positions(self, canvas: torch.Tensor) -> int:
        """The number of positions of the square on the canvas."""
        height, width = canvas.shape[2:]
        return (height - self.size + 1) * (width - self.size + 1)

    def _square(self, canvas: torch.Tensor, number: int) -> Rectangle:
        """The square at one of the positions, which are counted row by row."""
        top, left = divmod(number, canvas.shape[3] - self.size + 1)
        return Rectangle(top=top, left=left, height=self.size, width=self.size)


ATTACK = Patch
