"""Projected gradient ascent over the waist: the engine of pgd, and so of fgsm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from safemed_eval.attacks._base import Attacked, Loss, Target
from safemed_eval.core import Classify
from safemed_eval.errors import ModelOutputError
from safemed_eval.faults import faults_of_the_model

if TYPE_CHECKING:
    from safemed_eval.attacks.pgd import PGD


SURE = 0.05
"""By how much log-probability an answer must have changed before a row stops: in half precision the forward that judges
the result, in another batch, may differ by less."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the ascent maximises, and when a row is done.

    `ce` is the log-odds of all other options together against gold, `margin` the lead of the best other one; a row is
    done when its answer is not gold. For a target it is the log-odds, or the lead, of the target, and a row is done
    when the target is its answer.

    The log-odds z stand for the cross-entropy, log(1 + exp(z)): the gradients of both have the same direction at every
    point, but that of the cross-entropy vanishes in float32 where the model is confident, and the attack with it.

    Args:
        gold: (B,) the gold options.
        targets: (B,) the options to reach, or None.
    """

    loss: Loss
    gold: torch.Tensor
    targets: torch.Tensor | None = None

    def __call__(self, log_probs: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(b, K) log-probabilities of these rows -> (b,) what is maximised, (b,) wrong answers, (b,) what is done."""
        sign, aim = (-1, self.gold) if self.targets is None else (1, self.targets)
        lead, odds = _ahead(log_probs, aim[rows])
        behind, _ = _ahead(log_probs, self.gold[rows])
        return sign * (lead if self.loss == "margin" else odds), behind < 0, sign * lead > SURE


def _ahead(log_probs: torch.Tensor, option: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far each row's option is ahead of its best rival, and of all others together."""
    others = log_probs.scatter(1, option.unsqueeze(1), -torch.inf)
    own = log_probs.gather(1, option.unsqueeze(1)).squeeze(1)
    return own - others.amax(1), own - others.logsumexp(1)


def choose_targets(
    how: Target, log_probs: torch.Tensor, labels: torch.Tensor, generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """(B, K) clean log-probabilities -> (B,) wrong options to aim at; padded options are never chosen."""
    wrong = log_probs.isfinite().scatter(1, labels.unsqueeze(1), False)
    if how == "runner-up":
        return log_probs.where(wrong, -torch.inf).argmax(1)
    if how == "least-likely":
        return log_probs.where(wrong, torch.inf).argmin(1)
    draws = [
        torch.multinomial(row.float(), 1, generator=generator) for row, generator in zip(wrong, generators, strict=True)
    ]
    return torch.cat(draws)


def ascend(
    classify: Classify,
    canvas: torch.Tensor,
    goal: Goal,
    spec: PGD,
    generators: Sequence[torch.Generator],
    quantize: bool,
) -> Attacked:
    """Maximise the goal inside each row's ball.

    With `spec.early_stop` a row whose clean image is answered wrongly is left as it is, a row leaves the batch at the
    first point that reaches its goal, and returned is the best point seen: a wrong answer before a right one, then the
    highest goal. Without, every row runs all steps and returns its last point (of the restart that ended highest),
    which is the textbook attack.

    With `quantize` the model is always shown the 8-bit version of the current point, and the gradient is taken there
    and applied to the unrounded one (straight through).

    Raises:
        ModelOutputError: a gradient is not finite. (Its sign would be 0, and the image would pass for robust.)
    """
    threat = spec.threat
    best = canvas.clone()
    highest = torch.full((len(canvas),), -torch.inf, device=canvas.device)
    fooled = torch.zeros(len(canvas), dtype=torch.bool, device=canvas.device)
    taken = [0] * len(canvas)

    def look(
        rows: torch.Tensor, x0: torch.Tensor, x: torch.Tensor, *, gradient: bool, keep: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Show these points to the model: their gradients (or nothing), and under early stop wrong answers and rows
        that are done; without it the textbook attack does not look at answers.
        """
        shown = (threat.snap(x0, x) if quantize else x).detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            value, wrong, done = goal(classify.take(rows.tolist())(shown), rows)
        wrong, done = wrong & spec.early_stop, done & spec.early_stop
        with faults_of_the_model():
            slope = torch.autograd.grad(value.sum(), shown)[0] if gradient else shown[:0]
        broken = int((~slope.isfinite()).flatten(1).any(1).sum())
        if broken:
            raise ModelOutputError(f"the model's gradient is not finite for {broken} of {len(slope)} rows")
        value, shown = value.detach(), shown.detach()
        if keep:
            wins, level = wrong & ~fooled[rows], wrong == fooled[rows]
            better = wins | (level & (value > highest[rows]))
            best[rows[better]], highest[rows[better]] = shown[better], value[better]
            fooled[rows[better]] = wrong[better]
        return slope, wrong, done

    active = torch.arange(len(canvas), device=canvas.device)
    if spec.early_stop:
        _, wrong, done = look(active, canvas, canvas, gradient=False, keep=True)
        active = active[~(done if goal.targets is None else wrong)]
    for _ in range(spec.restarts):
        if not len(active):
            break
        rows, x0 = active, canvas[active]
        x = threat.sample(x0, [generators[row] for row in rows.tolist()]) if spec.start == "random" else x0
        for _ in range(spec.steps):
            slope, _, done = look(rows, x0, x, gradient=True, keep=spec.early_stop)
            rows, x0, x, slope = (part[~done] for part in (rows, x0, x, slope))
            if not len(rows):
                break
            for row in rows.tolist():
                taken[row] += 1
            x = threat.project(x0, x + spec.step_size * threat.direction(slope))
        if len(rows):
            _, _, done = look(rows, x0, x, gradient=False, keep=True)
            rows = rows[~done]
        active = rows
    return Attacked(canvas=best, steps=taken, targets=None if goal.targets is None else goal.targets.tolist())
