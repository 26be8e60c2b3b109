"""Accuracy on validation data, clean and under attack, of a network in training."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from accelerate.utils import gather_object

from safemed_eval import attacks
from safemed_eval.core import CLEAN, Item
from safemed_eval.data import Canvas
from safemed_eval.errors import ModelOutputError
from safemed_eval.models.checkpoints.generate import Writer
from safemed_eval.models.checkpoints.prompts import Asking
from safemed_eval.models.waist import Waist
from safemed_eval.runs.work.evaluate import Evaluation, group_size
from safemed_eval.train.inner.modes import in_eval_mode, inner_loop
from safemed_eval.train.watch.settings import writes_its_thought

_BATCH = 16
"""Rows per forward pass, as `evaluate` has by default; halved when memory runs out."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The shares of validation items that are answered rightly at one step, each over all items."""

    clean_accuracy: float
    robust_accuracy: float
    items: int

    def to_log(self) -> dict[str, float]:
        """Name the values as transformers' trackers expect them of an evaluation."""
        return {f"eval_{name}": value for name, value in asdict(self).items()}


class Validator:
    """Measures accuracy on validation data, clean and under attack, by the code of `evaluate`.

    The answer is the likeliest letter after the template's cue; under a template that asks for a thought first, it is
    what the model writes, decoded greedily. A pgd attack climbs on the scores of the letters in both cases, without a
    thought: on a model that thinks, it is a weak one, and `adaptive` is stronger and much slower. Neither noise nor
    ablation of the training is applied.

    Random starts are seeded by item and attack: numbers depend neither on the step, nor on the number of processes, nor
    on what was computed before.

    Args:
        model: the network in training, behind the waist; its template is the one that is trained.
        attack: spec of the attack.
        max_new_tokens: where a written answer is cut off.
    """

    def __init__(
        self, model: Waist, items: Sequence[Item], canvas: Canvas, attack: str, *, seed: int, max_new_tokens: int
    ) -> None:
        self._model = model
        self._items = items
        self._conditions = attacks.parse_all([CLEAN, attack])
        self._writes = writes_its_thought(model.scorer.template)
        asked = written_by(model, max_new_tokens) if self._writes else model
        self._evaluation = Evaluation(model=asked, canvas=canvas, seed=seed, batch=_BATCH)
        self._size = group_size(_BATCH, canvas)

    def measure(self, *, process: int = 0, processes: int = 1) -> Accuracy:
        """Measure both accuracies; called in all processes together.

        Args:
            process, processes: this one's number, and how many share the items.
        Raises:
            ModelOutputError: the network's output is not finite.
        """
        mode = in_eval_mode if self._writes else inner_loop
        with mode(self._model.scorer.model):
            rows = [row for part in self._parts(process, processes) for row in part]
        everywhere = dict(gather_object(rows))
        for _, error in everywhere.values():
            if error:
                raise ModelOutputError(f"on the validation data, {error}")
        right = np.array([everywhere[item.id][0] for item in self._items])
        clean, robust = right.mean(0).tolist()
        return Accuracy(clean_accuracy=clean, robust_accuracy=robust, items=len(right))

    def _parts(self, process: int, processes: int) -> Iterator[list[tuple[str, tuple[list[bool], str | None]]]]:
        """Yield for groups of this process's items whether each answer is right, by condition, or what went wrong."""
        items = self._items[process::processes]
        for start in range(0, len(items), self._size):
            group = items[start : start + self._size]
            right: dict[str, list[bool]] = {item.id: [] for item in group}
            errors: dict[str, str | None] = dict.fromkeys(right)
            for condition in self._conditions:
                for record in self._evaluation.under(condition, group):
                    right[record.item].append(record.correct)
                    errors[record.item] = errors[record.item] or record.error or record.unavailable
            yield [(name, (right[name], errors[name])) for name in right]


def written_by(model: Waist, max_new_tokens: int, *, temperature: float = 0.0) -> Waist:
    """Return the same network, asked to write its answer."""
    vlm = model.scorer
    asking = Asking(
        readout="generate",
        template=vlm.template,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        clock=vlm.asking.clock,
    )
    return Waist(Writer(vlm.model, vlm.processor, asking), model.device)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Restore the states of all global random generators afterwards."""
    python, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpys)
