"""apgd: projected gradient descent that finds its own step size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from safemed_eval.attacks._common.base import BallAttack, Facts, Loss, Target, refuse_counts
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.grammar import ALWAYS

if TYPE_CHECKING:
    import torch

    from safemed_eval.attacks._common.ascent import Goal, Search
    from safemed_eval.threat import Threat

MOMENTUM = 0.75
ENOUGH = 0.75
"""Share of the steps since the last checkpoint that must have raised the goal."""
FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06
"""Shares of all steps: up to the first checkpoint, by how much each period is shorter, and the shortest one."""


@dataclass(frozen=True, kw_only=True)
class APGD(BallAttack):
    """Ascent with momentum whose step starts at 2 eps and is halved where it no longer helps.

    Args:
        loss: dlr is that of the source where a question has enough options for it (three, four for a target), and the
            margin elsewhere.
        target: none: away from gold. Otherwise towards one wrong option, chosen once on the clean image.
    Source:
        Croce and Hein 2020 (arXiv:2003.01690), algorithm 1. Differs: as pgd here, the clean image is tried first and a
        row stops at the first point that succeeds; a start is uniform in the ball; `steps` counts gradients, of which
        the source takes one more.
    """

    facts = Facts(strength=2, example="apgd")

    steps: int = field(default=100, metadata=ALWAYS)
    restarts: int = 1
    loss: Loss = "ce"
    target: Target = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(steps=self.steps, restarts=self.restarts)

    def looks(self, options: int) -> int:
        return (self.target != "none") + 1 + self.restarts * (self.steps + 1)

    def search(self, problem: Problem) -> Attacked:
        from safemed_eval.attacks._common.ascent import goal_of

        return self.ascend(problem, goal_of(problem, self.loss, self.target))

    def ascend(self, problem: Problem, goal: Goal) -> Attacked:
        """Maximise the goal inside each row's ball, and return the best point seen."""
        from safemed_eval.attacks._common.ascent import Search

        search = Search(problem, goal, self.threat, early_stop=True)
        for _ in range(self.restarts):
            rows = search.active
            if not len(rows):
                break
            x0 = problem.canvas[rows]
            x = problem.sample(self.threat, rows.tolist())
            search.active = _one_start(search, rows, x0, x, self.threat, self.steps)
        return search.result()


def checkpoints(steps: int) -> set[int]:
    """The steps after which the step size is judged: w_j = ceil(p_j steps).

    Source:
        Croce and Hein 2020, section 3: p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).
    """
    judged, before, now = set(), 0.0, FIRST
    while now < 1:
        judged.add(math.ceil(now * steps - 1e-9))
        before, now = now, now + max(now - before - SHORTER, SHORTEST)
    return judged


@dataclass(kw_only=True)
class _State:
    """State of the rows that are still searched; every field has one entry a row."""

    rows: torch.Tensor
    x0: torch.Tensor
    x: torch.Tensor
    before: torch.Tensor
    """The point before x."""
    value: torch.Tensor
    slope: torch.Tensor
    step_size: torch.Tensor
    top: torch.Tensor
    """The highest goal, with its point and its gradient."""
    top_x: torch.Tensor
    top_slope: torch.Tensor
    rises: torch.Tensor
    """Steps since the last checkpoint that raised the goal."""
    top_then: torch.Tensor
    """The highest goal at the last checkpoint."""
    halved: torch.Tensor
    """Whether the step was halved at the last checkpoint."""

    def keep(self, mask: torch.Tensor) -> None:
        """Drop all rows but these."""
        for column in fields(self):
            setattr(self, column.name, getattr(self, column.name)[mask])


def _one_start(
    search: Search, rows: torch.Tensor, x0: torch.Tensor, x: torch.Tensor, threat: Threat, steps: int
) -> torch.Tensor:
    """Climb from x, and return the rows that were not fooled."""
    import torch

    value, slope, _, done = search.look(rows, x, gradient=True, keep=True)
    state = _State(
        rows=rows,
        x0=x0,
        x=x,
        before=x,
        value=value,
        slope=slope,
        step_size=torch.full_like(value, 2 * threat.eps),
        top=value,
        top_x=x,
        top_slope=slope,
        rises=torch.zeros_like(value),
        top_then=value,
        halved=torch.zeros_like(done),
    )
    state.keep(~done)
    judged, last = checkpoints(steps), 0
    for step in range(1, steps + 1):
        if not len(state.rows):
            break
        search.count_step(state.rows)
        ahead = threat.project(state.x0, state.x + _per_row(state.step_size) * threat.direction(state.slope))
        share = 1.0 if step == 1 else MOMENTUM
        moved = state.x + share * (ahead - state.x) + (1 - share) * (state.x - state.before)
        state.before, state.x = state.x, threat.project(state.x0, moved)
        value, slope, _, done = search.look(state.rows, state.x, gradient=step < steps, keep=True)
        if step == steps:
            state.keep(~done)
            break
        state.rises = state.rises + (value > state.value)
        state.value, state.slope = value, slope
        higher = value > state.top
        state.top = torch.where(higher, value, state.top)
        state.top_x = torch.where(_per_row(higher), state.x, state.top_x)
        state.top_slope = torch.where(_per_row(higher), slope, state.top_slope)
        state.keep(~done)
        if step in judged:
            _judge(state, step - last)
            last = step
    return state.rows


def _judge(state: _State, steps: int) -> None:
    """Halve the step of rows that rose too rarely, or not at all at an unchanged step, and reset them to their top."""
    import torch

    stuck = ~state.halved & (state.top == state.top_then)
    halve = (state.rises < ENOUGH * steps) | stuck
    state.step_size = torch.where(halve, state.step_size / 2, state.step_size)
    state.x = torch.where(_per_row(halve), state.top_x, state.x)
    state.slope = torch.where(_per_row(halve), state.top_slope, state.slope)
    state.value = torch.where(halve, state.top, state.value)
    state.halved, state.top_then, state.rises = halve, state.top, torch.zeros_like(state.rises)


def _per_row(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)


ATTACK = APGD
