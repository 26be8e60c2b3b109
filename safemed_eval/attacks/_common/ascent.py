"""Gradient ascent over the waist: goals, targets, and the record of a search. Shared by pgd, fgsm, apgd and suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from safemed_eval.attacks._common.base import Loss, Target
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.faults import faults_of_the_model, refuse_broken_gradient
from safemed_eval.threat import Threat

SURE = 0.05
"""Lead in log-probability at which a row stops: in half precision the forward pass that judges the result, in another
batch, may differ from this one by less."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The quantity that the ascent maximises, and the rule by which a row is done.

    `ce` is the log-odds of all other options together against gold, `margin` the lead of the best other one, `dlr` that
    lead over the distance from the best option to the third, `pm` the lead in probability. A row is done when its
    answer is not gold. For a target they are the log-odds, or the lead, of the target, and a row is done when the
    target is its answer.

    The log-odds z stand for the cross-entropy, log(1 + exp(z)): the gradients of both have the same direction at every
    point, but that of the cross-entropy vanishes in float32 where the model is confident, and the attack with it. For
    the same reason 2 artanh(m) stands for the lead in probability, m.

    Args:
        gold: (B,) the gold options.
        targets: (B,) the options to reach, or None.
    """

    loss: Loss
    gold: torch.Tensor
    targets: torch.Tensor | None = None

    def __call__(self, log_probs: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(b, K) log-probabilities of these rows -> (b,) goals, (b,) wrong answers, (b,) rows that are done."""
        sign, aim = (-1, self.gold) if self.targets is None else (1, self.targets)
        lead, odds = ahead(log_probs, aim[rows])
        behind, _ = ahead(log_probs, self.gold[rows])
        if self.loss == "pm":
            value = probability_margin(log_probs, aim[rows])
        else:
            value = {"ce": odds, "margin": lead, "dlr": lead / _spread(log_probs, targeted=sign > 0)}[self.loss]
        return sign * value, behind < 0, sign * lead > SURE


