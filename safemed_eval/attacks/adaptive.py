"""adaptive: the worst of six attacks on what a model writes, for models that write before they answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from safemed_eval.attacks._common.base import Facts, SteppedAttack, refuse_counts
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.core import Need, Reasons
from safemed_eval.faults import faults_of_the_model, refuse_broken_gradient

if TYPE_CHECKING:
    import torch

    Value = Callable[[torch.Tensor], torch.Tensor]
    """(b, 3, H, W) -> (b,) the quantity that is maximised."""


@dataclass(frozen=True, kw_only=True)
class Adaptive(SteppedAttack):
    """PGD on six goals, with as many gradient steps each; an item has fallen if it fell to any of them.

    - `answer`: the bare option letter after the cue loses to the others, as in pgd.
    - `thought`: the gold letter loses to the others after the thought that the model writes itself.
    - `runner-up`: the likeliest wrong letter wins there.
    - `rationale`: what the model writes, its own rationale and then the gold answer, becomes unlikely.
    - `wrong-option`: a rationale for the likeliest wrong option, and that option, become likely.
    - `no-thought`: that option, with no rationale before it, becomes likely ("stop reasoning", arXiv:2402.14899).

    The texts that the model is forced to write come from what it writes about the clean image, and every `refresh`
    steps anew from what it writes at the current point. A row stops where it writes a wrong answer or none. The first
    climb on each goal begins with a step from the clean image to the edge of the ball, as FGSM does; those of further
    `restarts` begin at random points. The records say which goals left an item right. An attack on the letter alone
    misses a model whose answer depends on its rationale, so that reasoning looks more robust than it is.
    """

    facts = Facts(aims_at="text", example="adaptive", summary="for models that write")

    refresh: int = 5
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(refresh=self.refresh, restarts=self.restarts)

    @property
    def needs(self) -> tuple[Need, ...]:
        return (*super().needs, "texts")

    def looks(self, options: int) -> int:
        after = options  # forward passes for the letter after a thought, at most; a checkpoint needs one
        written = 1 + math.ceil(self.steps / self.refresh)
        return 1 + after + self.restarts * (self.steps * (4 + 2 * after) + 6 * written)

    def search(self, problem: Problem) -> Attacked:
        """Climb on each goal; rows whose clean image is answered wrongly are left as they are."""
        import torch

        from safemed_eval.attacks._common.ascent import choose_targets

        if not hasattr(problem.classify, "likelihood"):
            raise TypeError("adaptive needs what a model writes, and how likely a text is: see core.Reasons")
        reasons, canvas = cast("Reasons", problem.classify), problem.canvas
        with torch.no_grad():
            texts = reasons.write(canvas)
            log_probs = reasons.after(canvas, texts)
        every = _Rows(problem, choose_targets("runner-up", log_probs, problem.labels, problem.generators), texts)
        right = [row for row, wrong in enumerate(every.wrong()) if not wrong]
        best, steps = canvas.clone(), [0] * len(problem)
        parts: list[dict[str, bool]] = [{} for _ in range(len(problem))]
        dead: list[float | None] = [None] * len(problem)
        fallen: set[int] = set()
        for name, aim in GOALS.items() if right else ():
            climb = self._climb(every.take(right), aim)
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

    def _climb(self, rows: _Rows, aim: Callable[[_Rows], Value]) -> _Climb:
        """All restarts on one goal, each with the rows that no earlier one has made fall."""
        climb = _Climb(rows.problem.canvas.clone())
        for restart in range(self.restarts):
            if left := climb.left:
                self._one_start(climb, left, rows.take(left), aim, from_clean=not restart)
        return climb

    def _one_start(
        self, climb: _Climb, left: list[int], rows: _Rows, aim: Callable[[_Rows], Value], *, from_clean: bool
    ) -> None:
        """Climb once from a random point, or from the clean image by a first step as long as the ball is wide.

        That first step is FGSM's, and is judged at once, so that a row which falls to it cannot be missed. A row
        without a gradient at its clean image goes to a random point instead.
        """
        import torch

        threat, problem = self.threat, rows.problem
        drawn = problem.sample(threat, range(len(problem)))
        x = problem.canvas if from_clean else drawn
        value = aim(rows)
        for step in range(1, self.steps + 1):
            slope = _slope(value, problem.on_grid(x, threat))
            flat = (slope == 0).flatten(1).all(1)
            for row, zero in zip(left, flat.tolist(), strict=True):
                climb.steps[row] += 1
                climb.zeros[row] += zero
            first = step == 1 and from_clean
            x = threat.project(problem.canvas, x + (threat.eps if first else self.step_size) * threat.direction(slope))
            x = torch.where(flat.view(-1, 1, 1, 1), drawn, x) if first else x
            if not (first or step % self.refresh == 0 or step == self.steps):
                continue
            shown = problem.on_grid(x, threat)
            rows.texts = rows.reasons.write(shown)
            wrong = rows.wrong()
            climb.ends[left] = shown
            for row, fallen in zip(left, wrong, strict=True):
                climb.held[row] = not fallen
            kept = [place for place, fallen in enumerate(wrong) if not fallen]
            if not kept:
                return
            rows, x, drawn, left = rows.take(kept), x[kept], drawn[kept], [left[place] for place in kept]
            problem, value = rows.problem, aim(rows)


@dataclass
class _Rows:
    """The rows that are still searched, all of whose questions have a model that writes.

    Attributes:
        targets: (b,) the likeliest wrong option of each.
        texts: the text that the model wrote for each at the last refresh.
    """

    problem: Problem
    targets: torch.Tensor
    texts: list[str]

    @property
    def reasons(self) -> Reasons:
        return cast("Reasons", self.problem.classify)

    def take(self, rows: Sequence[int]) -> _Rows:
        return _Rows(self.problem.take(rows), self.targets[list(rows)], [self.texts[row] for row in rows])

    def wrong(self) -> list[bool]:
        """Whether each text gives a wrong answer, or none."""
        answers = self.reasons.read(self.texts)
        return [answer != label for answer, label in zip(answers, self.problem.labels.tolist(), strict=True)]

    def height(self, log_probs: torch.Tensor, *, targeted: bool = False) -> torch.Tensor:
        """(b,) log-odds of the other options against gold, or of the target against the others."""
        import torch

        from safemed_eval.attacks._common.ascent import Goal

        goal = Goal(loss="ce", gold=self.problem.labels, targets=self.targets if targeted else None)
        return goal(log_probs, torch.arange(len(self.problem), device=self.targets.device))[0]


def _letter(rows: _Rows) -> Value:
    return lambda x: rows.height(rows.reasons(x))


def _letter_after_thought(rows: _Rows) -> Value:
    texts = rows.texts
    return lambda x: rows.height(rows.reasons.after(x, texts))


def _runner_up_after_thought(rows: _Rows) -> Value:
    texts = rows.texts
    return lambda x: rows.height(rows.reasons.after(x, texts), targeted=True)


def _own_rationale(rows: _Rows) -> Value:
    texts = rows.reasons.retell(rows.texts, rows.problem.labels.tolist())
    return lambda x: -rows.reasons.likelihood(x, texts)


def _wrong_option(rows: _Rows) -> Value:
    texts = rows.reasons.retell(rows.texts, rows.targets.tolist())
    return lambda x: rows.reasons.likelihood(x, texts)


def _no_thought(rows: _Rows) -> Value:
    texts = rows.reasons.curtail(rows.texts, rows.targets.tolist())
    return lambda x: rows.reasons.likelihood(x, texts)


GOALS: dict[str, Callable[[_Rows], Value]] = {
    "answer": _letter,
    "thought": _letter_after_thought,
    "runner-up": _runner_up_after_thought,
    "rationale": _own_rationale,
    "wrong-option": _wrong_option,
    "no-thought": _no_thought,
}


@dataclass
class _Climb:
    """The outcome of the search on one goal, row by row.

    Attributes:
        ends: the last point shown.
        held: whether the answer is right there.
        steps: gradients taken, and `zeros`, the number of them that were zero.
    """

    ends: torch.Tensor
    held: list[bool] = field(init=False)
    steps: list[int] = field(init=False)
    zeros: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.held, self.steps, self.zeros = [True] * len(self.ends), [0] * len(self.ends), [0] * len(self.ends)

    @property
    def left(self) -> list[int]:
        return [row for row, held in enumerate(self.held) if held]


def _slope(value: Value, x: torch.Tensor) -> torch.Tensor:
    import torch

    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = value(x).sum()
    with faults_of_the_model():
        (slope,) = torch.autograd.grad(total, x)
    refuse_broken_gradient(slope)
    return slope


ATTACK = Adaptive
