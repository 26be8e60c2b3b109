"""The way of a batch through several attacks, of which each sees the survivors of those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from safemed_eval.attacks._ascent import SURE, Goal, ahead
from safemed_eval.attacks._auto import auto_ascend
from safemed_eval.attacks._base import Attack, Attacked
from safemed_eval.attacks.apgd import APGD
from safemed_eval.core import Classify

NO_TARGET = -1


def targets_by_rank(log_probs: torch.Tensor, labels: torch.Tensor) -> Iterator[torch.Tensor]:
    """(B, K) -> (B,) of each row's likeliest wrong option, then of its second one, ...; NO_TARGET where it has no more.

    Padded options are none.
    """
    wrong = log_probs.scatter(1, labels.unsqueeze(1), -torch.inf)
    order = wrong.argsort(dim=1, descending=True, stable=True)
    counts = wrong.isfinite().sum(1)
    for rank in range(int(counts.max())):
        yield order[:, rank].where(rank < counts, NO_TARGET)


class Course:
    """Rows, the best point found for each so far, and what each attack that it met has made of it.

    Attributes:
        clean: (B, K) log-probabilities of the clean canvases.
    """

    def __init__(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        quantize: bool,
    ) -> None:
        self._classify, self._canvas, self._labels = classify, canvas, labels
        self._generators, self._quantize = generators, quantize
        with torch.no_grad():
            self.clean = classify(canvas)
        self._lead, _ = ahead(self.clean, labels)
        self._searched = self._lead >= 0
        self._best = canvas.clone()
        self._steps = [0] * len(canvas)
        self._parts: list[dict[str, bool]] = [{} for _ in canvas]
        self._climb: list[list[float] | None] = [None] * len(canvas)
        self._dead: list[float | None] = [None] * len(canvas)

    def meet(self, name: str, attack: Attack, targets: torch.Tensor | None = None) -> None:
        """Attack the rows whose answer still holds, or barely falls.

        Args:
            targets: (B,) options that APGD is to reach; rows with NO_TARGET are left out.
        """
        left = self._searched & (self._lead > -SURE)
        left = left if targets is None else left & (targets != NO_TARGET)
        rows = left.nonzero().flatten()
        chosen = rows.tolist()
        if not chosen:
            return
        classify, x0, labels = self._classify.take(chosen), self._canvas[rows], self._labels[rows]
        generators = [self._generators[row] for row in chosen]
        if targets is None:
            found = attack.search(classify, x0, labels, generators, self._quantize)
        else:
            assert isinstance(attack, APGD)
            goal = Goal(loss=attack.loss, gold=labels, targets=targets[rows])
            found = auto_ascend(classify, x0, goal, attack, generators, self._quantize)
        with torch.no_grad():
            lead, _ = ahead(classify(found.canvas), labels)
        lower = lead < self._lead[rows]
        self._best[rows[lower]], self._lead[rows[lower]] = found.canvas[lower], lead[lower]
        for place, row in enumerate(chosen):
            self._steps[row] += found.steps[place]
            self._parts[row][name] = bool(self._lead[row] >= 0)
            if found.climb and self._climb[row] is None:
                self._climb[row] = found.climb[place]
            if found.dead and self._dead[row] is None:
                self._dead[row] = found.dead[place]

    def result(self) -> Attacked:
        """The best points; how the first search went."""
        return Attacked(canvas=self._best, steps=self._steps, climb=self._climb, dead=self._dead, parts=self._parts)
