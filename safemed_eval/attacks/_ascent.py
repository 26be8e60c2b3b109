"""Projected gradient ascent over the waist: the engine of fgsm and pgd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from safemed_eval.attacks._base import Attacked, Loss, Start, Target
from safemed_eval.core import Classify
from safemed_eval.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the ascent maximises, and when a row is done.

    `ce` is the log-odds of all other options together against gold, `margin` the lead of the best other one; a row is
    done when its answer is not gold. A target is given instead of gold by maximising the negative, until it is reached.

    The log-odds z stand for the cross-entropy, log(1 + exp(z)): the gradients of both have the same direction at every
    point, but that of the cross-entropy vanishes in float32 where the model is confident, and the attack with it.
    """

    loss: Loss
    labels: torch.Tensor
    """(B,) the gold options, or the targets."""
    targeted: bool

    def __call__(self, log_probs: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, K) log-probabilities of these rows -> (b,) loss, (b,) done."""
        label = self.labels[rows].unsqueeze(1)
        others = log_probs.scatter(1, label, -torch.inf)
        rival = others.amax(1) if self.loss == "margin" else others.logsumexp(1)
        lead = log_probs.gather(1, label).squeeze(1) - rival
        reached = log_probs.argmax(1) == label.squeeze(1)
        return (lead, reached) if self.targeted else (-lead, ~reached)


def choose_targets(
    how: Target, log_probs: torch.Tensor, labels: torch.Tensor, generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """(B, K) clean log-probabilities -> (B,) wrong options to aim at; padded options are never chosen."""
    wrong = log_probs.isfinite().scatter(1, labels.unsqueeze(1), False)
    if how == "runner-up":
        return log_probs.where(wrong, -torch.inf).argmax(1)
    if how == "least-likely":
        return log_probs.where(wrong, torch.inf).argmin(1)
    return torch.stack(
        [
            torch.multinomial(row.float(), 1, generator=generator)[0]
            for row, generator in zip(wrong, generators, strict=True)
        ]
    )


def ascend(
    classify: Classify,
    canvas: torch.Tensor,
    goal: Goal,
    *,
    threat: Threat,
    steps: int,
    step_size: float,
    start: Start,
    restarts: int,
    early_stop: bool,
    quantize: bool,
    generators: Sequence[torch.Generator],
) -> Attacked:
    """Maximise the goal inside each row's ball.

    With `early_stop` the clean image is tried first, a row leaves the batch at the first point that reaches its goal,
    and a row that never does returns the point of the largest loss. Without, every row runs all steps and returns its
    last point (of the restart that ended highest), which is the textbook attack.

    With `quantize` the model is always shown the 8-bit version of the current point, and the gradient is taken there
    and applied to the unrounded one (straight through).

    Args:
        step_size: of one step, in the unit of eps.
    """
    best = canvas.clone()
    best_loss = torch.full((len(canvas),), -torch.inf, device=canvas.device)
    taken = [0] * len(canvas)
    active = torch.arange(len(canvas), device=canvas.device)

    def keep(rows: torch.Tensor, shown: torch.Tensor, loss: torch.Tensor, done: torch.Tensor) -> None:
        better = done | (loss > best_loss[rows])
        best[rows[better]] = shown[better]
        best_loss[rows[better]] = loss[better]

    if early_stop and start == "random":
        with torch.no_grad():
            loss, done = goal(classify(canvas), active)
        keep(active, canvas, loss, done)
        active = active[~done]

    for _ in range(restarts):
        if not len(active):
            break
        rows, x0 = active, canvas[active]
        x = threat.sample(x0, [generators[i] for i in rows.tolist()]) if start == "random" else x0
        bound = classify.take(rows.tolist())
        for step in range(steps + 1):
            shown = (threat.snap(x0, x) if quantize else x).detach().requires_grad_(step < steps)
            with torch.set_grad_enabled(step < steps):
                loss, done = goal(bound(shown), rows)
            if step < steps:
                (gradient,) = torch.autograd.grad(loss.sum(), shown)
            loss, shown = loss.detach(), shown.detach()
            if early_stop or step == steps:
                keep(rows, shown, loss, done & early_stop)
            if early_stop and bool(done.any()):
                stay = ~done
                rows, x0, x = rows[stay], x0[stay], x[stay]
                if not len(rows):
                    break
                bound = classify.take(rows.tolist())
                if step < steps:
                    gradient = gradient[stay]
            if step < steps:
                for row in rows.tolist():
                    taken[row] += 1
                x = threat.project(x0, x + step_size * threat.direction(gradient))
        if early_stop:
            active = rows
    targets = goal.labels.tolist() if goal.targeted else None
    return Attacked(canvas=best, steps=taken, targets=targets)
