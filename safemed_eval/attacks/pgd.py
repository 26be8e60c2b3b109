"""pgd: projected gradient descent, many small steps inside the ball."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from safemed_eval.attacks._common.base import Attack, Facts, Loss, Start, SteppedAttack, Target, refuse_counts
from safemed_eval.attacks._common.problem import Attacked, Problem

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class PGD(SteppedAttack):
    """Steepest ascent on the loss, projected back into the ball after each step.

    Args:
        target: none: away from gold. Otherwise towards one wrong option, chosen once on the clean image.
        early_stop: leave a row alone that is answered wrongly at once, and stop it at the first point that succeeds.
    Source:
        Madry et al. 2018 (arXiv:1706.06083). Differs: the loss is over the K options of the question; the clean image
        is tried first, a row stops at the first point that succeeds, and a row that never does returns its point of
        largest loss, not its last one. `early_stop=no` is the plain algorithm.
    """

    facts = Facts(
        strength=2,
        example="pgd:eps=4/255,steps=10",
        summary="further keys: norm=l2, loss=margin, restarts=5, target=random, ...",
    )

    refills = True

    start: Start = "random"
    restarts: int = 1
    loss: Loss = "ce"
    target: Target = "none"
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(restarts=self.restarts)
        if self.restarts > 1 and self.start == "zero":
            raise ValueError("restarts from start=zero would repeat each other; use start=random")

    def looks(self, options: int) -> int:
        return (self.target != "none") + self.early_stop + self.restarts * (self.steps + 1)

    @property
    def on_smoothed(self) -> Attack:
        return replace(self, early_stop=False)

    def search(self, problem: Problem) -> Attacked:
        """Maximise the goal inside each row's ball, by steps of one size.

        With `early_stop` a row whose clean image is answered wrongly is left as it is, a row leaves the batch at the
        first point that reaches its goal, and the best point seen is returned. Without it every row runs all steps and
        returns its last point (of the restart that ended highest), which is the textbook attack.

        Where there are more rows than the model may be shown at once, a row that leaves makes room for the next.
        """
        import torch

        from safemed_eval.attacks._common.ascent import Search, goal_of

        threat, canvas = self.threat, problem.canvas
        goal = goal_of(problem, self.loss, self.target)
        search = Search(problem, goal, threat, early_stop=self.early_stop)
        points = canvas.clone()
        steps, starts = [0] * len(canvas), [0] * len(canvas)
        waiting, climbing, ended = deque(search.active.tolist()), list[int](), list[int]()

        def look(rows: list[int], *, gradient: bool) -> tuple[torch.Tensor, torch.Tensor]:
            """Those of the rows that are not done, and their gradients."""
            shown = torch.tensor(rows, device=canvas.device)
            keep = self.early_stop or not gradient
            _, slope, _, done = search.look(shown, points[shown], gradient=gradient, keep=keep)
            return shown[~done], slope[~done] if gradient else slope

        while waiting or climbing or ended:
            while waiting and len(climbing) < search.at_once:
                row = waiting.popleft()
                steps[row], starts[row] = 0, starts[row] + 1
                points[row] = problem.sample(threat, [row])[0] if self.start == "random" else canvas[row]
                climbing.append(row)
            if climbing:
                left, slope = look(climbing, gradient=True)
                climbing = left.tolist()
                search.count_step(left)
                points[left] = threat.project(canvas[left], points[left] + self.step_size * threat.direction(slope))
                for row in climbing:
                    steps[row] += 1
                ended += [row for row in climbing if steps[row] == self.steps]
                climbing = [row for row in climbing if steps[row] < self.steps]
            if len(ended) >= search.at_once or (ended and not climbing and not waiting):
                judged, ended = ended[: search.at_once], ended[search.at_once :]
                left, _ = look(judged, gradient=False)
                waiting.extend(row for row in left.tolist() if starts[row] < self.restarts)
        return search.result()


ATTACK = PGD
