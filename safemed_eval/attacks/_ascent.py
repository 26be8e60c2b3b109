"""Projected gradient ascent over the waist: the engine of pgd, and so of fgsm; what apgd shares with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from safemed_eval.attacks._base import Attacked, Loss, Target
from safemed_eval.core import Classify
from safemed_eval.faults import faults_of_the_model, refuse_broken_gradient
from safemed_eval.threat import Threat

if TYPE_CHECKING:
    from safemed_eval.attacks.apgd import APGD
    from safemed_eval.attacks.pgd import PGD


SURE = 0.05
"""By how much log-probability an answer must have changed before a row stops: in half precision the forward that judges
the result, in another batch, may differ by less."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the ascent maximises, and when a row is done.

    `ce` is the log-odds of all other options together against gold, `margin` the lead of the best other one, `dlr` that
    lead over the distance from the best option to the third; a row is done when its answer is not gold. For a target it
    is the log-odds, or the lead, of the target, and a row is done when the target is its answer.

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
        lead, odds = ahead(log_probs, aim[rows])
        behind, _ = ahead(log_probs, self.gold[rows])
        value = {"ce": odds, "margin": lead, "dlr": lead / _spread(log_probs, targeted=sign > 0)}[self.loss]
        return sign * value, behind < 0, sign * lead > SURE


def ahead(log_probs: torch.Tensor, option: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far each row's option is ahead of its best rival, and of all others together."""
    others = log_probs.scatter(1, option.unsqueeze(1), -torch.inf)
    own = log_probs.gather(1, option.unsqueeze(1)).squeeze(1)
    return own - others.amax(1), own - others.logsumexp(1)


def _spread(log_probs: torch.Tensor, *, targeted: bool) -> torch.Tensor:
    """What the difference of logits ratio divides by: 1 where a question has too few options for it.

    It makes the loss blind to the scale of the logits. From the best option to the third, or for a target to the mean
    of the third and the fourth.
    """
    best = log_probs.topk(min(4, log_probs.shape[1]), dim=1).values
    needed = 4 if targeted else 3
    if best.shape[1] < needed:
        return torch.ones_like(best[:, 0])
    spread = best[:, 0] - best[:, 2:needed].mean(1)
    return torch.where(spread.isfinite() & (spread > 0), spread, torch.ones_like(spread))


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


def goal_of(
    spec: PGD | APGD,
    classify: Classify,
    canvas: torch.Tensor,
    labels: torch.Tensor,
    generators: Sequence[torch.Generator],
) -> Goal:
    """The goal of a spec; a target is chosen on the clean image."""
    targets = None
    if spec.target != "none":
        with torch.no_grad():
            targets = choose_targets(spec.target, classify(canvas), labels, generators)
    return Goal(loss=spec.loss, gold=labels, targets=targets)


class Search:
    """The best point that each row has been shown at, and the one way to show points to the model.

    With `early_stop` that is a wrong answer before a right one, then the highest goal. Without it answers are not
    looked at, and only the points that the caller keeps count.

    With `quantize` the model is always shown the 8-bit version of the current point, and the gradient is taken there
    and applied to the unrounded one (straight through).
    """

    def __init__(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        goal: Goal,
        threat: Threat,
        *,
        quantize: bool,
        early_stop: bool,
    ) -> None:
        self._classify, self._goal, self._threat = classify, goal, threat
        self._quantize, self._early_stop = quantize, early_stop
        self._best = canvas.clone()
        self._highest = canvas.new_full((len(canvas),), -torch.inf)
        self._fooled = torch.zeros(len(canvas), dtype=torch.bool, device=canvas.device)
        self._taken = [0] * len(canvas)
        self._dead = torch.zeros(len(canvas), dtype=torch.int64, device=canvas.device)
        self._climb: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.active = torch.arange(len(canvas), device=canvas.device)
        """The rows that are still worth a search: under early stop not those whose clean image is answered wrongly."""
        if early_stop:
            _, _, wrong, done = self.look(self.active, canvas, canvas, gradient=False, keep=True)
            self.active = self.active[~(done if goal.targets is None else wrong)]

    def look(
        self, rows: torch.Tensor, x0: torch.Tensor, x: torch.Tensor, *, gradient: bool, keep: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Show these points to the model.

        Returns:
            Goals, gradients (or nothing), and under early stop wrong answers and rows that are done.
        Raises:
            ModelOutputError: a gradient is not finite.
        """
        shown = (self._threat.snap(x0, x) if self._quantize else x).detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            value, wrong, done = self._goal(self._classify.take(rows.tolist())(shown), rows)
        wrong, done = wrong & self._early_stop, done & self._early_stop
        with faults_of_the_model():
            slope = torch.autograd.grad(value.sum(), shown)[0] if gradient else shown[:0]
        refuse_broken_gradient(slope)
        value, shown = value.detach(), shown.detach()
        if gradient:
            self._dead[rows] += (slope == 0).flatten(1).all(1)
            self._climb.append((rows, value))
        if keep:
            wins, level = wrong & ~self._fooled[rows], wrong == self._fooled[rows]
            better = wins | (level & (value > self._highest[rows]))
            self._best[rows[better]], self._highest[rows[better]] = shown[better], value[better]
            self._fooled[rows[better]] = wrong[better]
        return value, slope, wrong, done

    def count_step(self, rows: torch.Tensor) -> None:
        """Note a gradient step of these rows."""
        for row in rows.tolist():
            self._taken[row] += 1

    def result(self) -> Attacked:
        """The best points, and how the search went."""
        goals: list[list[float]] = [[] for _ in self._taken]
        for rows, values in self._climb:
            for row, value in zip(rows.tolist(), values.tolist(), strict=True):
                goals[row].append(max([value, *goals[row][-1:]]))
        targets = self._goal.targets
        return Attacked(
            canvas=self._best,
            steps=self._taken,
            targets=None if targets is None else targets.tolist(),
            climb=[[way[(len(way) - 1) * quarter // 4] for quarter in range(5)] if way else None for way in goals],
            dead=[dead / len(way) if way else None for dead, way in zip(self._dead.tolist(), goals, strict=True)],
        )


def ascend(
    classify: Classify,
    canvas: torch.Tensor,
    goal: Goal,
    spec: PGD,
    generators: Sequence[torch.Generator],
    quantize: bool,
) -> Attacked:
    """Maximise the goal inside each row's ball, by steps of one size.

    With `spec.early_stop` a row whose clean image is answered wrongly is left as it is, a row leaves the batch at the
    first point that reaches its goal, and returned is the best point seen. Without, every row runs all steps and
    returns its last point (of the restart that ended highest), which is the textbook attack.
    """
    threat = spec.threat
    search = Search(classify, canvas, goal, threat, quantize=quantize, early_stop=spec.early_stop)
    for _ in range(spec.restarts):
        rows, x0 = search.active, canvas[search.active]
        if not len(rows):
            break
        x = threat.sample(x0, [generators[row] for row in rows.tolist()]) if spec.start == "random" else x0
        for _ in range(spec.steps):
            _, slope, _, done = search.look(rows, x0, x, gradient=True, keep=spec.early_stop)
            rows, x0, x, slope = (part[~done] for part in (rows, x0, x, slope))
            if not len(rows):
                break
            search.count_step(rows)
            x = threat.project(x0, x + spec.step_size * threat.direction(slope))
        if len(rows):
            _, _, _, done = search.look(rows, x0, x, gradient=False, keep=True)
            rows = rows[~done]
        search.active = rows
    return search.result()
