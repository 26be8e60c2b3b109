"""The narrow waist: Classify and Vote over any model, with the contract enforced at every call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol, Self

import torch
from PIL import Image

from safemed_eval.core import Answers, Classify, Need, Question, Vote
from safemed_eval.errors import CheckpointError, ModelOutputError, SafemedError
from safemed_eval.faults import faults_of_the_model, place_of
from safemed_eval.models.answers import curtail, parse, retell

Denoise = Callable[[torch.Tensor], torch.Tensor]
"""(B, 3, H, W) float32 -> the same shape and type: row by row, differentiable, and not written into its input."""

_NOT_FINITE = "the model returned NaN or infinite scores"
_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


class Scorer(Protocol):
    """What a model family, or your own factory (`--model python:module:factory`), has to provide.

    A model that only votes leaves `scores` out and has `vote(canvas, question)` instead, (B, 3, H, W) -> (B,) int64 in
    [0, K], K for "no answer": it can be answered with and certified, but not attacked. One that writes has
    `write(canvas, questions)` -> B texts; they are its answers and votes; `scores`, if it has that too, is attacked,
    and `text_log_probs(canvas, questions, texts)` -> (B,), the mean log-probability of each text's tokens, by the
    adaptive attack. One that decides on an option after it has written has `decide(canvas, questions)` -> Answers with
    texts, too, and `read(text, question)`, which finds the option in such a text.
    """

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """(B, 3, H, W) float32 pixels and one question per row -> (B, >= K) float scores, the higher the likelier.

        Pixels are in [0, 1], or beyond it under noise. Must be differentiable in `canvas` to be attacked. A softmax
        over the row's own K options follows, so log-probabilities and logits both serve.
        """
        ...


class Waist:
    """A loaded model, seen through its two functions.

    Attributes:
        scorer: the model behind the waist.
        device: where canvases must be.
        denoiser: what every canvas goes through before the scorer is shown it, in all but `official`; None: nothing.
        forwards: images that have gone through the model so far.
    """

    def __init__(self, scorer: Any, device: torch.device, denoiser: Denoise | None = None) -> None:
        self.scorer = scorer
        self.device = device
        self.denoiser = denoiser
        self.forwards = 0

    @property
    def device_name(self) -> str:
        """The accelerator's name, or "cpu"."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @property
    def differentiable(self) -> bool:
        """False for a model that only votes."""
        return hasattr(self.scorer, "scores")

    @property
    def writes(self) -> bool:
        """True for a model that answers with a text."""
        return hasattr(self.scorer, "write")

    @property
    def reasons(self) -> bool:
        """True for a model that writes, and says how likely a given text is."""
        return self.writes and self.differentiable and hasattr(self.scorer, "text_log_probs")

    def lacks(self, need: Need) -> str | None:
        """Why this cannot be had of the model, as the end of "the model ..."; None where it can.

        Of gradients this says no more than of scores: whether they reach the pixels is seen when one is taken.
        """
        if need == "texts":
            if not self.writes:
                return "does not write"
            return None if self.reasons else "does not say how likely a text is"
        if self.differentiable:
            return None
        return "only writes" if self.writes else "only votes"

    def classify(self, questions: Sequence[Question], at_once: int | None = None) -> Classify:
        """Option log-probabilities, bound to one question per row; `Reasons` for a model that writes.

        Args:
            at_once: how many rows fit into memory together, for attacks that are bound to more; see `Attack.refills`.
        """
        return (_BoundReasons if self.reasons else _BoundClassify)(self, tuple(questions), at_once)

    def vote(self, question: Question) -> Vote:
        """Answers to one question: what the model writes, its own `vote`, or the likeliest option."""
        return _BoundVote(self, question)

    @torch.no_grad()
    def answer(self, canvas: torch.Tensor, questions: Sequence[Question]) -> Answers:
        """The answer to each row's own question, with log-probabilities where the model has them."""
        if self.writes:
            shown = self.denoised(canvas)
            with _asked(shown):
                if hasattr(self.scorer, "decide"):
                    answers: Answers = self.scorer.decide(shown, questions)
                else:
                    answers = _read(self.scorer.write(shown, questions), questions)
            self.forwards += len(canvas)
            return answers
        if self.differentiable:
            return _likeliest(self.classify(questions)(canvas), questions)
        votes = [int(self.vote(q)(row[None])) for row, q in zip(canvas, questions, strict=True)]
        counts = [len(q.options) for q in questions]
        return Answers(predictions=[v if v < k else None for v, k in zip(votes, counts, strict=True)])

    def denoised(self, canvas: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 -> what the scorer is shown of it, the same shape and type.

        Raises:
            ModelOutputError: the denoiser raised, wrote into the canvas, or gave something else, NaN or infinity.
        """
        if self.denoiser is None:
            return canvas
        with _asked(canvas, "denoiser"):
            found = _tensor(self.denoiser(canvas), "pixels", "denoiser")
        if (found.shape, found.dtype, found.device) != (canvas.shape, canvas.dtype, canvas.device):
            raise ModelOutputError(f"the denoiser returned {_kind(found)}, expected {_kind(canvas)}")
        _refuse(~found.isfinite().flatten(1).all(1), "the denoiser returned NaN or infinite pixels")
        return found

    def refuse_scores(self, canvas: torch.Tensor, question: Question, broken: int, rows: int) -> NoReturn:
        """Raise ModelOutputError: scores are not finite. Names the image processor where that is at fault."""
        if hasattr(self.scorer, "refuse_pixels"):
            self.scorer.refuse_pixels(self.denoised(canvas), question)
        raise ModelOutputError(f"{_NOT_FINITE} for {broken} of {rows} rows")

    @torch.no_grad()
    def official(self, image: Image.Image, question: Question) -> Answers:
        """The answer through the checkpoint's untouched path: 8-bit image at its own size, model with its full head.

        No denoiser stands before it.
        """
        self.forwards += 1
        with faults_of_the_model():
            if hasattr(self.scorer, "official_decide"):
                decided: Answers = self.scorer.official_decide(image, question)
                return decided
            if self.writes:
                return _read([self.scorer.official_write(image, question)], [question])
            scores: torch.Tensor = self.scorer.official_scores(image, question)
        _refuse(~scores.isfinite().all(keepdim=True), _NOT_FINITE)
        return _likeliest(scores.log_softmax(0)[None], [question])

    def describe(self, question: Question) -> dict[str, Any]:
        """What the model says of itself for `run.json`, with this question as an example of its prompt."""
        found: dict[str, Any] = {"device": self.device_name}
        if hasattr(self.scorer, "describe"):
            try:
                found |= json.loads(json.dumps(self.scorer.describe(question)))
            except SafemedError:
                raise
            except Exception as error:
                raise CheckpointError(
                    f"the model's describe(question) gives no JSON object: {place_of(error)}"
                ) from error
        return found


class _BoundClassify:
    def __init__(self, waist: Waist, questions: tuple[Question, ...], at_once: int | None = None) -> None:
        self._waist = waist
        self._questions = questions
        self.at_once = at_once
        counts = torch.tensor([len(q.options) for q in questions], device=waist.device)
        self._width = max(len(q.options) for q in questions)
        self._padding = torch.arange(self._width, device=waist.device) >= counts.unsqueeze(1)

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        log_probs, broken = self.unchecked(canvas)
        if bad := int(broken.sum()):
            self._waist.refuse_scores(canvas, self._questions[0], bad, len(canvas))
        return log_probs

    def unchecked(self, canvas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities, and (B,) which rows are not finite; not refused yet: nobody waits for a device."""
        if len(canvas) != len(self._questions):
            raise ValueError(f"{len(canvas)} canvases for {len(self._questions)} questions")
        shown = self._waist.denoised(canvas)
        with _asked(shown):
            scores = _tensor(self._waist.scorer.scores(shown, self._questions), "scores")
        self._waist.forwards += len(canvas)
        return self._log_probs(canvas, scores)

    def _log_probs(self, canvas: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if scores.ndim != 2 or len(scores) != len(canvas) or scores.shape[1] < self._width:
            raise ModelOutputError(
                f"the model returned scores of shape {tuple(scores.shape)}, expected ({len(canvas)}, {self._width})"
            )
        log_probs = scores[:, : self._width].float().masked_fill(self._padding, -torch.inf).log_softmax(1)
        return log_probs, ~(log_probs.isfinite() | self._padding).all(1)

    def __len__(self) -> int:
        return len(self._questions)

    def take(self, rows: Sequence[int]) -> Self:
        return type(self)(self._waist, tuple(self._questions[row] for row in rows))


class _BoundReasons(_BoundClassify):
    def write(self, canvas: torch.Tensor) -> list[str]:
        texts = self._waist.answer(canvas, self._questions).texts
        assert texts is not None
        return texts

    def read(self, texts: Sequence[str]) -> list[int | None]:
        read = getattr(self._waist.scorer, "read", parse)
        return [read(text, question) for text, question in zip(texts, self._questions, strict=True)]

    def retell(self, texts: Sequence[str], options: Sequence[int]) -> list[str]:
        rows = zip(texts, self._questions, options, strict=True)
        return [retell(text, question, option) for text, question, option in rows]

    def curtail(self, texts: Sequence[str], options: Sequence[int]) -> list[str]:
        rows = zip(texts, self._questions, options, strict=True)
        return [curtail(text, question, option) for text, question, option in rows]

    def after(self, canvas: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        scorer = self._waist.scorer
        if hasattr(scorer, "scores_after"):
            shown = self._waist.denoised(canvas)
            with _asked(shown):
                scores = _tensor(scorer.scores_after(shown, self._questions, texts), "scores")
            self._waist.forwards += len(canvas)
        else:  # the text with each letter in turn: what they have in common cancels out
            scores = torch.stack([self.likelihood(canvas, self._lettered(texts, i)) for i in range(self._width)], 1)
        log_probs, broken = self._log_probs(canvas, scores)
        _refuse(broken, _NOT_FINITE)
        return log_probs

    def _lettered(self, texts: Sequence[str], option: int) -> list[str]:
        """Each text with the letter of this option as its answer; of the row's last one where it has fewer."""
        rows = zip(texts, self._questions, strict=True)
        return [retell(text, q, min(option, len(q.options) - 1), bent=False) for text, q in rows]

    def likelihood(self, canvas: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        shown = self._waist.denoised(canvas)
        with _asked(shown):
            found = _tensor(self._waist.scorer.text_log_probs(shown, self._questions, texts), "log-probabilities")
        self._waist.forwards += len(canvas)
        if found.shape != (len(canvas),):
            raise ModelOutputError(f"the model returned log-probabilities of texts of shape {tuple(found.shape)}")
        _refuse(~found.isfinite(), "the model returned NaN or infinite log-probabilities of texts")
        return found.float()


class _BoundVote:
    def __init__(self, waist: Waist, question: Question) -> None:
        self._waist = waist
        self._question = question
        self._bound: _BoundClassify | None = None
        self.classes = len(question.options) + 1

    @torch.no_grad()
    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        return self._scored(canvas)(canvas).argmax(1) if self._scores else self._voted(canvas)

    @torch.no_grad()
    def count(self, batches: Iterable[torch.Tensor]) -> tuple[int, ...]:
        bad = self.classes  # one place more, for rows that are NaN: to refuse them at once is to wait for the device
        counts = torch.zeros(bad + 1, dtype=torch.int64, device=self._waist.device)
        for canvas in batches:
            if self._scores:
                log_probs, broken = self._scored(canvas).unchecked(canvas)
                votes = log_probs.argmax(1).masked_fill(broken, bad)
            else:
                votes = self._voted(canvas)
            counts.index_add_(0, votes, torch.ones_like(votes))  # bincount would wait, too
        *found, lost = counts.tolist()
        if lost:
            self._waist.refuse_scores(canvas, self._question, lost, sum(found) + lost)
        return tuple(found)

    @property
    def _scores(self) -> bool:
        return not self._waist.writes and not hasattr(self._waist.scorer, "vote")

    def _scored(self, canvas: torch.Tensor) -> _BoundClassify:
        if self._bound is None or len(self._bound) != len(canvas):
            self._bound = _BoundClassify(self._waist, (self._question,) * len(canvas))
        return self._bound

    def _voted(self, canvas: torch.Tensor) -> torch.Tensor:
        if self._waist.writes:
            found = self._waist.answer(canvas, [self._question] * len(canvas)).predictions
            none = self.classes - 1
            return torch.tensor([none if one is None else one for one in found], device=canvas.device)
        shown = self._waist.denoised(canvas)
        with _asked(shown):
            votes = _tensor(self._waist.scorer.vote(shown, self._question), "votes")
        self._waist.forwards += len(canvas)
        if votes.shape != (len(canvas),) or votes.dtype not in _INTEGERS:
            raise ModelOutputError(f"the model returned votes of shape {tuple(votes.shape)} and type {votes.dtype}")
        _refuse((votes < 0) | (votes >= self.classes), f"the model voted outside [0, {self.classes - 1}]")
        return votes.long()


@contextmanager
def _asked(canvas: torch.Tensor, who: str = "model") -> Iterator[None]:
    """What the model raises is its rows' fault, and so is writing into the canvas, which others still need."""
    version = canvas._version
    with faults_of_the_model(f"the {who}"):
        yield
    if canvas._version != version:
        raise ModelOutputError(f"the {who} writes into its input; let it work on a copy")


def _tensor(found: Any, what: str, who: str = "model") -> torch.Tensor:
    if not isinstance(found, torch.Tensor) or found.is_complex() or found.layout != torch.strided or found.is_meta:
        kind = f"{found.dtype} {found.layout}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise ModelOutputError(f"the {who} returned {what} of type {kind}, expected a dense real tensor")
    return found


def _kind(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"


def _read(texts: Sequence[str], questions: Sequence[Question]) -> Answers:
    if len(texts) != len(questions) or not all(isinstance(text, str) for text in texts):
        raise ModelOutputError(f"the model wrote {len(texts)} answers to {len(questions)} questions, or not texts")
    found = [parse(text, question) for text, question in zip(texts, questions, strict=True)]
    return Answers(predictions=found, texts=list(texts))


def _likeliest(log_probs: torch.Tensor, questions: Sequence[Question]) -> Answers:
    rows = [row[: len(q.options)] for row, q in zip(log_probs.cpu(), questions, strict=True)]
    return Answers(predictions=[int(row.argmax()) for row in rows], log_probs=[row.tolist() for row in rows])


def _refuse(broken: torch.Tensor, what: str) -> None:
    if bool(broken.any()):
        raise ModelOutputError(f"{what} for {int(broken.sum())} of {len(broken)} rows")
