"""universal: one perturbation for all images, fitted on some of the items and tried on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from safemed_eval.attacks._common.base import Facts, SteppedAttack
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.errors import DataError
from safemed_eval.grammar import ALWAYS
from safemed_eval.threat import Threat

if TYPE_CHECKING:
    import torch

BATCH = 32
"""Images for each step. It does not depend on the batch size of the run, nor does the perturbation."""
ENOUGH = 2.0
"""Log-odds of the wrong options against gold from which an image no longer pulls: the others need the step more."""


@dataclass(frozen=True, kw_only=True)
class Universal(SteppedAttack):
    """One perturbation of the canvas that is added to every image, whatever its question.

    It is fitted on one half of the run's patients (or images, where there are no patients), and tried on the items of
    the other half, with no further search. For the items that it was fitted on the condition is unavailable. Each step
    follows the sum of the gradients over BATCH images, drawn without replacement until all have had their turn.

    Args:
        steps: gradient steps in all.
    Source:
        Moosavi-Dezfooli et al. 2017 (arXiv:1610.08401); fitted by gradient steps on a loss with a ceiling, as in
        Shafahi et al. 2020 (arXiv:1811.11304). Differs: the log-odds over the options instead of the cross-entropy,
        ENOUGH as their ceiling, and the split by patients.
    """

    facts = Facts(for_all=True, example="universal:eps=8/255", summary="one perturbation for all images")
    fits = True

    steps: int = field(default=200, metadata=ALWAYS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.region is not None:
            raise ValueError("one perturbation for all images knows no region, which differs from image to image")

    def looks(self, options: int) -> int:
        return 0

    def fit(
        self, count: int, batches: Callable[[Sequence[int]], Iterable[Problem]], rng: torch.Generator
    ) -> torch.Tensor:
        import torch

        ball, waiting = replace(self.threat, box=False), list[int]()
        delta: torch.Tensor | None = None
        for _ in range(self.steps):
            while len(waiting) < min(BATCH, count):
                waiting += torch.randperm(count, generator=rng, device=rng.device).tolist()
            chosen, waiting = waiting[:BATCH], waiting[BATCH:]
            total: torch.Tensor | None = None
            for problem in batches(chosen):
                delta = torch.zeros_like(problem.canvas[:1]) if delta is None else delta
                slope = _slope(problem, delta, self.threat)
                total = slope if total is None else total + slope
            if delta is not None and total is not None:
                origin = torch.zeros_like(delta)
                delta = ball.project(origin, delta + self.step_size * ball.direction(total))
        if delta is None:
            raise DataError("none of the images to fit on can be read")
        return delta[0]

    def search(self, problem: Problem) -> Attacked:
        if problem.fitted is None:
            raise TypeError("universal needs the perturbation that `fit` returns")
        return Attacked(canvas=_moved(problem, problem.fitted, self.threat), steps=[0] * len(problem))


def _moved(problem: Problem, delta: torch.Tensor, threat: Threat) -> torch.Tensor:
    return problem.on_grid(threat.project(problem.canvas, problem.canvas + delta), threat)


def _slope(problem: Problem, delta: torch.Tensor, threat: Threat) -> torch.Tensor:
    """The gradient of the sum of all goals in the perturbation: (1, 3, H, W)."""
    import torch

    from safemed_eval.attacks._common.ascent import Goal
    from safemed_eval.faults import faults_of_the_model, refuse_broken_gradient

    shown = _moved(problem, delta, threat).detach().requires_grad_()
    rows = torch.arange(len(problem), device=shown.device)
    with torch.enable_grad():
        value, _, _ = Goal(loss="ce", gold=problem.labels)(problem.classify(shown), rows)
    with faults_of_the_model():
        (slope,) = torch.autograd.grad(value.clamp(max=ENOUGH).sum(), shown)
    refuse_broken_gradient(slope)
    return slope.sum(0, keepdim=True)


ATTACK = Universal
