"""The engine of adaptive: one climb for each goal, with as many gradient steps each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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

    def climb(self, log_probs: torch.Tensor, *, targeted: bool = False) -> torch.Tensor:
        """(b,) how far the other options are ahead of gold, or the target ahead of them."""
        goal = Goal(loss="ce", gold=self.labels, targets=self.targets if targeted else None)
        return goal(log_probs, torch.arange(len(self.labels), device=self.labels.device))[0]


def _letter(rows: _Rows) -> Value:
    return lambda x: rows.climb(rows.classify(x))


def _letter_after_thought(rows: _Rows) -> Value:
    texts = rows.texts
    return lambda x: rows.climb(rows.classify.after(x, texts))


def _runner_up_after_thought(rows: _Rows) -> Value:
    texts = rows.texts
    return lambda x: rows.climb(rows.classify.after(x, texts), targeted=True)


def _own_rationale(rows: _Rows) -> Value:
    texts = rows.classify.retell(rows.texts, rows.labels.tolist())
    return lambda x: -rows.classify.likelihood(x, texts)


def _wrong_option(rows: _Rows) -> Value:
    texts = rows.classify.retell(rows.texts, rows.targets.tolist())
    return lambda x: rows.classify.likelihood(x, texts)


def _no_thought(rows: _Rows) -> Value:
    texts = rows.classify.curtail(rows.texts, rows.targets.tolist())
    return lambda x: rows.classify.likelihood(x, texts)


GOALS: dict[str, Callable[[_Rows], Value]] = {
    "answer": _letter,
    "thought": _letter_after_thought,
    "runner-up": _runner_up_after_thought,
    "rationale": _own_rationale,
    "wrong-option": _wrong_option,
    "no-thought": _no_thought,
}


def worst_of_all(
    classify: Reasons,
    canvas: torch.Tensor,
    labels: torch.Tensor,
    spec: Adaptive,
    generators: Sequence[torch.Generator],
    quantize: bool,
) -> Attacked:
    """Climb on each goal; rows whose clean image is answered wrongly are left as they are."""
    with torch.no_grad():
        texts = classify.write(canvas)
        targets = choose_targets("runner-up", classify.after(canvas, texts), labels, generators)
        every = _Rows(classify, labels, targets, texts)
    wrong = every.wrong()
    right = [row for row, fallen in enumerate(wrong) if not fallen]
    best, steps = canvas.clone(), [0] * len(canvas)
    parts: list[dict[str, bool]] = [{} for _ in canvas]
    dead: list[float | None] = [None] * len(canvas)
    fallen: set[int] = set()
    for name, aim in GOALS.items() if right else ():
        streams = [generators[row] for row in right]
        climb = _climb(every.take(right), aim, canvas[right], spec, streams, quantize)
        for place, row in enumerate(right):
            steps[row] += climb.steps[place]
            parts[row][name] = climb.held[place]
            if name == "answer":
                dead[row] = climb.zeros[place] / climb.steps[place]
            if row not in fallen:
                best[row] = climb.ends[place]
            if not climb.held[place]:
                fallen.add(row)
    return Attacked(canvas=best, steps=steps, dead=dead, parts=parts)


@dataclass
class _Climb:
    """What came of one goal, row by row.

    Attributes:
        ends: the last point shown.
        held: whether the answer is right there.
        steps: gradients taken, and `zeros`, how many of them were zero.
    """

    ends: torch.Tensor
    held: list[bool] = field(init=False)
    steps: list[int] = field(init=False)
    zeros: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.held, self.steps, self.zeros = ([value] * len(self.ends) for value in (True, 0, 0))

    @property
    def left(self) -> list[int]:
        return [row for row, held in enumerate(self.held) if held]


def _climb(
    rows: _Rows,
    aim: Callable[[_Rows], Value],
    x0: torch.Tensor,
    spec: Adaptive,
    generators: Sequence[torch.Generator],
    quantize: bool,
) -> _Climb:
    """All restarts of one goal, with the rows that no earlier one has made fall."""
    climb = _Climb(x0.clone())
    for restart in range(spec.restarts):
        if left := climb.left:
            _once(climb, left, rows.take(left), aim, x0, spec, generators, quantize, from_clean=not restart)
    return climb


def _once(
    climb: _Climb,
    left: list[int],
    rows: _Rows,
    aim: Callable[[_Rows], Value],
    x0: torch.Tensor,
    spec: Adaptive,
    generators: Sequence[torch.Generator],
    quantize: bool,
    *,
    from_clean: bool,
) -> None:
    """One climb: from a random point, or from the clean image by a first step as long as the ball is wide.

    That first step is FGSM's, and is judged at once, so that a row which falls to it cannot be missed. A row without a
    gradient at its clean image goes to a random point instead.
    """
    threat = spec.threat

    def shown(points: torch.Tensor) -> torch.Tensor:
        return threat.snap(x0[left], points) if quantize else points

    drawn = threat.sample(x0[left], [generators[row] for row in left])
    x = x0[left] if from_clean else drawn
    value = aim(rows)
    for step in range(1, spec.steps + 1):
        slope = _slope(value, shown(x))
        flat = (slope == 0).flatten(1).all(1)
        for row, zero in zip(left, flat.tolist(), strict=True):
            climb.steps[row] += 1
            climb.zeros[row] += zero
        first = step == 1 and from_clean
        x = threat.project(x0[left], x + (threat.eps if first else spec.step_size) * threat.direction(slope))
        x = torch.where(flat.view(-1, 1, 1, 1), drawn, x) if first else x
        if not (first or step % spec.refresh == 0 or step == spec.steps):
            continue
        rows.texts = rows.classify.write(shown(x))
        wrong = rows.wrong()
        climb.ends[left] = shown(x)
        for row, fallen in zip(left, wrong, strict=True):
            climb.held[row] = not fallen
        kept = [place for place, fallen in enumerate(wrong) if not fallen]
        if not kept:
            return
        rows, x, drawn, left = rows.take(kept), x[kept], drawn[kept], [left[place] for place in kept]
        value = aim(rows)


def _slope(value: Value, x: torch.Tensor) -> torch.Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = value(x).sum()
    with faults_of_the_model():
        (slope,) = torch.autograd.grad(total, x)
    refuse_broken_gradient(slope)
    return slope
