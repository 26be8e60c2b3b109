"""pgd: projected gradient descent, many small steps inside the ball."""

from __future__ import annotations

from dataclasses import dataclass, replace

from safemed_eval.attacks._common.base import Attack, Facts, Loss, Start, SteppedAttack, Target, refuse_counts
from safemed_eval.attacks._common.problem import Attacked, Problem


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
        return (self.target != "none") + self.early_stop + self.restarts * (self.steps + self._judges)

    @property
    def _judges(self) -> bool:
        """False for a search whose last point is its result, whatever the model says of it."""
        return self.early_stop or self.restarts > 1

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
        steps, starts = torch.zeros(2, len(canvas), dtype=torch.int64, device=canvas.device)
        waiting, climbing, ended = search.active, search.active[:0], search.active[:0]

        while len(waiting) or len(climbing) or len(ended):
            room = search.at_once - len(climbing)
            if room and len(waiting):
                entering, waiting = waiting[:room], waiting[room:]
                steps[entering] = 0
                starts[entering] += 1
                random = self.start == "random"
                points[entering] = problem.sample(threat, entering.tolist()) if random else canvas[entering]
                climbing = torch.cat([climbing, entering])
            if len(climbing):
                _, slope, _, done = search.look(climbing, points[climbing], gradient=True, keep=self.early_stop)
                climbing, slope = climbing[~done], slope[~done]
                search.count_step(climbing)
                moved = points[climbing] + self.step_size * threat.direction(slope)
                points[climbing] = threat.project(canvas[climbing], moved)
                steps[climbing] += 1
                over = steps[climbing] == self.steps
                ended, climbing = torch.cat([ended, climbing[over]]), climbing[~over]
            if len(ended) >= search.at_once or (len(ended) and not len(climbing) and not len(waiting)):
                judged, ended = ended[: search.at_once], ended[search.at_once :]
                if not self._judges:
                    search.keep(judged, points[judged])
                    continue
                *_, done = search.look(judged, points[judged], gradient=False, keep=True)
                left = judged[~done]
                waiting = torch.cat([waiting, left[starts[left] < self.restarts]])
        return search.result()


ATTACK = PGD
