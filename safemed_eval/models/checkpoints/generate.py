"""Checkpoints that write their answer, or the thought before it: greedily, or sampled with seeded noise per row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from transformers import GenerationConfig

from safemed_eval.core import Answers, Question
from safemed_eval.errors import CheckpointError, ModelOutputError
from safemed_eval.models.answers import CLOSING_TAG, OPENING_TAG, parse
from safemed_eval.models.checkpoints.processor import official_inputs
from safemed_eval.models.checkpoints.prompts import Asking, answers_first, opens_answer
from safemed_eval.models.checkpoints.protocols import Network, Processor, Tensors
from safemed_eval.models.checkpoints.thoughts import CLOSE, is_open
from safemed_eval.models.checkpoints.vlm import VLM
from safemed_eval.seeds import generator

_READS_AHEAD, _READS_AHEAD_HALF = 1e-3, 0.05
"""Differences of log-probabilities that rounding does not explain, in float32 and in half precision."""


class Writer(VLM):
    """Writes an answer to a question; the option letters can still be scored, for attacks.

    The checkpoint's own generation settings (sampling, penalties) are disregarded. The rows of a batch are decoded
    together with a KV cache. Each ends at its closing answer tag, at `max_new_tokens`, or at the end of its turn; see
    `Turn` for that and for the marks of a thought.

    Sampling adds Gumbel noise to the logits divided by the temperature and takes the largest, which draws from their
    softmax. The noise is seeded by the seed, the question and the pixels of the row: a row gets the same answer in any
    batch, and every noisy copy of an image is an independent draw.
    """

    def __init__(self, model: Network, processor: Processor, asking: Asking) -> None:
        super().__init__(model, processor, asking)
        self._causal = False
        tokenizer = processor.tokenizer
        self._ends_turn = self.turn.ends(model.generation_config)
        self._decoding = GenerationConfig(
            do_sample=False,
            max_new_tokens=asking.max_new_tokens,
            bos_token_id=model.generation_config.bos_token_id,
            eos_token_id=self._ends_turn,
            pad_token_id=tokenizer.pad_token_id,
        )

    @torch.no_grad()
    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        """(B, 3, H, W) pixels in [0, 1] units, noisy ones included, and one question per row -> B texts."""
        return [text for text, _ in self._written(canvas, questions)]

    def _written(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[tuple[str, bool]]:
        """The text of each row, and whether it ended before `max_new_tokens`."""
        inputs = self._inputs(canvas, [self.prompt(question, "") for question in questions], positions=False)
        return self._generate(inputs, [self._rng(q, row) for q, row in zip(questions, canvas, strict=True)])

    def text_log_probs(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        """(B, 3, H, W), a question and a text per row -> (B,) mean log-probability of the text's tokens, forced."""
        if not self._causal:
            self._refuse_reading_ahead(canvas[:1], questions[0])
        written = [self.turn.tokens(text) for text in texts]
        logits = self._forced(canvas, questions, written)
        rows = [
            -F.cross_entropy(row[-len(tokens) - 1 : -1].float(), torch.tensor(tokens, device=row.device))
            for row, tokens in zip(logits, written, strict=True)
        ]
        return torch.stack(rows)

    def _forced(
        self, canvas: torch.Tensor, questions: Sequence[Question], written: Sequence[tuple[int, ...]]
    ) -> torch.Tensor:
        """(B, at least L + 1, V) logits of one forward over prompts with these tokens, at most L, behind them."""
        inputs = self._inputs(canvas, [self.prompt(q, "") for q in questions], positions=True, written=written)
        last = {"logits_to_keep": max(map(len, written)) + 1} if self._trims_logits else {}
        return self.model(**inputs, use_cache=False, **last).logits

    @torch.no_grad()
    def _refuse_reading_ahead(self, canvas: torch.Tensor, question: Question) -> None:
        """Raise CheckpointError if a token changes the logits of an earlier one: such a forward cannot score texts."""
        try:
            with self.exact() as twin:
                ahead = twin._change_of_earlier(canvas, question) > _READS_AHEAD
        except CheckpointError:
            ahead = self._change_of_earlier(canvas, question) > _READS_AHEAD_HALF
        if ahead:
            raise CheckpointError(
                f"{type(self.model).__name__} reads a text as a whole, so that later words change how likely earlier "
                "ones are: a text cannot be forced on it, as --attack adaptive does"
            )
        self._causal = True

    def _change_of_earlier(self, canvas: torch.Tensor, question: Question) -> float:
        """The largest change of log-probabilities when a later token changes."""
        first, second = self.letters(2).tolist()
        both = self._forced(canvas.expand(2, -1, -1, -1), [question] * 2, [(first, first), (first, second)])
        earlier = both[:, -3:-1].float().log_softmax(-1)
        return float((earlier[0] - earlier[1]).abs().max())

    @torch.no_grad()
    def official_answer(self, image: Image.Image, question: Question) -> Answers:
        """Write and parse an answer by the untouched path: 8-bit image at its own size, whole processor."""
        text, _ = self._officially_written(image, question)
        return Answers(predictions=[parse(text, question)], texts=[text])

    @torch.no_grad()
    def answer_without_image(self, question: Question) -> Answers:
        """Write and parse an answer to a prompt without an image; raises like `scores_without_image`."""
        text, _ = self._written_without_image(question)
        return Answers(predictions=[parse(text, question)], texts=[text])

    def _written_without_image(self, question: Question) -> tuple[str, bool]:
        with self._needing_image():
            inputs = self._text_inputs(question, "")
            return self._generate(inputs, [self._rng(question, torch.zeros(0, dtype=torch.uint8))])[0]

    def _officially_written(self, image: Image.Image, question: Question) -> tuple[str, bool]:
        inputs, _ = official_inputs(self.processor, image, self.prompt(question, ""))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return self._generate(self._to_model(inputs), [self._rng(question, pixels)])[0]

    def _rng(self, question: Question, pixels: torch.Tensor) -> torch.Generator:
        if not self.asking.temperature:
            return torch.Generator(self.device)
        digest = hashlib.sha256(pixels.cpu().numpy().tobytes()).hexdigest()
        return generator(self.device, self.asking.seed, "write", question.text, *question.options, digest)

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end a row, unless they are inside a thought."""
        return (CLOSING_TAG,)

    def has_stopped(self, text: str) -> bool:
        """True if a row that has written this text is complete: with its thought, too, where that comes last."""
        if answers_first(self.template) and CLOSE not in text:
            return False
        return any(stop in text and not is_open(text[: text.rindex(stop) + len(stop)]) for stop in self.stops)

    @torch.no_grad()
    def sample(
        self, canvas: torch.Tensor, questions: Sequence[Question], generators: Sequence[torch.Generator]
    ) -> list[tuple[int, ...]]:
        """Sample the tokens of each row's turn, to its end token or `max_new_tokens`, whatever the text says.

        No token is sampled that stands for an image or a video: the text could not be forced on the model.

        Args:
            canvas: (B, 3, H, W) pixels in [0, 1] units, with one question and one generator per row.
        """
        inputs = self._inputs(canvas, [self.prompt(question, "") for question in questions], positions=False)
        return [
            tuple(row if end is None else row[: end + 1])
            for row, end in self._tokens(inputs, [*generators], stops=False)
        ]

    def token_log_probs(
        self, canvas: torch.Tensor, questions: Sequence[Question], written: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """The log-probabilities of every token of the vocabulary at each place of the given texts.

        Args:
            canvas: (B, 3, H, W) pixels in [0, 1] units; the results are differentiable in them.
            written: the tokens of each row's turn, at least one.
        Returns:
            B tensors of (length, V), at least float32, at the temperature of sampling.
        """
        logits = self._forced(canvas, questions, written)
        heat = self.asking.temperature or 1.0
        rows = [row[-len(tokens) - 1 : -1].float() for row, tokens in zip(logits, written, strict=True)]
        return [(row / heat).log_softmax(-1) for row in rows]

    def _generate(self, inputs: Tensors, generators: list[torch.Generator]) -> list[tuple[str, bool]]:
        written = []
        for row, end in self._tokens(inputs, generators):
            text = self.turn.told(row[:end])
            written.append((text, end is not None or self.has_stopped(text)))
        return written

    def _tokens(
        self, inputs: Tensors, generators: list[torch.Generator], *, stops: bool = True
    ) -> list[tuple[list[int], int | None]]:
        """The tokens that each row wrote, with those behind its end, and the place of its end token, if any."""
        start = inputs["input_ids"].shape[1]
        own, self.model.generation_config = self.model.generation_config, self._decoding
        try:  # as an argument, transformers would complete our settings with the checkpoint's own
            ids = self.model.generate(
                **inputs,
                logits_processor=[Sampler(self.asking.temperature, generators, () if stops else self.placeholders)],
                stopping_criteria=[_Stopped(self, start)] if stops else [],
            )
        finally:
            self.model.generation_config = own
        rows = ids[:, start:].tolist()
        return [(row, next((i for i, token in enumerate(row) if token in self._ends_turn), None)) for row in rows]


class Thinker(Writer):
    """Writes its thought and then scores the option letters, so that every complete thought has an answer.

    A thought ends at its closing mark, at an answer tag, or with the turn; one that `max_new_tokens` cuts off has no
    answer. The letters are scored after the thought about the very same canvas; the scores are differentiable with the
    thought held.
    """

    @property
    def stops(self) -> tuple[str, ...]:
        return CLOSE, OPENING_TAG

    @property
    def unthinking(self) -> VLM:
        """The same checkpoint, asked for a letter without a thought."""
        return VLM(self.model, self.processor, self.asking)

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """(B, 3, H, W) and one question per row -> (B, K) letter logits after each row's thought, complete or not."""
        return self.scores_after(canvas, questions, self.write(canvas, questions))

    @torch.no_grad()
    def decide(self, canvas: torch.Tensor, questions: Sequence[Question]) -> Answers:
        """(B, 3, H, W) and one question per row -> answers, log-probabilities, and texts with the letter at their end.

        A thought that was cut off has neither answer nor log-probabilities.
        """
        written = self._written(canvas, questions)
        scores = self.scores_after(canvas, questions, [text for text, _ in written])
        rows = [self._decided(*row) for row in zip(written, scores, questions, strict=True)]
        predictions, log_probs, texts = zip(*rows, strict=True)
        return Answers(predictions=list(predictions), log_probs=list(log_probs), texts=list(texts))

    @torch.no_grad()
    def official_answer(self, image: Image.Image, question: Question) -> Answers:
        """The same by the untouched path: 8-bit image at its own size, whole processor, model with its full head."""
        written = self._officially_written(image, question)
        behind = self.turn.own(self.turn.before_letter(written[0], question))
        inputs, _ = official_inputs(self.processor, image, self.prompt(question, "") + behind)
        prediction, log_probs, text = self._decided(
            written, self._last_letters(self._to_model(inputs), question), question
        )
        return Answers(predictions=[prediction], log_probs=[log_probs], texts=[text])

    @torch.no_grad()
    def answer_without_image(self, question: Question) -> Answers:
        """The same for a prompt without an image; raises like `scores_without_image`."""
        written = self._written_without_image(question)
        behind = self.turn.own(self.turn.before_letter(written[0], question))
        with self._needing_image():
            scores = self._last_letters(self._text_inputs(question, behind), question)
        prediction, log_probs, text = self._decided(written, scores, question)
        return Answers(predictions=[prediction], log_probs=[log_probs], texts=[text])

    def _decided(
        self, written: tuple[str, bool], scores: torch.Tensor, question: Question
    ) -> tuple[int | None, list[float] | None, str]:
        text, ended = written
        if not ended:
            return None, None, text
        log_probs = scores[: len(question.options)].float().log_softmax(0)
        best = int(log_probs.argmax())
        closing = f" {CLOSING_TAG}" * opens_answer(self.template)
        return best, log_probs.tolist(), f"{self.turn.before_letter(text, question)} {question.letters[best]}{closing}"

    def read(self, text: str, question: Question) -> int | None:
        """The option whose letter follows the cue at the end of a text of `decide`; None if its thought was cut off."""
        letter = re.search(rf"{re.escape(self.template.cue)} ([A-Z])(?: {CLOSING_TAG})?\Z", text)
        return None if letter is None or is_open(text) else question.letters.find(letter[1])

    def take_shortcuts(
        self, questions: Sequence[Question] = (), size: tuple[int, int] | None = None, *, compiled: bool = False
    ) -> None:
        """Take no shortcuts: they are proved for prompts without a thought."""


