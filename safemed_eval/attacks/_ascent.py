"""Projected gradient ascent over the waist: the engine of pgd, and so of fgsm; what apgd shares with it."""

from __future__ import annotations

from collections import deque
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
        targets = choose_targets(spec.target, _clean(classify, canvas), labels, generators)
    return Goal(loss=spec.loss, gold=labels, targets=targets)


@torch.no_grad()
def _clean(classify: Classify, canvas: torch.Tensor) -> torch.Tensor:
    """(B, K) log-probabilities of rows that may be too many to be shown together."""
    parts = torch.split(torch.arange(len(canvas), device=canvas.device), at_once(classify, len(canvas)))
    found = [classify.take(rows.tolist())(canvas[rows]) for rows in parts]
    width = max(one.shape[1] for one in found)
    return torch.cat([torch.nn.functional.pad(one, (0, width - one.shape[1]), value=-torch.inf) for one in found])


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
        self.at_once = at_once(classify, len(canvas))
        """How many rows are shown together."""
        self.active = torch.arange(len(canvas), device=canvas.device)
        """The rows that are still worth a search: under early stop not those whose clean image is answered wrongly."""
        if early_stop and len(canvas):
            over = []
            for rows in torch.split(self.active, self.at_once):
                _, _, wrong, done = self.look(rows, canvas[rows], canvas[rows], gradient=False, keep=True)
                over.append(done if goal.targets is None else wrong)
            self.active = self.active[~torch.cat(over)]

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

    Where there are more rows than the model is shown at once, a row that leaves makes room for the next.
    """
    threat = spec.threat
    search = Search(classify, canvas, goal, threat, quantize=quantize, early_stop=spec.early_stop)
    points = canvas.clone()
    steps, starts = [0] * len(canvas), [0] * len(canvas)
    waiting, climbing, ended = deque(search.active.tolist()), list[int](), list[int]()

    def look(rows: list[int], *, gradient: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of these that are not done, and their gradients."""
        shown = torch.tensor(rows, device=canvas.device)
        keep = spec.early_stop or not gradient
        _, slope, _, done = search.look(shown, canvas[shown], points[shown], gradient=gradient, keep=keep)
        return shown[~done], slope[~done] if gradient else slope

    while waiting or climbing or ended:
        while waiting and len(climbing) < search.at_once:
            row = waiting.popleft()
            steps[row], starts[row] = 0, starts[row] + 1
            x0 = canvas[row : row + 1]
            points[row] = threat.sample(x0, [generators[row]])[0] if spec.start == "random" else canvas[row]
            climbing.append(row)
        if climbing:
            left, slope = look(climbing, gradient=True)
            climbing = left.tolist()
            search.count_step(left)
            points[left] = threat.project(canvas[left], points[left] + spec.step_size * threat.direction(slope))
            for row in climbing:
                steps[row] += 1
            ended += [row for row in climbing if steps[row] == spec.steps]
            climbing = [row for row in climbing if steps[row] < spec.steps]
        if len(ended) >= search.at_once or (ended and not climbing and not waiting):
            judged, ended = ended[: search.at_once], ended[search.at_once :]
            left, _ = look(judged, gradient=False)
            waiting.extend(row for row in left.tolist() if starts[row] < spec.restarts)
    return search.result()


def at_once(classify: Classify, rows: int) -> int:
    """How many of so many rows may be shown to the model together."""
    return getattr(classify, "at_once", None) or max(1, rows)
