"""The bridge to ART: wraps our classifiers as its estimators, and runs its attacks under our seeds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from safemed_eval.attacks._common.base import Value
from safemed_eval.attacks._common.problem import Problem
from safemed_eval.attacks.art.methods import attack_of
from safemed_eval.core import Classify, Decides
from safemed_eval.errors import ModelOutputError, SpecError
from safemed_eval.faults import ShrinkingBatch, faults_of_the_model, refuse_broken_gradient
from safemed_eval.threat import Threat

MOST_ROWS = 16
"""Rows that go through the model together, however many ART asks for: results do not depend on the run's batch."""

_WIDE = ("SquareAttack", "AutoAttack")
"""Attacks that fail in L2 on a canvas that is higher than wide, and so are shown its transpose."""


def estimator(classify: Classify, options: int, size: tuple[int, int], device: torch.device) -> PyTorchClassifier:
    """An ART classifier of (B, 3, H, W) pixels.

    Args:
        classify: bound to one question.
        options: how many the question has; of `Decisions` one more.
        size: height and width of the canvas.
        device: where `classify` wants its canvases.
    """
    return PyTorchClassifier(
        Logits(classify, options, size, device),
        torch.nn.CrossEntropyLoss(),
        (3, *size),
        options,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


class Logits(torch.nn.Module):
    """(B, 3, H, W) pixels -> (B, K) log-probabilities of one question's options, on the device of the pixels.

    The model is no submodule of it: train(), eval() and to(), which ART calls, do not reach the model. A row with NaN
    has log-probabilities of NaN, and is not shown to the model: ART's Square tries such rows, and then drops them.

    Attributes:
        rows: number of images that the model was asked about so far.
    """

    def __init__(self, classify: Classify, options: int, size: tuple[int, int], device: torch.device) -> None:
        super().__init__()
        self.rows = 0
        self._shape = (3, *size)
        self._memory = ShrinkingBatch(MOST_ROWS)

        def look(canvas: torch.Tensor) -> torch.Tensor:
            return classify.take([0] * len(canvas))(canvas)[:, :options]

        self._look, self._options, self._device = look, options, device

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.shape[1:] != self._shape:
            raise SpecError(
                f"to_art: images of shape {tuple(pixels.shape[1:])} for a canvas of {self._shape}; say "
                "canvas_size=(height, width)"
            )
        whole = pixels.isfinite().flatten(1).all(1)
        scores = torch.full((len(pixels), self._options), torch.nan, device=pixels.device)
        if bool(whole.any()):
            asked = pixels[whole]
            self.rows += len(asked)
            scores[whole] = self._memory.run(
                lambda size: torch.cat([self._part(part) for part in torch.split(asked, size)])
            )
        return scores

    def _part(self, pixels: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and pixels.requires_grad:
            scores: torch.Tensor = _Graph.apply(pixels, self._look, self._device)
            return scores
        with torch.no_grad():
            return self._look(pixels.to(self._device, torch.float32)).to(pixels.device)


class _Graph(torch.autograd.Function):
    """A gradient that reaches the pixels alone: ART calls backward(), which would fill those of the weights, too.

    A gradient that is not finite raises; ART would take it for 0, and the image would pass for robust.
    """

    @staticmethod
    def forward(
        ctx: Any, pixels: torch.Tensor, look: Callable[[torch.Tensor], torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        with torch.enable_grad():
            ctx.canvas = pixels.detach().to(device, torch.float32).requires_grad_()
            ctx.scores = look(ctx.canvas)
        scores: torch.Tensor = ctx.scores.detach().to(pixels.device)
        return scores

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        with faults_of_the_model():
            (gradient,) = torch.autograd.grad(ctx.scores, ctx.canvas, slope.to(ctx.scores), retain_graph=True)
        refuse_broken_gradient(gradient)
        return gradient.to(slope), None, None


class Decisions:
    """Shows ART the answers of a model without scores: (B, 3, H, W) pixels -> (B, K + 1) one-hot vectors.

    The last class of a row's own question is "no answer", and so an answer other than gold. Rows with fewer options
    hold -inf in the rest. There is no gradient.
    """

    def __init__(self, model: Decides) -> None:
        self._model = model

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        last = torch.tensor(self._model.options, device=canvas.device)
        classes = torch.arange(int(last.max()) + 1, device=canvas.device)
        decided = (self._model.decide(canvas)[:, None] == classes).float()
        return decided.masked_fill(classes > last[:, None], -torch.inf)

    def take(self, rows: Sequence[int]) -> Classify:
        return Decisions(self._model.take(rows))


def shown_to_art(classify: Classify) -> Classify:
    """The classifier itself, or the `Decisions` of one without scores."""
    return Decisions(cast("Decides", classify)) if hasattr(classify, "decide") else classify


class _Turned:
    """A classifier of transposed canvases."""

    def __init__(self, classify: Classify) -> None:
        self._classify = classify

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        return self._classify(canvas.mT)

    def take(self, rows: Sequence[int]) -> Classify:
        return _Turned(self._classify.take(rows))


def search_rows(
    problem: Problem, method: str, options: Mapping[str, Value], threat: Threat
) -> tuple[torch.Tensor, list[int]]:
    """Run an ART attack on each row in turn.

    Returns:
        (B, 3, H, W) canvases, in the ball or not, and the number of images that were shown to the model for each.
    """
    every = shown_to_art(problem.classify)
    with torch.no_grad():
        log_probs = every(problem.canvas)
    attacked, queries = problem.canvas.clone(), [0] * len(problem)
    _, _, height, width = problem.canvas.shape
    turn = method in _WIDE and threat.norm == "l2" and height > width
    for row in (log_probs.argmax(1) == problem.labels).nonzero().flatten().tolist():
        classify, image = every.take([row]), problem.canvas[row]
        if turn:
            classify, image = _Turned(classify), image.mT
        count = int(log_probs[row].isfinite().sum())
        classifier = estimator(classify, count, (image.shape[1], image.shape[2]), image.device)
        gold = np.eye(count, dtype=np.float32)[[int(problem.labels[row])]]
        with seeded(problem.generators[row]), np.errstate(all="ignore"), faults_of_the_model(f"ART's {method}"):
            try:
                attack = attack_of(method, options, threat, classifier)
                pixels = attack.generate(image[None].cpu().numpy().copy(), gold)
            except ImportError as error:
                raise SpecError(f"--attack art:{method}: {error}; install it") from None
        if not np.isfinite(pixels).all():
            raise ModelOutputError(f"ART's {method} returned NaN or infinite pixels")
        result = torch.from_numpy(pixels[0]).to(image)
        attacked[row] = result.mT if turn else result
        queries[row] = classifier.model.rows
    return attacked, queries


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch's CPU, which ART draws from, and restore them at the end.

    Some attacks draw from a numpy RandomState that they make without a seed: here it gets one.
    """
    seed = int(torch.randint(2**32, (), generator=generator, device=generator.device))
    python, numpy, unseeded = random.getstate(), np.random.get_state(), np.random.RandomState
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        np.random.RandomState = _Seeded  # type: ignore[misc]
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            np.random.RandomState = unseeded  # type: ignore[misc]


class _Seeded(np.random.RandomState):
    """A RandomState that draws its seed from the global generator where it is given none."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(np.random.randint(2**32, dtype=np.uint32) if seed is None else seed)