class _Stopped:
    """Stops a row when `Writer.has_stopped` says so, however the tokenizer splits the tags.

    transformers' `stop_strings` needs a vocabulary whose tokens join without blanks.
    """

    def __init__(self, writer: Writer, start: int) -> None:
        self.writer = writer
        self.start = start

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        writer, told = self.writer, self.writer.turn.told
        window = max(map(len, (*writer.stops, writer.turn.thought.closing)))  # a token has at least one character

        def ended(row: list[int]) -> bool:
            latest = told(
                row[-window:]
            )  # this decides most rows; decoding the whole text takes longer with every token
            return any(stop in latest for stop in (*writer.stops, CLOSE)) and writer.has_stopped(told(row))

        return torch.tensor([ended(row) for row in input_ids[:, self.start :].tolist()], device=input_ids.device)


class Sampler:
    """Refuses NaN in logits, and adds the noise of sampling to them unless the temperature is 0.

    Args:
        without: tokens that are never chosen.
    """

    def __init__(self, temperature: float, generators: list[torch.Generator], without: Sequence[int] = ()) -> None:
        self.temperature = temperature
        self.generators = generators
        self.without = without

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        broken = scores.isnan().any(1) | scores.isposinf().any(1)
        if bool(broken.any()):
            raise ModelOutputError(
                f"the model returned NaN or infinite scores for {int(broken.sum())} of {len(broken)} rows"
            )
        if without := [token for token in self.without if 0 <= token < scores.shape[1]]:
            scores = scores.index_fill(1, torch.tensor(without, device=scores.device), -torch.inf)
        if not self.temperature:
            return scores
        draws = [
            torch.empty(scores.shape[1], device=scores.device).exponential_(generator=rng) for rng in self.generators
        ]
        return scores.float() / self.temperature - torch.stack(draws).log()
