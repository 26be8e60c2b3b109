"""A checkpoint that writes its answer: greedy, or sampled with noise that belongs to the row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from transformers import GenerationConfig

from safemed_eval.core import Question
from safemed_eval.errors import CheckpointError, ModelOutputError
from safemed_eval.models.answers import CLOSING_TAG
from safemed_eval.models.processor import official_inputs
from safemed_eval.models.prompts import Asking
from safemed_eval.models.vlm import VLM
from safemed_eval.seeds import generator

_READS_AHEAD, _READS_AHEAD_HALF = 1e-3, 0.05
"""Differences of log-probabilities that the precision does not explain; in half where float32 cannot be had."""


class Writer(VLM):
    """Writes an answer to a question; the option letters can still be scored, for attacks.

    Decoding is ours: what the checkpoint's own generation settings prefer (sampling, penalties) is left out. Rows go
    through the model together with a KV cache, and each ends at its closing answer tag, its end token, or
    `max_new_tokens`.

    Sampling adds Gumbel noise to the logits divided by the temperature and takes the largest, which draws from their
    softmax. The noise is seeded by the seed, the question and the pixels of the row: the same row is answered alike
    in any batch, and every noisy copy of an image is an independent draw.
    """

    def __init__(self, model: Any, processor: Any, asking: Asking) -> None:
        super().__init__(model, processor, asking)
        self._causal = False
        own, tokenizer = model.generation_config, processor.tokenizer
        model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=asking.max_new_tokens,
            bos_token_id=own.bos_token_id,
            eos_token_id=tokenizer.eos_token_id if own.eos_token_id is None else own.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    @torch.no_grad()
    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        """(B, 3, H, W) pixels in [0, 1] units, noisy ones included, and one question per row -> B texts."""
        inputs = self._inputs(canvas, [self.prompt(question, "") for question in questions], positions=False)
        return self._generate(inputs, [self._rng(q, row) for q, row in zip(questions, canvas, strict=True)])

    def text_log_probs(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        """(B, 3, H, W), a question and a text per row -> (B,) mean log-probability of the text's tokens, forced."""
        if not self._causal:
            self._refuse_reading_ahead(canvas[:1], questions[0])
        written = [tuple(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        logits = self._forced(canvas, questions, written)
        rows = [
            -F.cross_entropy(one[-len(tokens) - 1 : -1].float(), torch.tensor(tokens, device=one.device))
            for one, tokens in zip(logits, written, strict=True)
        ]
        return torch.stack(rows)

    def _forced(
        self, canvas: torch.Tensor, questions: Sequence[Question], written: Sequence[tuple[int, ...]]
    ) -> torch.Tensor:
        """(B, at least L + 1, V) logits of one forward over prompts with these tokens, at most L, behind them."""
        inputs = self._inputs(canvas, [self.prompt(q, "") for q in questions], positions=True, written=written)
        last = {"logits_to_keep": max(map(len, written)) + 1} if "logits_to_keep" in self._forward else {}
        logits: torch.Tensor = self.model(**inputs, use_cache=False, **last).logits
        return logits

    @torch.no_grad()
    def _refuse_reading_ahead(self, canvas: torch.Tensor, question: Question) -> None:
        """Raise CheckpointError where a token changes the logits of one before it: such a forward does not write."""
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
        """By how much log-probabilities change when a token behind them does."""
        first, second = self.letters(2).tolist()
        both = self._forced(canvas.expand(2, -1, -1, -1), [question] * 2, [(first, first), (first, second)])
        earlier = both[:, -3:-1].float().log_softmax(-1)
        return float((earlier[0] - earlier[1]).abs().max())

    @torch.no_grad()
    def official_write(self, image: Image.Image, question: Question) -> str:
        """The text by the untouched path: 8-bit image at its own size, whole processor."""
        inputs, _ = official_inputs(self.processor, image, self.prompt(question, ""))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return self._generate(self._to_model(inputs), [self._rng(question, pixels)])[0]

    def _rng(self, question: Question, pixels: torch.Tensor) -> torch.Generator:
        if not self.asking.temperature:
            return torch.Generator(self.device)
        digest = hashlib.sha256(pixels.cpu().numpy().tobytes()).hexdigest()
        return generator(self.device, self.asking.seed, "write", question.text, *question.options, digest)

    def _generate(self, inputs: dict[str, torch.Tensor], generators: list[torch.Generator]) -> list[str]:
        start = inputs["input_ids"].shape[1]
        ids = self.model.generate(
            **inputs,
            logits_processor=[_Sampler(self.asking.temperature, generators)],
            stopping_criteria=[_Closed(self.processor.tokenizer, start)],
        )
        new = ids[:, start:]
        texts: list[str] = self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts


class _Closed:
    """Stops a row at its closing answer tag, whatever the tokenizer makes of it.

    (transformers' `stop_strings` needs a vocabulary whose tokens join without blanks.)
    """

    def __init__(self, tokenizer: Any, start: int) -> None:
        self.tokenizer = tokenizer
        self.start = start

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        last = max(self.start, input_ids.shape[1] - len(CLOSING_TAG))
        texts = self.tokenizer.batch_decode(input_ids[:, last:], skip_special_tokens=True)
        return torch.tensor([CLOSING_TAG in text for text in texts], device=input_ids.device)


class _Sampler:
    """Refuses NaN, and adds to the logits what makes their largest one a sample; nothing at temperature 0."""

    def __init__(self, temperature: float, generators: list[torch.Generator]) -> None:
        self.temperature = temperature
        self.generators = generators

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        broken = scores.isnan().any(1) | scores.isposinf().any(1)
        if bool(broken.any()):
            raise ModelOutputError(
                f"the model returned NaN or infinite scores for {int(broken.sum())} of {len(broken)} rows"
            )
        if not self.temperature:
            return scores
        draws = [
            torch.empty(scores.shape[1], device=scores.device).exponential_(generator=rng) for rng in self.generators
        ]
        return scores.float() / self.temperature - torch.stack(draws).log()
