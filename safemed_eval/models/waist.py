"""The narrow waist: Classify and Vote over any model, with the contract enforced at every call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from safemed_eval.core import Classify, Question, Vote
from safemed_eval.errors import ModelOutputError


class Scorer(Protocol):
    """What a model family, or your own factory (`--model python:module:factory`), has to provide.

    A model that only votes leaves `scores` out and has `vote(canvas, question)` instead, (B, 3, H, W) -> (B,) int64
    in [0, K], K for "no answer": it can be certified, not attacked.
    """

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """(B, 3, H, W) float32 pixels, one question a row -> (B, >= K) float scores, the higher the likelier.

        Pixels are in [0, 1], or beyond it under noise. Must be differentiable in `canvas` to be attacked. A softmax
        over the row's own K options follows, so log-probabilities and logits both serve.
        """
        ...


class Waist:
    """A loaded model, seen through its two functions.

    Attributes:
        scorer: the model behind the waist.
        device: where canvases must be.
        forwards: rows that have gone through the model so far.
    """

    def __init__(self, scorer: Any, device: torch.device) -> None:
        self.scorer = scorer
        self.device = device
        self.forwards = 0

    @property
    def differentiable(self) -> bool:
        """False for a model that only votes."""
        return hasattr(self.scorer, "scores")

    def classify(self, questions: Sequence[Question]) -> Classify:
        """Option log-probabilities, bound to one question a row."""
        return _BoundClassify(self, tuple(questions))

    def vote(self, question: Question) -> Vote:
        """Answers to one question: the model's own `vote`, or the likeliest option."""
        return _BoundVote(self, question)

    def describe(self) -> dict[str, Any]:
        """What the model says of itself for `run.json`."""
        describe = getattr(self.scorer, "describe", dict)
        return dict(describe())


class _BoundClassify:
    def __init__(self, waist: Waist, questions: tuple[Question, ...]) -> None:
        self._waist = waist
        self._questions = questions
        counts = torch.tensor([len(q.options) for q in questions], device=waist.device)
        self._width = max(len(q.options) for q in questions)
        self._padding = torch.arange(self._width, device=waist.device) >= counts.unsqueeze(1)

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        if len(canvas) != len(self._questions):
            raise ValueError(f"{len(canvas)} canvases for {len(self._questions)} questions")
        scores: torch.Tensor = self._waist.scorer.scores(canvas, self._questions)
        self._waist.forwards += len(canvas)
        if scores.ndim != 2 or len(scores) != len(canvas) or scores.shape[1] < self._width:
            raise ModelOutputError(
                f"the model returned scores of shape {tuple(scores.shape)}, expected ({len(canvas)}, {self._width})"
            )
        scores = scores[:, : self._width].float()
        _refuse(~(scores.isfinite() | self._padding).all(1), "the model returned NaN or infinite scores")
        return scores.masked_fill(self._padding, -torch.inf).log_softmax(1)

    def take(self, rows: Sequence[int]) -> Classify:
        return _BoundClassify(self._waist, tuple(self._questions[row] for row in rows))


class _BoundVote:
    def __init__(self, waist: Waist, question: Question) -> None:
        self._waist = waist
        self._question = question
        self.classes = len(question.options) + 1

    @torch.no_grad()
    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        if not hasattr(self._waist.scorer, "vote"):
            return self._waist.classify([self._question] * len(canvas))(canvas).argmax(1)
        votes: torch.Tensor = self._waist.scorer.vote(canvas, self._question)
        self._waist.forwards += len(canvas)
        if votes.shape != (len(canvas),) or votes.is_floating_point():
            raise ModelOutputError(f"the model returned votes of shape {tuple(votes.shape)} and type {votes.dtype}")
        _refuse((votes < 0) | (votes >= self.classes), f"the model voted outside [0, {self.classes - 1}]")
        return votes


def _refuse(broken: torch.Tensor, what: str) -> None:
    if bool(broken.any()):
        rows = broken.nonzero().flatten().tolist()
        raise ModelOutputError(f"{what} for {len(rows)} of {len(broken)} rows", rows)
