"""suite: several attacks that fail in different ways, one after the other; an item falls if it falls to any of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from safemed_eval.attacks._common.base import Attack, BallAttack, Facts, refuse_counts
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.attacks.apgd import APGD
from safemed_eval.attacks.art import ART
from safemed_eval.grammar import ALWAYS

if TYPE_CHECKING:
    import torch
NO_TARGET = -1
_QUERIES_A_ROUND = 3
"""Images that ART's Square shows to the model in each of its iterations."""


@dataclass(frozen=True, kw_only=True)
class Suite(BallAttack):
    """APGD on the cross-entropy, APGD towards each wrong option in turn, and Square, which sees no gradient.

    Each one sees only the rows that are still answered correctly. Records say which of the three a row reached, and
    whether its answer was right after each.

    Args:
        steps: gradients of each APGD.
        queries: about how many images Square shows to the model, for each row.
    Source:
        AutoAttack, Croce and Hein 2020 (arXiv:2003.01690), for a question of K options. Differs: all K - 1 wrong
        options are targets; where a question has fewer than four, the margin stands for the targeted DLR loss, which is
        undefined there; FAB is left out; Square is the one of the Adversarial Robustness Toolbox.
    """

    facts = Facts(strength=3, black_box_part="square", example="suite", summary="several, for a paper")

    steps: int = field(default=100, metadata=ALWAYS)
    queries: int = 600

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(steps=self.steps, queries=self.queries)

    @property
    def square(self) -> ART:
        """The black-box attack of the suite."""
        rounds = max(1, self.queries // _QUERIES_A_ROUND)
        return ART(method="SquareAttack", eps=self.eps, norm=self.norm, options={"max_iter": rounds})

    def looks(self, options: int) -> int:
        return 1 + options * (1 + self._apgd.looks(options)) + 1 + self.queries

    @property
    def _apgd(self) -> APGD:
        return APGD(eps=self.eps, norm=self.norm, steps=self.steps)

    def search(self, problem: Problem) -> Attacked:
        course = _Course(problem)
        course.run("apgd-ce", self._apgd)
        for targets in targets_by_rank(course.clean, problem.labels):
            course.run("apgd-targeted", replace(self._apgd, loss="dlr"), targets)
        course.run("square", self.square)
        return course.result()


def targets_by_rank(log_probs: torch.Tensor, labels: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield each row's likeliest wrong option, (B,), then its second likeliest, and so on.

    Args:
        log_probs: (B, K); padded options are never a target.
    Yields:
        NO_TARGET for rows that have no further option.
    """
    import torch

    wrong = log_probs.scatter(1, labels.unsqueeze(1), -torch.inf)
    order = wrong.argsort(dim=1, descending=True, stable=True)
    counts = wrong.isfinite().sum(1)
    for rank in range(int(counts.max())):
        yield order[:, rank].where(rank < counts, NO_TARGET)


class _Course:
    """Runs several attacks in sequence, and keeps the best point of each row and the outcome of each attack.

    Attributes:
        clean: (B, K) log-probabilities of the clean canvases.
    """

    def __init__(self, problem: Problem) -> None:
        from safemed_eval.attacks._common.ascent import ahead

        self._problem = problem
        self.clean = self._log_probs(problem, problem.canvas)
        self._lead, _ = ahead(self.clean, problem.labels)
        self._searched = self._lead >= 0
        self._best = problem.canvas.clone()
        self._steps = [0] * len(problem)
        self._parts: list[dict[str, bool]] = [{} for _ in range(len(problem))]
        self._climb: list[list[float] | None] = [None] * len(problem)
        self._dead: list[float | None] = [None] * len(problem)

    def run(self, name: str, attack: Attack, targets: torch.Tensor | None = None) -> None:
        """Attack the rows whose answer is still right, or wrong by less than SURE.

        Args:
            targets: (B,) options that APGD is to reach; rows with NO_TARGET are left out.
        """
        from safemed_eval.attacks._common.ascent import SURE, Goal, ahead

        left = self._searched & (self._lead > -SURE)
        left = left if targets is None else left & (targets != NO_TARGET)
        rows = left.nonzero().flatten()
        chosen = rows.tolist()
        if not chosen:
            return
        problem = self._problem.take(chosen)
        if targets is None:
            attacked = attack.search(problem)
        else:
            assert isinstance(attack, APGD)
            attacked = attack.ascend(problem, Goal(loss=attack.loss, gold=problem.labels, targets=targets[rows]))
        lead, _ = ahead(self._log_probs(problem, attacked.canvas), problem.labels)
        lower = lead < self._lead[rows]
        self._best[rows[lower]], self._lead[rows[lower]] = attacked.canvas[lower], lead[lower]
        for place, row in enumerate(chosen):
            self._steps[row] += attacked.steps[place]
            self._parts[row][name] = bool(self._lead[row] >= 0)
            if attacked.climb and self._climb[row] is None:
                self._climb[row] = attacked.climb[place]
            if attacked.dead and self._dead[row] is None:
                self._dead[row] = attacked.dead[place]

    def result(self) -> Attacked:
        """The best points, with the `climb` and `dead` of each row's first search."""
        return Attacked(canvas=self._best, steps=self._steps, climb=self._climb, dead=self._dead, parts=self._parts)

    @staticmethod
    def _log_probs(problem: Problem, canvas: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.no_grad():
            return problem.classify(canvas)


ATTACK = Suite
