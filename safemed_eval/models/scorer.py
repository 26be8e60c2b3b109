"""The methods that a model may have, as protocols: those of a user's own object, and those of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image

from safemed_eval.core import Answers, Question

ANSWERING = ("scores", "vote", "write")
"""The methods that answer a question; each of them is enough for a model."""


class ImageSize(NamedTuple):
    """How a canvas reaches a model: height and width in pixels, and as how many images of that size."""

    size: tuple[int, int]
    images: int


class Scorer(Protocol):
    """A model of your own: an object with at least one of `scores`, `vote` and `write`.

    No base class is needed: an object has a method, or it has not. Write one of these three:

    - `scores(canvas, questions)` returns a score for each option. It can be attacked and certified.
    - `vote(canvas, question)` returns the numbers of the chosen options. It can be evaluated and certified, and
      attacked by its decisions alone, but not with gradients or scores.
    - `write(canvas, questions)` returns texts, which are parsed like those of a checkpoint. A model that writes answers
      and votes with its texts; if it has `scores`, too, it is attacked on those.

    A model that writes may add `text_log_probs(canvas, questions, texts)`, which the adaptive attack needs. If it
    decides on an option after writing, it may add `decide(canvas, questions)`, which returns texts and predictions
    together, and `read(text, question)`, which finds the option in such a text. One with `scores` may add
    `features(canvas, questions)`, on which an attack is tested whether it can find anything. Any model may have
    `describe(question)`, which returns a JSON object for `run.json`, and `scores_without_image(question)`, (K,) scores
    for the text-only condition of `--grounding`.

    `canvas` is a (B, 3, H, W) float32 tensor of pixels in [0, 1], and beyond it under noise. It must not be written
    into. A question has `.text` and `.options`, a tuple of strings. Rows must be answered independently of each other.
    """


class Scores(Protocol):
    """A model that scores the options of a question."""

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor | Sequence[torch.Tensor]:
        """Score the options of one question per row; a higher score means a likelier option.

        Must be differentiable in `canvas` to be attacked with gradients. A softmax over the row's own K options
        follows, so both log-probabilities and logits will do.

        Returns:
            (B, K) floats, K being the largest number of options in the batch; or B rows, each (K_i,), where questions
            have different numbers of options.
        """
        ...


class Features(Protocol):
    """A model that shows the features that its scores are read from."""

    def features(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """Return (B, D) floats, the input of the last layer, differentiable in `canvas` as the scores are.

        Rows are independent of each other. D should be well above 10; see `runs.work.planted`.
        """
        ...


class Votes(Protocol):
    """A model that only tells which option it chooses."""

    def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
        """Return (B,) integers in [0, K]: the chosen option of each row; K means "no answer"."""
        ...


class Writes(Protocol):
    """A model that answers with a text."""

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> Sequence[str]:
        """Return B texts, the answers to one question per row."""
        ...


class TextLogProbs(Protocol):
    """A model that tells how likely it is to write a given text."""

    def text_log_probs(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        """Return (B,) mean log-probabilities of the tokens of each row's text, differentiable in `canvas`."""
        ...


