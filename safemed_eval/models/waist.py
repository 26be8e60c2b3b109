"""The narrow waist: Classify and Vote over any model, with the contract enforced at every call."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import islice
from typing import Any, NoReturn, Self

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from safemed_eval.core import Answers, Classify, Need, Order, Question, Vote
from safemed_eval.errors import CheckpointError, ModelOutputError, SafemedError
from safemed_eval.faults import faults_of_the_model, place_of
from safemed_eval.models.answers import curtail, parse, retell
from safemed_eval.models.outputs import (
    NOT_FINITE,
    as_tensor,
    guarded,
    likeliest,
    parsed,
    refuse_other_kind,
    refuse_rows,
)
from safemed_eval.models.scorer import Scores, TextLogProbs, Votes, capabilities

Denoise = Callable[[torch.Tensor], torch.Tensor]
"""(B, 3, H, W) float32 -> the same shape and type: row by row, differentiable, and not written into its input."""

_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


class Waist:
    """A loaded model, seen through its two functions.

    Args:
        scorer: the model; see `scorer.Scorer` for the methods that it may have. They are looked up here, once.

    Attributes:
        device: where canvases must be.
        denoiser: transforms every canvas before the scorer gets it, except in `official`; None leaves it as it is.
        forwards: images that have gone through the model so far.
        offers: the scorer under each of the protocols that it fulfils.
    """

    front: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Transforms every canvas before the denoiser gets it, see `behind`; None leaves it as it is."""

    def __init__(self, scorer: Any, device: torch.device, denoiser: Denoise | None = None) -> None:
        self.scorer = scorer
        self.device = device
        self.denoiser = denoiser
        self.forwards = 0
        self.offers = capabilities(scorer)

    def behind(self, front: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """Return the same model behind a map, (B, 3, H, W) -> (B, 3, h, w), row by row, that `official` goes without.

        It counts its `forwards` by itself.
        """
        model = copy(self)
        model.front = front
        return model

    @property
    def device_name(self) -> str:
        """The accelerator's name, or "cpu"."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @property
    def fill(self) -> tuple[float, float, float]:
        """The colour in [0, 1] units that says least to the model: what it normalises to 0, else the middle grey."""
        named = self.offers.mean_colour
        return (named.mean_colour if named else None) or (0.5, 0.5, 0.5)

    @property
    def differentiable(self) -> bool:
        """True for a model that scores options; False for one that only votes or writes."""
        return self.offers.scores is not None

    @property
    def writes(self) -> bool:
        """True for a model that answers with a text."""
        return self.offers.writes is not None

    @property
    def reasons(self) -> bool:
        """True for a model that writes, scores options, and tells how likely a given text is."""
        return self.writes and self.differentiable and self.offers.text_log_probs is not None

    def lacks(self, need: Need) -> str | None:
        """Say why the model cannot serve a need, as the end of "the model ..."; None if it can.

        For gradients only the presence of scores is checked: whether they reach the pixels shows when one is taken.
        """
        if need == "votes":
            return None
        if need == "texts":
            if not self.writes:
                return "does not write"
            return None if self.reasons else "does not say how likely a text is"
        if need == "features":
            return None if self.offers.features is not None else "has no method 'features'"
        if self.differentiable:
            return None
        return "only writes" if self.writes else "only votes"

    def classify(self, questions: Sequence[Question], at_once: int | None = None) -> Classify:
        """Option log-probabilities, bound to one question per row.

        Args:
            at_once: how many rows fit into memory together, for attacks that are bound to more; see `Attack.refills`.
        Returns:
            `Reasons` for a model that writes and scores, `Decides` for one without scores.
        """
        if not self.differentiable:
            return _BoundDecides(self, tuple(questions), at_once)
        return (_BoundReasons if self.reasons else _BoundClassify)(self, tuple(questions), at_once)

    def features(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """Compute the features that scores are read from: (B, 3, H, W) -> (B, D) float32, differentiable.

        Raises:
            CheckpointError: the model does not show its features.
            ModelOutputError: they are not finite, or not one row for each canvas.
        """
        if self.offers.features is None:
            raise CheckpointError(f"the model {self.lacks('features')}")
        shown = self.denoised(canvas)
        with guarded(shown):
            features = as_tensor(self.offers.features.features(shown, questions), "features")
        self.forwards += len(canvas)
        if features.ndim != 2 or len(features) != len(canvas):
            raise ModelOutputError(
                f"the model returned features of shape {tuple(features.shape)}, expected ({len(canvas)}, D)"
            )
        refuse_rows(~features.isfinite().all(1), "the model returned NaN or infinite features")
        return features.float()

    def vote(self, question: Question) -> Vote:
        """Answers to one question: from the model's texts, its own `vote`, or its likeliest option."""
        return _BoundVote(self, question)

    @torch.no_grad()
    def answer(self, canvas: torch.Tensor, questions: Sequence[Question]) -> Answers:
        """Answer one question per row, with log-probabilities where the model has them."""
        if (writer := self.offers.writes) is not None:
            shown = self.denoised(canvas)
            with guarded(shown):
                if self.offers.decides is not None:
                    answers = self.offers.decides.decide(shown, questions)
                else:
                    answers = parsed(writer.write(shown, questions), questions)
            self.forwards += len(canvas)
            return answers
        if self.differentiable:
            return likeliest(self.classify(questions)(canvas), questions)
        votes = [int(self.vote(q)(row[None])) for row, q in zip(canvas, questions, strict=True)]
        counts = [len(q.options) for q in questions]
        return Answers(predictions=[v if v < k else None for v, k in zip(votes, counts, strict=True)])

    def denoised(self, canvas: torch.Tensor) -> torch.Tensor:
        """Apply the denoiser: (B, 3, H, W) float32 -> the same type, and the same shape unless there is a `front`.

        Gradients go straight through a denoiser that cuts the graph, as if it were the identity: BPDA, Athalye et al.
        2018 (arXiv:1802.00420). An attack that took its word for it would find nothing.

        Raises:
            ModelOutputError: the denoiser raised, wrote into the canvas, or returned something else, NaN or infinity.
        """
        if self.front is not None:
            canvas = self.front(canvas)
        if self.denoiser is None:
            return canvas
        with guarded(canvas, "denoiser"):
            pixels = as_tensor(self.denoiser(canvas), "pixels", "denoiser")
        refuse_other_kind(pixels, canvas, "denoiser")
        refuse_rows(~pixels.isfinite().flatten(1).all(1), "the denoiser returned NaN or infinite pixels")
        if canvas.requires_grad and torch.is_grad_enabled() and not pixels.requires_grad:
            return pixels + (canvas - canvas.detach())  # the very same values
        return pixels

    def refuse_scores(self, canvas: torch.Tensor, question: Question, broken: int, rows: int) -> NoReturn:
        """Raise ModelOutputError: scores are not finite. Names the image processor where that is at fault."""
        if self.offers.checkpoint is not None:
            self.offers.checkpoint.refuse_pixels(self.denoised(canvas), question)
        raise ModelOutputError(f"{NOT_FINITE} for {broken} of {rows} rows")

    @torch.no_grad()
    def official(self, image: Image.Image, question: Question) -> Answers:
        """Answer through the checkpoint's untouched path: 8-bit image at its own size, model with its full head.

        No denoiser is applied.
        """
        self.forwards += 1
        with faults_of_the_model():
            if self.offers.official_answer is not None:
                return self.offers.official_answer.official_answer(image, question)
            if self.offers.official_scores is None:
                raise CheckpointError("the model has no official 8-bit path")
            scores = as_tensor(self.offers.official_scores.official_scores(image, question), "official scores")
        return _likeliest_of(scores, question, "official scores")

    @torch.no_grad()
    def without_image(self, question: Question) -> Answers:
        """Answer a question without any image.

        Raises:
            CheckpointError: the model, or its processor, takes no prompt without an image.
        """
        if self.offers.answer_without_image is not None:
            answers = self.offers.answer_without_image.answer_without_image(question)
        elif self.offers.scores_without_image is not None:
            scores = as_tensor(self.offers.scores_without_image.scores_without_image(question), "scores")
            answers = _likeliest_of(scores.float(), question, "scores")
        else:
            raise CheckpointError("the model has no path without an image")
        self.forwards += 1
        return answers

    def describe(self, question: Question) -> dict[str, Any]:
        """Describe the model for `run.json`, with this question as an example of its prompt."""
        device = {"device": self.device_name}
        if self.offers.describes is None:
            return device
        try:
            about: dict[str, Any] = json.loads(json.dumps(self.offers.describes.describe(question)))
            return device | about
        except SafemedError:
            raise
        except Exception as error:
            raise CheckpointError(f"the model's describe(question) gives no JSON object: {place_of(error)}") from error


def _likeliest_of(scores: torch.Tensor, question: Question, what: str) -> Answers:
    """Answer one question from the scores of its options; raises ModelOutputError unless they are (K,) and finite."""
    options = len(question.options)
    if scores.shape != (options,):
        raise ModelOutputError(f"the model returned {what} of shape {tuple(scores.shape)}, expected ({options},)")
    refuse_rows(~scores.isfinite().all(keepdim=True), NOT_FINITE)
    return likeliest(scores.log_softmax(0)[None], [question])


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
        """Compute log-probabilities, and (B,) which rows are not finite.

        Broken rows are not refused yet: that would wait for the device.
        """
        if len(canvas) != len(self._questions):
            raise ValueError(f"{len(canvas)} canvases for {len(self._questions)} questions")
        shown = self._waist.denoised(canvas)
        with guarded(shown):
            returned = self._scorer.scores(shown, self._questions)
            scores = self._padded(returned) if isinstance(returned, (list, tuple)) else as_tensor(returned, "scores")
        self._waist.forwards += len(canvas)
        return self._log_probs(canvas, scores)

    @property
    def _scorer(self) -> Scores:
        if self._waist.offers.scores is None:
            raise CheckpointError("the model has no 'scores'")
        return self._waist.offers.scores

    def _log_probs(self, canvas: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if scores.ndim != 2 or len(scores) != len(canvas) or scores.shape[1] < self._width:
            raise ModelOutputError(
                f"the model returned scores of shape {tuple(scores.shape)}, expected ({len(canvas)}, {self._width})"
            )
        log_probs = scores[:, : self._width].float().masked_fill(self._padding, -torch.inf).log_softmax(1)
        return log_probs, ~(log_probs.isfinite() | self._padding).all(1)

    def _padded(self, rows: Sequence[object]) -> torch.Tensor:
        """Join rows of scores to one tensor, (B, K): a row may end at its own question's last option."""
        if len(rows) != len(self._questions):
            raise ModelOutputError(
                f"the model returned {len(rows)} rows of scores for {len(self._questions)} questions"
            )
        tensors = []
        for number, (returned, question) in enumerate(zip(rows, self._questions, strict=True)):
            row = as_tensor(returned, "a row of scores")
            if row.ndim != 1 or len(row) < len(question.options):
                raise ModelOutputError(
                    f"the model returned a row {number} of scores of shape {tuple(row.shape)}, expected "
                    f"({len(question.options)},)"
                )
            tensors.append(row[: self._width].float())
        return pad_sequence(tensors, batch_first=True, padding_value=-torch.inf)

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
        read = parse if self._waist.offers.reads is None else self._waist.offers.reads.read
        return [read(text, question) for text, question in zip(texts, self._questions, strict=True)]

    def retell(self, texts: Sequence[str], options: Sequence[int]) -> list[str]:
        rows = zip(texts, self._questions, options, strict=True)
        return [retell(text, question, option) for text, question, option in rows]

    def curtail(self, texts: Sequence[str], options: Sequence[int]) -> list[str]:
        rows = zip(texts, self._questions, options, strict=True)
        return [curtail(text, question, option) for text, question, option in rows]

    def after(self, canvas: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        if (scorer := self._waist.offers.scores_after) is not None:
            shown = self._waist.denoised(canvas)
            with guarded(shown):
                scores = as_tensor(scorer.scores_after(shown, self._questions, texts), "scores")
            self._waist.forwards += len(canvas)
        else:  # each text with each letter in turn: what the texts share cancels out in the softmax
            scores = torch.stack([self.likelihood(canvas, self._lettered(texts, i)) for i in range(self._width)], 1)
        log_probs, broken = self._log_probs(canvas, scores)
        refuse_rows(broken, NOT_FINITE)
        return log_probs

    def _lettered(self, texts: Sequence[str], option: int) -> list[str]:
        """Give each text the letter of this option as its answer, or of its last option where it has fewer."""
        rows = zip(texts, self._questions, strict=True)
        return [retell(text, q, min(option, len(q.options) - 1), bent=False) for text, q in rows]

    def likelihood(self, canvas: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        shown = self._waist.denoised(canvas)
        with guarded(shown):
            log_probs = as_tensor(self._forced.text_log_probs(shown, self._questions, texts), "log-probabilities")
        self._waist.forwards += len(canvas)
        if log_probs.shape != (len(canvas),):
            raise ModelOutputError(f"the model returned log-probabilities of texts of shape {tuple(log_probs.shape)}")
        refuse_rows(~log_probs.isfinite(), "the model returned NaN or infinite log-probabilities of texts")
        return log_probs.float()

    @property
    def _forced(self) -> TextLogProbs:
        assert self._waist.offers.text_log_probs is not None
        return self._waist.offers.text_log_probs


class _BoundDecides(_BoundClassify):
    @property
    def options(self) -> tuple[int, ...]:
        return tuple(len(question.options) for question in self._questions)

    @torch.no_grad()
    def decide(self, canvas: torch.Tensor) -> torch.Tensor:
        classes = torch.empty(len(canvas), dtype=torch.int64, device=canvas.device)
        for question in dict.fromkeys(self._questions):
            rows = [row for row, asked in enumerate(self._questions) if asked == question]
            classes[rows] = self._waist.vote(question)(canvas[rows])
        return classes


class _BoundVote:
    def __init__(self, waist: Waist, question: Question) -> None:
        self._waist = waist
        self._question = question
        self._bound: _BoundClassify | None = None
        self.classes = len(question.options) + 1

    @torch.no_grad()
    def __call__(self, canvas: torch.Tensor, orders: Sequence[Order] | None = None) -> torch.Tensor:
        places = self._scored(canvas, orders)(canvas).argmax(1) if self._by_scores else self._voted(canvas, orders)
        return self._options_in(places, orders)

    @torch.no_grad()
    def count(self, batches: Iterable[torch.Tensor], orders: Iterable[Order] | None = None) -> tuple[int, ...]:
        bad = self.classes  # one further place for rows that are NaN: refusing them at once would wait for the device
        counts = torch.zeros(bad + 1, dtype=torch.int64, device=self._waist.device)
        remaining = None if orders is None else iter(orders)
        for canvas in batches:
            asked = None if remaining is None else list(islice(remaining, len(canvas)))
            if self._by_scores:
                log_probs, broken = self._scored(canvas, asked).unchecked(canvas)
                votes = self._options_in(log_probs.argmax(1), asked).masked_fill(broken, bad)
            else:
                votes = self._options_in(self._voted(canvas, asked), asked)
            counts.index_add_(0, votes, torch.ones_like(votes))  # bincount would wait, too
        *by_class, lost = counts.tolist()
        if lost:
            self._waist.refuse_scores(canvas, self._question, lost, sum(by_class) + lost)
        return tuple(by_class)

    @property
    def _by_scores(self) -> bool:
        return self._waist.offers.writes is None and self._waist.offers.votes is None

    def _asked(self, rows: int, orders: Sequence[Order] | None) -> tuple[Question, ...]:
        """The question of each row, with its options in that row's order."""
        return (self._question,) * rows if orders is None else tuple(map(self._question.reordered, orders))

    def _options_in(self, places: torch.Tensor, orders: Sequence[Order] | None) -> torch.Tensor:
        """The options that stand in these places of their rows' orders; "no answer" stays. Does not wait."""
        if orders is None:
            return places
        table = torch.tensor([[*order, self.classes - 1] for order in orders])
        return table.to(places.device, non_blocking=True).gather(1, places.unsqueeze(1)).squeeze(1)

    def _scored(self, canvas: torch.Tensor, orders: Sequence[Order] | None) -> _BoundClassify:
        if orders is not None:
            return _BoundClassify(self._waist, self._asked(len(canvas), orders))
        if self._bound is None or len(self._bound) != len(canvas):
            self._bound = _BoundClassify(self._waist, self._asked(len(canvas), None))
        return self._bound

    def _voted(self, canvas: torch.Tensor, orders: Sequence[Order] | None) -> torch.Tensor:
        """The place of each row's answer in that row's order; K for "no answer"."""
        voter = self._waist.offers.votes
        if self._waist.writes or voter is None:
            predictions = self._waist.answer(canvas, self._asked(len(canvas), orders)).predictions
            none = self.classes - 1
            return torch.tensor([none if place is None else place for place in predictions], device=canvas.device)
        shown = self._waist.denoised(canvas)
        if orders is None:
            return self._votes_of(voter, shown, self._question)
        rows_by_order = defaultdict[tuple[int, ...], list[int]](list)
        for row, order in enumerate(orders):
            rows_by_order[tuple(order)].append(row)
        places = torch.empty(len(canvas), dtype=torch.int64, device=canvas.device)
        for order, rows in rows_by_order.items():
            places[rows] = self._votes_of(voter, shown[rows], self._question.reordered(order))
        return places

    def _votes_of(self, voter: Votes, shown: torch.Tensor, question: Question) -> torch.Tensor:
        """The model's own votes on one question, checked."""
        with guarded(shown):
            votes = as_tensor(voter.vote(shown, question), "votes")
        self._waist.forwards += len(shown)
        if votes.shape != (len(shown),) or votes.dtype not in _INTEGERS:
            raise ModelOutputError(f"the model returned votes of shape {tuple(votes.shape)} and type {votes.dtype}")
        refuse_rows((votes < 0) | (votes >= self.classes), f"the model voted outside [0, {self.classes - 1}]")
        return votes.long()