def ahead(log_probs: torch.Tensor, option: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lead of each row's option over its best rival, and its log-odds against all others together."""
    others = log_probs.scatter(1, option.unsqueeze(1), -torch.inf)
    own = log_probs.gather(1, option.unsqueeze(1)).squeeze(1)
    return own - others.amax(1), own - others.logsumexp(1)


def probability_margin(log_probs: torch.Tensor, option: torch.Tensor) -> torch.Tensor:
    """2 artanh(m), (B,), of each row's m = p(option) - p(best rival), the probabilities being those of the K options.

    With r the probability of all further options it is log(2 p(option) + r) - log(2 p(rival) + r). It rises and falls
    with m, so that the gradients of both have the same direction, but those of m underflow. Of two options it is the
    lead in log-probability.

    Source:
        Xie et al. 2024 (arXiv:2411.15210): the loss is -m. Differs: artanh, as above; and the loss alone is taken, not
        the source's two phases and step sizes.
    """
    own = log_probs.gather(1, option.unsqueeze(1))
    others = log_probs.scatter(1, option.unsqueeze(1), -torch.inf)
    best, rival = others.max(1, keepdim=True)
    without_rival = log_probs.scatter(1, rival, -torch.inf)
    return torch.cat([without_rival, own], 1).logsumexp(1) - torch.cat([others, best], 1).logsumexp(1)


def _spread(log_probs: torch.Tensor, *, targeted: bool) -> torch.Tensor:
    """The divisor of the difference of logits ratio; 1 where a question has too few options for it.

    It is the distance from the best option to the third, or for a target to the mean of the third and the fourth, so
    that the loss does not depend on the scale of the logits.
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
    """Choose one wrong option a row, (B,), from (B, K) clean log-probabilities; padded options are never chosen."""
    wrong = log_probs.isfinite().scatter(1, labels.unsqueeze(1), False)
    if how == "runner-up":
        return log_probs.where(wrong, -torch.inf).argmax(1)
    if how == "least-likely":
        return log_probs.where(wrong, torch.inf).argmin(1)
    draws = [
        torch.multinomial(row.float(), 1, generator=generator) for row, generator in zip(wrong, generators, strict=True)
    ]
    return torch.cat(draws)


def goal_of(problem: Problem, loss: Loss, target: Target) -> Goal:
    """The goal of an attack with these options; a target is chosen on the clean image."""
    targets = None
    if target != "none":
        targets = choose_targets(target, _clean_log_probs(problem), problem.labels, problem.generators)
    return Goal(loss=loss, gold=problem.labels, targets=targets)


@torch.no_grad()
def _clean_log_probs(problem: Problem) -> torch.Tensor:
    """(B, K) log-probabilities of the clean images, shown to the model `at_once` rows at a time."""
    parts = torch.split(torch.arange(len(problem)), at_once(problem))
    log_probs = [problem.classify.take(rows.tolist())(problem.canvas[rows]) for rows in parts]
    width = max(part.shape[1] for part in log_probs)
    return torch.cat(
        [torch.nn.functional.pad(part, (0, width - part.shape[1]), value=-torch.inf) for part in log_probs]
    )


class Search:
    """The best point that each row has reached, and the one way to show points to the model.

    With `early_stop` a wrong answer is better than a right one, and among equals the higher goal is better. Without it
    answers are ignored, and only the points that the caller keeps count.

    With `quantize` the model is always shown the 8-bit version of the current point, and the gradient is taken there
    and applied to the unrounded one (straight through).
    """

    def __init__(self, problem: Problem, goal: Goal, threat: Threat, *, early_stop: bool) -> None:
        canvas = problem.canvas
        self._problem, self._goal, self._threat, self._early_stop = problem, goal, threat, early_stop
        self._best = canvas.clone()
        self._highest = canvas.new_full((len(canvas),), -torch.inf)
        self._fooled = torch.zeros(len(canvas), dtype=torch.bool, device=canvas.device)
        self._taken = torch.zeros(len(canvas), dtype=torch.int64, device=canvas.device)
        self._asked: tuple[list[int], Problem] = [], problem
        """The rows shown last, and the problem for them."""
        self._dead = torch.zeros(len(canvas), dtype=torch.int64, device=canvas.device)
        self._climb: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.round = 0
        """Set by searches that start several times: the number of the current start."""
        self.best_round = torch.zeros(len(canvas), dtype=torch.int64, device=canvas.device)
        """The round in which each row's best point was found; 0: the clean image is the best."""
        self.at_once = at_once(problem)
        """How many rows are shown together."""
        self.active = torch.arange(len(canvas), device=canvas.device)
        """The rows that are still searched: under early stop not those whose clean image is answered wrongly."""
        if early_stop and len(canvas):
            over = []
            for rows in torch.split(self.active, self.at_once):
                _, _, wrong, done = self.look(rows, canvas[rows], gradient=False, keep=True)
                over.append(done if goal.targets is None else wrong)
            self.active = self.active[~torch.cat(over)]

    def look(
        self, rows: torch.Tensor, x: torch.Tensor, *, gradient: bool, keep: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Show the points x of these rows to the model.

        Args:
            gradient: compute the gradients of the goals.
            keep: the points may be returned as the best ones.
        Returns:
            Goals, gradients (none without `gradient`), and under early stop which answers are wrong and which rows are
            done.
        Raises:
            ModelOutputError: a gradient is not finite.
        """
        asked = self._problem_of(rows)
        shown = asked.on_grid(x, self._threat).detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            value, wrong, done = self._goal(asked.classify(shown), rows)
        wrong, done = wrong & self._early_stop, done & self._early_stop
        with faults_of_the_model():
            slope = _slope(value.sum(), shown) if gradient else shown[:0]
        refuse_broken_gradient(slope)
        value, shown = value.detach(), shown.detach()
        if gradient:
            self._dead[rows] += (slope == 0).flatten(1).all(1)
            self._climb.append((rows, value))
        if keep:
            wins, level = wrong & ~self._fooled[rows], wrong == self._fooled[rows]
            better = wins | (level & (value > self._highest[rows]))
            self._best[rows[better]], self._highest[rows[better]] = shown[better], value[better]
            self._fooled[rows[better]], self.best_round[rows[better]] = wrong[better], self.round
        return value, slope, wrong, done

    def count_step(self, rows: torch.Tensor) -> None:
        """Count one gradient step for each of these rows."""
        self._taken[rows] += 1

    def keep(self, rows: torch.Tensor, x: torch.Tensor) -> None:
        """Make these points the results of these rows, without showing them to the model."""
        self._best[rows] = self._problem_of(rows).on_grid(x, self._threat)
        self.best_round[rows] = self.round

    def _problem_of(self, rows: torch.Tensor) -> Problem:
        """The problem for these rows; mostly they are those of the step before."""
        chosen = rows.tolist()
        if self._asked[0] != chosen:
            self._asked = chosen, self._problem.take(chosen)
        return self._asked[1]

    def result(self) -> Attacked:
        """The best points, and how the search went."""
        heights: list[list[float]] = [[] for _ in range(len(self._best))]
        for rows, values in self._climb:
            for row, value in zip(rows.tolist(), values.tolist(), strict=True):
                heights[row].append(max([value, *heights[row][-1:]]))
        targets = self._goal.targets
        return Attacked(
            canvas=self._best,
            steps=self._taken.tolist(),
            targets=None if targets is None else targets.tolist(),
            climb=[[way[(len(way) - 1) * quarter // 4] for quarter in range(5)] if way else None for way in heights],
            dead=[dead / len(way) if way else None for dead, way in zip(self._dead.tolist(), heights, strict=True)],
        )


def _slope(value: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """The gradient; zero where the value does not depend on the pixels, as for a model that reads the text alone."""
    slope = torch.autograd.grad(value, shown, allow_unused=True)[0] if value.requires_grad else None
    return torch.zeros_like(shown) if slope is None else slope


def at_once(problem: Problem) -> int:
    """How many rows may be shown to the model together."""
    return getattr(problem.classify, "at_once", None) or max(1, len(problem))