class ScoresAfter(Protocol):
    """A model that scores the options after a given thought."""

    def scores_after(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        """Return (B, K) scores of the options after the thought in each row's text, differentiable in `canvas`."""
        ...


class Decides(Protocol):
    """A model that decides on an option after it has written."""

    def decide(self, canvas: torch.Tensor, questions: Sequence[Question]) -> Answers:
        """Return predictions and texts of B rows, with log-probabilities where it has them."""
        ...


class Reads(Protocol):
    """A model that finds the chosen option in its own texts."""

    def read(self, text: str, question: Question) -> int | None:
        """Return the option that a text answers with; None means no answer."""
        ...


class Describes(Protocol):
    """A model that describes itself for `run.json`."""

    def describe(self, question: Question) -> Mapping[str, Any]:
        """Return a JSON object, with this question as an example of a prompt."""
        ...


class OfficialScores(Protocol):
    """A model with an untouched path beside the float path."""

    def official_scores(self, image: Image.Image, question: Question) -> torch.Tensor:
        """Return (K,) scores of the options by the untouched path: 8-bit image, whole processor, full output head."""
        ...


class OfficialAnswer(Protocol):
    """A model that writes, and has an untouched path beside the float path."""

    def official_answer(self, image: Image.Image, question: Question) -> Answers:
        """Answer one question about an 8-bit image at its own size by the untouched path."""
        ...


class ScoresWithoutImage(Protocol):
    """A model that can be asked without an image."""

    def scores_without_image(self, question: Question) -> torch.Tensor:
        """Return (K,) scores of the options; raises CheckpointError where there is no such path."""
        ...


class AnswerWithoutImage(Protocol):
    """A model that writes, and can be asked without an image."""

    def answer_without_image(self, question: Question) -> Answers:
        """Answer one question; raises CheckpointError where there is no such path."""
        ...


class MeanColour(Protocol):
    """A model whose images are normalised."""

    @property
    def mean_colour(self) -> tuple[float, float, float] | None:
        """The colour in [0, 1] units that becomes 0; None: images are not normalised."""
        ...


class Checkpoint(Scores, Describes, OfficialScores, Protocol):
    """A transformers checkpoint: it can also be examined, proved, and asked through its untouched 8-bit path."""

    @property
    def shortcuts(self) -> Sequence[str]:
        """Names of the shortcuts that its forward takes."""
        ...

    @property
    def refused(self) -> Mapping[str, str]:
        """The other shortcuts, each with the reason why it is not taken."""
        ...

    def take_shortcuts(
        self, questions: Sequence[Question], size: tuple[int, int] | None, *, compiled: bool = False
    ) -> None:
        """Take those shortcuts from now on that are proved not to change the scores of such questions."""
        ...

    def askable(self, questions: Iterable[Question]) -> list[Question]:
        """Return those of the questions that hold no control token of the checkpoint."""
        ...

    @property
    def is_half(self) -> bool:
        """True if any weight is a 16-bit float."""
        ...

    def exact(self) -> AbstractContextManager[Checkpoint]:
        """Hold the same model in float32 inside a block; raises CheckpointError where that is impossible."""
        ...

    @property
    def unthinking(self) -> Checkpoint:
        """The same checkpoint without the thought that it writes before an answer."""
        ...

    def letter_names(self, count: int) -> list[str]:
        """Return the tokens of the first option letters as the tokenizer writes them."""
        ...

    def refuse_pixels(self, canvas: torch.Tensor, question: Question) -> None:
        """Raise ModelOutputError if the image processor turns a canvas into NaN or infinity."""
        ...

    def refuse_8_bit_only(self, clean: torch.Tensor, noisy: torch.Tensor, question: Question) -> None:
        """Raise CheckpointError if the image processor takes 8-bit images only."""
        ...

    def image_size(self, canvas: torch.Tensor, question: Question) -> ImageSize | None:
        """Return the size at which the image processor hands a canvas to the model; None: its output does not tell."""
        ...

    def image_inputs(self, canvas: torch.Tensor, question: Question) -> tuple[str, torch.Tensor, torch.Tensor]:
        """Return the name of the model's image input, and its values by the 8-bit path and by the float path."""
        ...


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """The same model under each protocol that it fulfils; None where it does not."""

    scores: Scores | None
    features: Features | None
    votes: Votes | None
    writes: Writes | None
    text_log_probs: TextLogProbs | None
    scores_after: ScoresAfter | None
    decides: Decides | None
    reads: Reads | None
    describes: Describes | None
    official_scores: OfficialScores | None
    official_answer: OfficialAnswer | None
    scores_without_image: ScoresWithoutImage | None
    answer_without_image: AnswerWithoutImage | None
    mean_colour: MeanColour | None
    checkpoint: Checkpoint | None


def capabilities(model: Any) -> Capabilities:
    """Find out which of the protocols an object fulfils, by the names of its methods."""

    def if_it_has(*methods: str) -> Any:
        return model if all(hasattr(model, method) for method in methods) else None

    return Capabilities(
        scores=if_it_has("scores"),
        features=if_it_has("features"),
        votes=if_it_has("vote"),
        writes=if_it_has("write"),
        text_log_probs=if_it_has("text_log_probs"),
        scores_after=if_it_has("scores_after"),
        decides=if_it_has("decide"),
        reads=if_it_has("read"),
        describes=if_it_has("describe"),
        official_scores=if_it_has("official_scores"),
        official_answer=if_it_has("official_answer"),
        scores_without_image=if_it_has("scores_without_image"),
        answer_without_image=if_it_has("answer_without_image"),
        mean_colour=if_it_has("mean_colour"),
        checkpoint=if_it_has("scores", "describe", "take_shortcuts", "askable", "exact", "image_inputs"),
    )
