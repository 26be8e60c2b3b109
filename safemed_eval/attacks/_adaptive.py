"""The engine of adaptive: three climbs, each on its own goal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from safemed_eval.attacks._ascent import Goal, choose_targets
from safemed_eval.attacks._base import Attacked
from safemed_eval.core import Reasons
from safemed_eval.faults import faults_of_the_model, refuse_broken_gradient

if TYPE_CHECKING:
    from safemed_eval.attacks.adaptive import Adaptive

Value = Callable[[torch.Tensor], torch.Tensor]
"""(b, 3, H, W) -> (b,) what is climbed."""


class _Rows:
    """The rows that a climb is still about.

    Attributes:
        texts: what the model wrote for each at the last refresh.
    """

    def __init__(self, classify: Reasons, labels: torch.Tensor, targets: torch.Tensor, texts: list[str]) -> None:
        self.classify, self.labels, self.targets, self.texts = classify, labels, targets, texts

    def take(self, rows: Sequence[int]) -> _Rows:
        texts = [self.texts[row] for row in rows]
        return _Rows(self.classify.take(rows), self.labels[list(rows)], self.targets[list(rows)], texts)

    def wrong(self) -> list[bool]:
        read = self.classify.read(self.texts)
        return [answer != label for answer, label in zip(read, self.labels.tolist(), strict=True)]


def _letter(rows: _Rows) -> Value:
    goal, every = Goal(loss="ce", gold=rows.labels), torch.arange(len(rows.labels), device=rows.labels.device)
    return lambda x: goal(rows.classify(x), every)[0]


def _own_rationale(rows: _Rows) -> Value:
    texts = rows.classify.retell(rows.texts, rows.labels.tolist())
    return lambda x: -rows.classify.likelihood(x, texts)


def _wrong_option(rows: _Rows) -> Value:
    texts = rows.classify.retell(rows.texts, rows.targets.tolist())
    return lambda x: rows.classify.likelihood(x, texts)


GOALS: dict[str, Callable[[_Rows], Value]] = {
    "answer": _letter,
    "rationale": _own_rationale,
    "wrong-option": _wrong_option,
}


def worst_of_three(
    classify: Reasons,
    canvas: torch.Tensor,
    labels: torch.Tensor,
    spec: Adaptive,
    generators: Sequence[torch.Generator],
    quantize: bool,
) -> Attacked:
    """Climb on each goal from a start of its own; rows whose clean image is answered wrongly are left as they are."""
    with torch.no_grad():
        targets = choose_targets("runner-up", classify(canvas), labels, generators)
        every = _Rows(classify, labels, targets, classify.write(canvas))
    wrong = every.wrong()
    right = [row for row, fallen in enumerate(wrong) if not fallen]
    best, steps = canvas.clone(), [0] * len(canvas)
    parts: list[dict[str, bool]] = [{} for _ in canvas]
    dead: list[float | None] = [None] * len(canvas)
    fallen: set[int] = set()
    for name, aim in GOALS.items() if right else ():
        climbed, held, taken, zeros = _climb(
            every.take(right), aim, canvas[right], spec, [generators[row] for row in right], quantize
        )
        for place, row in enumerate(right):
            steps[row] += taken[place]
            parts[row][name] = held[place]
            if name == "answer":
                dead[row] = zeros[place] / taken[place] if taken[place] else None
            if row not in fallen:
                best[row] = climbed[place]
            if not held[place]:
                fallen.add(row)
    return Attacked(canvas=best, steps=steps, dead=dead, parts=parts)


def _climb(
    rows: _Rows,
    aim: Callable[[_Rows], Value],
    x0: torch.Tensor,
    spec: Adaptive,
    generators: Sequence[torch.Generator],
    quantize: bool,
) -> tuple[torch.Tensor, list[bool], list[int], list[int]]:
    """One climb.

    Returns:
        Of each row: its last point, whether its answer is right there, its steps, and how many gradients were zero.
    """
    threat = spec.threat

    def shown(points: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
        return threat.snap(origin, points) if quantize else points

    ends, held = x0.clone(), [True] * len(x0)
    taken, zeros = [0] * len(x0), [0] * len(x0)
    left, x = list(range(len(x0))), threat.sample(x0, generators)
    value = aim(rows)
    for step in range(spec.steps + 1):
        if step and (step % spec.refresh == 0 or step == spec.steps):
            rows.texts = rows.classify.write(shown(x, x0[left]))
            wrong = rows.wrong()
            ends[left] = shown(x, x0[left])
            for row, fallen in zip(left, wrong, strict=True):
                held[row] = not fallen
            kept = [place for place, fallen in enumerate(wrong) if not fallen]
            if not kept:
                break
            rows, x, left = rows.take(kept), x[kept], [left[place] for place in kept]
            value = aim(rows)
        if step == spec.steps:
            break
        slope = _slope(value, shown(x, x0[left]))
        for row, zero in zip(left, (slope == 0).flatten(1).all(1).tolist(), strict=True):
            taken[row] += 1
            zeros[row] += zero
        x = threat.project(x0[left], x + spec.step_size * threat.direction(slope))
    return ends, held, taken, zeros


def _slope(value: Value, x: torch.Tensor) -> torch.Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = value(x).sum()
    with faults_of_the_model():
        (slope,) = torch.autograd.grad(total, x)
    refuse_broken_gradient(slope)
    return slope
