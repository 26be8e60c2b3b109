"""The engine of apgd: steps with momentum, halved at checkpoints where they stopped helping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from safemed_eval.attacks._ascent import Goal, Search
from safemed_eval.attacks._base import Attacked
from safemed_eval.core import Classify

if TYPE_CHECKING:
    from safemed_eval.attacks.apgd import APGD

MOMENTUM = 0.75
ENOUGH = 0.75
"""Share of the steps since the last checkpoint that must have raised the goal."""
FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06
"""Shares of all steps: up to the first checkpoint, by how much each period is shorter, and the shortest one."""


def checkpoints(steps: int) -> set[int]:
    """After which steps the step size is judged: w_j = ceil(p_j steps).

    Source:
        Croce and Hein 2020, section 3: p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).
    """
    found, before, now = set(), 0.0, FIRST
    while now < 1:
        found.add(math.ceil(now * steps - 1e-9))
        before, now = now, now + max(now - before - SHORTER, SHORTEST)
    return found


@dataclass(kw_only=True)
class _State:
    """Of each row that is still searched; every field has one entry a row."""

    rows: torch.Tensor
    x0: torch.Tensor
    x: torch.Tensor
    before: torch.Tensor
    """The point before x."""
    value: torch.Tensor
    slope: torch.Tensor
    size: torch.Tensor
    """Of a step."""
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
        """Go on with these rows only."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name)[mask])


def auto_ascend(
    classify: Classify,
    canvas: torch.Tensor,
    goal: Goal,
    spec: APGD,
    generators: Sequence[torch.Generator],
    quantize: bool,
) -> Attacked:
    """Maximise the goal inside each row's ball; returned is the best point seen."""
    search = Search(classify, canvas, goal, spec.threat, quantize=quantize, early_stop=True)
    judged = checkpoints(spec.steps)
    for _ in range(spec.restarts):
        rows = search.active
        if not len(rows):
            break
        x0 = canvas[rows]
        x = spec.threat.sample(x0, [generators[row] for row in rows.tolist()])
        search.active = _climb(search, rows, x0, x, spec, judged)
    return search.result()


def _climb(
    search: Search, rows: torch.Tensor, x0: torch.Tensor, x: torch.Tensor, spec: APGD, judged: set[int]
) -> torch.Tensor:
    """One restart from x; returns the rows that were not fooled."""
    threat = spec.threat
    value, slope, _, done = search.look(rows, x0, x, gradient=True, keep=True)
    state = _State(
        rows=rows,
        x0=x0,
        x=x,
        before=x,
        value=value,
        slope=slope,
        size=torch.full_like(value, 2 * threat.eps),
        top=value,
        top_x=x,
        top_slope=slope,
        rises=torch.zeros_like(value),
        top_then=value,
        halved=torch.zeros_like(done),
    )
    state.keep(~done)
    last = 0
    for step in range(1, spec.steps + 1):
        if not len(state.rows):
            break
        search.count_step(state.rows)
        ahead = threat.project(state.x0, state.x + _per_row(state.size) * threat.direction(state.slope))
        share = 1.0 if step == 1 else MOMENTUM
        moved = state.x + share * (ahead - state.x) + (1 - share) * (state.x - state.before)
        state.before, state.x = state.x, threat.project(state.x0, moved)
        value, slope, _, done = search.look(state.rows, state.x0, state.x, gradient=step < spec.steps, keep=True)
        if step == spec.steps:
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
    """Halve the steps of rows that rose too rarely, or not at all at an unchanged size, and take them to their top."""
    stuck = ~state.halved & (state.top == state.top_then)
    halve = (state.rises < ENOUGH * steps) | stuck
    state.size = torch.where(halve, state.size / 2, state.size)
    state.x = torch.where(_per_row(halve), state.top_x, state.x)
    state.slope = torch.where(_per_row(halve), state.top_slope, state.slope)
    state.value = torch.where(halve, state.top, state.value)
    state.halved, state.top_then, state.rises = halve, state.top, torch.zeros_like(state.rises)


def _per_row(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)
