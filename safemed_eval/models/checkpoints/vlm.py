"""A transformers image-text-to-text checkpoint behind the waist: one forward, the letter rows of lm_head."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch
from PIL import Image

from safemed_eval.core import Question
from safemed_eval.errors import CheckpointError, DataError, ModelOutputError
from safemed_eval.faults import faults_of_the_model, place_of
from safemed_eval.models.checkpoints.letters import find_head, letter_tokens, letters_only
from safemed_eval.models.checkpoints.processor import (
    both_inputs,
    mean_colour,
    official_inputs,
    pixel_inputs,
    refuse_8_bit_only,
    size_of,
)
from safemed_eval.models.checkpoints.prompts import Asking, default_template, render, template_sha256
from safemed_eval.models.checkpoints.proof import Plain, refuted, rounds_worse
from safemed_eval.models.checkpoints.protocols import Network, Processor, Tensors
from safemed_eval.models.checkpoints.shortcuts import (
    COMPILED,
    LAST_LAYER,
    PACKED,
    PREFIX,
    SHORTCUTS,
    CompiledLayers,
    Prefix,
    cache_argument,
    last_token_only,
    packed_images,
)
from safemed_eval.models.checkpoints.text_sides import Batch, TextSides
from safemed_eval.models.checkpoints.turn import Turn
from safemed_eval.models.precision import in_float32, is_half
from safemed_eval.models.scorer import ImageSize

_SOME_SIZE = 224, 224
"""Height and width of the image where only the text counts, or where the run's images are not known."""
_SHORTEST = Question(text="?", options=("a", "b"))
_LONGEST = Question(
    text="Which of these findings is the most likely one? " * 3, options=("a lesion of the liver", "an effusion")
)
"""The questions that shortcuts are proved on where the run's questions are not known."""
_ANY_LENGTH = range(2**31)


class VLM:
    """Scores the option letters of a question as the next token after the template's cue.

    Args:
        model: a transformers model for image-text-to-text.
        processor: the processor that was saved with it.
        asking: the template (without one, the default of its readout), and what a subclass needs.

    Attributes:
        shortcuts: those of `shortcuts` that scores are computed with.
        refused: the others, each with the reason.
        sides: makes and keeps the text sides of batches.

    Raises:
        CheckpointError: the output head cannot be read, or the answer does not continue the prompt.
    """

    def __init__(self, model: Network, processor: Processor, asking: Asking) -> None:
        if getattr(model.config, "is_encoder_decoder", False):
            raise CheckpointError(
                f"{type(model).__name__} is an encoder-decoder: its answer is a text apart, that no cue can begin; "
                "only models that go on from their prompt can be asked"
            )
        self.model = model
        self.processor = processor
        self.template = asking.template or default_template(asking.readout)
        self.asking = replace(asking, template=self.template)
        self.sides = TextSides(model, processor)
        self._head = find_head(model)
        self._trims_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        tokenizer = processor.tokenizer
        added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._control = {token for token in added | set(tokenizer.all_special_tokens) if token.strip()}
        self.turn = Turn(processor, self.template, self._control)
        self._letters: dict[int, torch.Tensor] = {}
        self.shortcuts: tuple[str, ...] = ()
        self.refused: dict[str, str] = {}
        self._compiled: CompiledLayers | None = None
        self._proved = range(0)
        """The lengths of prompts, in tokens, that the shortcuts are proved for."""
        self._ends: tuple[Question, ...] = ()
        """The questions with the shortest and the longest of them."""

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def placeholders(self) -> list[int]:
        """The tokens that stand for an image or a video in a prompt."""
        names = (f"{kind}_token_{end}" for kind in ("image", "video") for end in ("id", "index"))
        found = {getattr(self.model.config, name, None) for name in names}
        return sorted(token for token in found if isinstance(token, int))

    @property
    def mean_colour(self) -> tuple[float, float, float] | None:
        """See `processor.mean_colour`."""
        return mean_colour(self.processor)

    # ------------------------------------------------------------------------------------------------------- scores

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """(B, 3, H, W) pixels in [0, 1] units and one question per row -> (B, K) letter logits, at least float32."""
        return self._read(canvas, questions)[0]

    def features(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """(B, 3, H, W) and one question per row -> (B, D), what the output head reads where the letter follows the cue.

        It is the last hidden state at that token, differentiable in the pixels; no thought stands before it.
        """
        return self._read(canvas, questions)[1]

    def _read(self, canvas: torch.Tensor, questions: Sequence[Question]) -> tuple[torch.Tensor, torch.Tensor]:
        """The letter logits after the cue, and the features that they are computed from."""
        rendered = {q: self.prompt(q, self.template.cue) for q in dict.fromkeys(questions)}
        if self.shortcuts:
            height, width = canvas.shape[-2:]
            self._prove_for(rendered, (height, width))
        return self._scores(canvas, [rendered[q] for q in questions], max(len(q.options) for q in questions))

    def _scores(self, canvas: torch.Tensor, prompts: Sequence[str], options: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = self._inputs(canvas, prompts, positions=True, short=PREFIX in self.shortcuts, checked=False)
        return self._letter_logits(inputs, options, self.shortcuts)

    def scores_after(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        """Score the letters after a given thought: the cue follows the thought, and the letter follows the cue.

        Args:
            canvas: (B, 3, H, W) pixels in [0, 1] units; the logits are differentiable in them, with the texts held.
            texts: one per row, as `Turn.told` gives them, with an answer or without.
        Returns:
            (B, K) logits, at least float32.
        """
        befores = [self.turn.before_letter(text, question) for text, question in zip(texts, questions, strict=True)]
        written = [self.turn.tokens(before) for before in befores]
        inputs = self._inputs(canvas, [self.prompt(q, "") for q in questions], positions=True, written=written)
        return self._letter_logits(inputs, max(len(q.options) for q in questions))[0]

    def official_scores(self, image: Image.Image, question: Question) -> torch.Tensor:
        """(K,) letter logits of the untouched path: 8-bit image, whole processor, model with its full head."""
        inputs, _ = official_inputs(self.processor, image, self.prompt(question, self.template.cue))
        return self._last_letters(self._to_model(inputs), question)

    @torch.no_grad()
    def scores_without_image(self, question: Question) -> torch.Tensor:
        """(K,) letter logits of a prompt without an image.

        Raises:
            CheckpointError: the processor, or the model, needs an image.
        """
        with self._needing_image():
            return self._last_letters(self._text_inputs(question, self.template.cue), question)

    def _text_inputs(self, question: Question, answer: str) -> Tensors:
        """Arguments of the model's forward for a prompt without an image, with the beginning of an answer."""
        prompt = self.prompt(question, answer, with_image=False)
        return self._to_model(dict(self.processor(text=[prompt], return_tensors="pt")))

    def _last_letters(self, inputs: Tensors, question: Question) -> torch.Tensor:
        """(K,) letter logits of the next token, in float32, by the full head."""
        logits = self.model(**inputs, use_cache=False).logits[0, -1]
        return logits[self.letters(len(question.options)).to(logits.device)].float()

    @contextmanager
    def _needing_image(self) -> Iterator[None]:
        """Turn what processor and model raise inside this block into CheckpointError: they need an image."""
        try:
            with faults_of_the_model(f"{type(self.processor).__name__} or its model"):
                yield
        except ModelOutputError as error:
            raise CheckpointError(f"no prompt without an image: {error}") from error

    def letters(self, count: int) -> torch.Tensor:
        """(count,) token ids of the first option letters, on the head's device; see `letter_tokens`."""
        if count not in self._letters:
            device = self._head[2].weight.device
            self._letters[count] = torch.tensor(
                letter_tokens(self.processor.tokenizer, self._ending(), count), device=device
            )
        return self._letters[count]

    def letter_names(self, count: int) -> list[str]:
        """The tokens of the first option letters as the tokenizer writes them."""
        return self.processor.tokenizer.convert_ids_to_tokens(self.letters(count).tolist())

    def _ending(self) -> str:
        """The text that the letter follows: the cue, or what the processor appends to every prompt.

        PaliGemma's processor appends a line break.

        Raises:
            CheckpointError: the processor appends a control token, after which an answer starts anew.
        """
        tokenizer, cue = self.processor.tokenizer, self.template.cue
        some = Question(text="", options=("",))
        plain, longer = (
            self.sides.one(self.prompt(some, cue + more), *_SOME_SIZE)[0]["input_ids"][0].tolist()
            for more in ("", " A")
        )
        same = next((i for i, pair in enumerate(zip(plain, longer, strict=False)) if pair[0] != pair[1]), len(plain))
        behind = tokenizer.convert_ids_to_tokens(plain[same:])
        control = [token for token in behind if token in self._control]
        if control:
            raise CheckpointError(
                f"{type(self.processor).__name__} ends every prompt with the token {control[0]}: an answer does not go "
                "on from the cue, and cannot be read after it"
            )
        return tokenizer.decode(plain[same:]) if behind else cue

    def _letter_logits(
        self, inputs: Batch, options: int, shortcuts: Sequence[str] = ()
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, K) letter logits of one forward, and the (B, D) features that the output head reads."""
        last = {"logits_to_keep": 1} if self._trims_logits else {}
        cache: dict[str, object] = {"use_cache": False}
        if PREFIX in inputs:
            kept: Prefix = inputs[PREFIX]
            cache = {"use_cache": True, cache_argument(self.model): kept.cache(len(inputs["input_ids"]))}
        narrow = last_token_only(self.model) if LAST_LAYER in shortcuts else nullcontext()
        packed = packed_images(self.model) if PACKED in shortcuts else nullcontext()
        compiled = self._compiled.in_place() if self._compiled and COMPILED in shortcuts else nullcontext()
        with letters_only(self._head, self.letters(options)) as head, narrow, packed, compiled:
            plain = {name: value for name, value in inputs.items() if name != PREFIX}
            logits = self.model(**plain, **cache, **last).logits[:, -1]
        if logits.shape[1] != options:
            raise CheckpointError(
                f"{type(self.model).__name__} does not compute its logits with its output head; letters cannot be read"
            )
        return logits, head.features

    # ------------------------------------------------------------------------------------------------------- inputs

    def _inputs(
        self,
        canvas: torch.Tensor,
        prompts: Sequence[str],
        *,
        positions: bool,
        written: Sequence[tuple[int, ...]] | None = None,
        short: bool = False,
        checked: bool = True,
    ) -> Batch:
        """Arguments of the model's forward: the pixels of each row, and the text sides left-padded together.

        Args:
            positions: add the positions of all tokens.
            written, short: see `TextSides.batch`.
            checked: check that the pixels are finite; see `pixel_inputs`.
        """
        height, width = canvas.shape[-2:]
        _, call = self.sides.one(prompts[0], height, width)
        images = self._to_model(pixel_inputs(self.processor, canvas, call, checked=checked))
        tokens = written or [()] * len(prompts)
        texts = self.sides.batch(prompts, tokens, height, width, images if positions else None, short=short)
        return {**texts, **images}

    def _to_model(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self.sides.to_network(inputs)

    @torch.no_grad()
    def refuse_pixels(self, canvas: torch.Tensor, question: Question) -> None:
        """Raise ModelOutputError if the image processor turns a canvas into NaN or infinity."""
        self._inputs(canvas, [self.prompt(question, self.template.cue)] * len(canvas), positions=False)

    def refuse_8_bit_only(self, clean: torch.Tensor, noisy: torch.Tensor, question: Question) -> None:
        """Raise CheckpointError if the image processor takes 8-bit images only; see `processor.refuse_8_bit_only`."""
        refuse_8_bit_only(self.processor, clean, noisy, self.prompt(question, self.template.cue))

    def image_size(self, canvas: torch.Tensor, question: Question) -> ImageSize | None:
        """The size at which a canvas reaches the model; see `processor.size_of`."""
        return size_of(self.processor, canvas, self.prompt(question, self.template.cue))

    def image_inputs(self, canvas: torch.Tensor, question: Question) -> tuple[str, torch.Tensor, torch.Tensor]:
        """The image input by the 8-bit and by the float path; see `processor.both_inputs`."""
        return both_inputs(self.processor, canvas, self.prompt(question, self.template.cue))

    # ------------------------------------------------------------------------------------------------------- prompts

    def prompt(self, question: Question, cue: str, *, with_image: bool = True) -> str:
        """The rendered prompt, with these words as the beginning of the model's turn.

        A thought that the chat template has opened is closed before them, in the checkpoint's own way.

        Raises:
            DataError: the question holds a control token of the checkpoint, which would rewrite the prompt.
        """
        self.refuse_control_tokens(question)
        prompt = render(self.processor, self.template.wording(question), with_image=with_image)
        thought = self.turn.thought
        return prompt + (thought.end if cue and thought.opened else "") + cue

    def askable(self, questions: Iterable[Question]) -> list[Question]:
        """Those of the questions that hold no control token of the checkpoint."""
        return [question for question in questions if not self._control_tokens(question)]

    def refuse_control_tokens(self, question: Question) -> None:
        """Raise DataError if the question holds a control token of the checkpoint."""
        if tokens := self._control_tokens(question):
            raise DataError(f"the question holds the checkpoint's special token {tokens[0]}")

    def _control_tokens(self, question: Question) -> list[str]:
        text = "\n".join((question.text, *question.options))
        return sorted(token for token in self._control if token in text)

    def describe(self, question: Question) -> dict[str, Any]:
        """Architecture, processor, and the rendered prompt of this question, for `run.json`."""
        return {
            "architecture": type(self.model).__name__,
            "processor": type(self.processor).__name__,
            "image_processor": type(self.processor.image_processor).__name__,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attn": getattr(self.model.config, "_attn_implementation", None),
            "quantization": _quantization(self.model),
            "chat_template_sha256": template_sha256(self.processor),
            "thought": [self.turn.thought.opening, self.turn.thought.closing],
            "shortcuts": list(self.shortcuts),
            "prompt": self.prompt(question, self.template.cue if self.asking.readout == "choice" else ""),
        }

    # ------------------------------------------------------------------------------------------------------- proofs

    @property
    def is_half(self) -> bool:
        """True if any weight is a 16-bit float."""
        return is_half(self.model)

    @contextmanager
    def exact(self) -> Iterator[Self]:
        """The same model with the same shortcuts, computing in float32; inside this block only. See `in_float32`."""
        with in_float32(self.model):
            twin = type(self)(self.model, self.processor, self.asking)
            twin.shortcuts, twin._proved, twin._compiled = self.shortcuts, _ANY_LENGTH, self._compiled
            yield twin

    @property
    def unthinking(self) -> VLM:
        """This very checkpoint: it writes no thought."""
        return self

    def take_shortcuts(
        self, questions: Sequence[Question] = (), size: tuple[int, int] | None = None, *, compiled: bool = False
    ) -> None:
        """Take those shortcuts from now on that are proved not to change the scores; see `proof`.

        They are proved for prompts as long as the shortest and the longest of these questions, on images of this
        size, and again when a shorter or longer prompt comes. The weights must not change any more.

        Args:
            questions: some that will be asked, the shortest and the longest among them; synthetic ones by default.
            size: height and width.
            compiled: *compiled layers* is one of them, instead of *prefix*.
        """
        self.sides.forget()
        self.shortcuts, self.refused, self._compiled, self._proved, self._ends = SHORTCUTS, {}, None, range(0), ()
        if compiled:
            self._compile()
        chosen = self.askable(questions) or (_SHORTEST, _LONGEST)
        try:
            self._prove_for({q: self.prompt(q, self.template.cue) for q in chosen}, size or _SOME_SIZE)
        except Exception as error:  # it cannot be asked at all: `check` says what is wrong with it
            self._refuse_all(place_of(error))

    def _compile(self) -> None:
        try:
            self._compiled = CompiledLayers(self.model)
        except Exception as error:  # any exception means that its layers are not where others have them
            self.refused[COMPILED] = place_of(error)
        else:
            self.shortcuts, self.refused = (LAST_LAYER, PACKED, COMPILED), {PREFIX: "layers are compiled instead"}

    @torch.no_grad()
    def _prove_for(self, prompts: Mapping[Question, str], size: tuple[int, int]) -> None:
        """Keep only those shortcuts that are proved for the lengths of these prompts, too."""
        lengths = {question: self._length(prompt, size) for question, prompt in prompts.items()}
        if all(length in self._proved for length in lengths.values()):
            return
        cue = self.template.cue
        lengths |= {question: self._length(self.prompt(question, cue), size) for question in self._ends}
        ends = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        low, high = (lengths[question] for question in ends)
        known = self._proved or range(low, low + 1)
        self._proved, self._ends = range(min(low, known[0]), max(high, known[-1]) + 1), ends
        try:
            exact = None
            if is_half(self.model):
                with self.exact() as twin:
                    twin._prove(ends, size)
                    exact = twin._samples(ends, size, ()) if self._compiled else None
                self.shortcuts, self.refused = twin.shortcuts, self.refused | twin.refused
            self._prove(ends, size, exact)
        except CheckpointError as error:
            self._refuse_all(f"not proved: {error}")
        except Exception as error:  # the plain forward fails: `check` says what is wrong with it
            self._refuse_all(place_of(error))

    def _prove(self, ends: Sequence[Question], size: tuple[int, int], exact: torch.Tensor | None = None) -> None:
        """Keep the shortcuts that agree with the plain forward, in the precision that the weights have now.

        Args:
            exact: `_samples` in float32, which compiled layers are compared with in half precision.
        """
        canvas = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(0)).to(self.device)
        prompts = [self.prompt(question, self.template.cue) for question in ends]

        def scored(batch: tuple[int, ...]) -> list[torch.Tensor]:
            counts = [len(ends[i].options) for i in batch]
            rows, _ = self._scores(canvas[list(batch)], [prompts[i] for i in batch], max(counts))
            return [row[:count] for row, count in zip(rows, counts, strict=True)]

        candidates, self.shortcuts = self.shortcuts, ()
        plain = Plain.measure(scored)
        for name in candidates:
            before, self.shortcuts = self.shortcuts, (*self.shortcuts, name)
            if name == COMPILED and exact is not None:
                rounded = self._samples(ends, size, before)
                reason = rounds_worse(exact, rounded, partial(self._samples, ends, size, self.shortcuts))
            else:
                reason = refuted(plain, scored)
            if reason is None and name == PREFIX and not self.sides.prefixes:
                reason = "no tokens stand before the image in every prompt"
            if reason is not None:
                self.shortcuts, self.refused[name] = before, reason

    def _samples(self, ends: Sequence[Question], size: tuple[int, int], shortcuts: Sequence[str]) -> torch.Tensor:
        """The scores of these questions about eight random images each, one after the other."""
        canvas = torch.rand((8, 3, *size), generator=torch.Generator().manual_seed(1)).to(self.device)
        scores = []
        for question in ends:
            prompts = [self.prompt(question, self.template.cue)] * len(canvas)
            inputs = self._inputs(canvas, prompts, positions=True, checked=False)
            scores.append(self._letter_logits(inputs, len(question.options), shortcuts)[0].flatten())
        return torch.cat(scores)

    def _refuse_all(self, reason: str) -> None:
        every = (*SHORTCUTS, COMPILED) if self._compiled else SHORTCUTS
        self.shortcuts, self.refused = (), dict.fromkeys(every, reason) | self.refused

    def _length(self, prompt: str, size: tuple[int, int]) -> int:
        """The length of a prompt in tokens, those of the image included."""
        texts, _ = self.sides.one(prompt, *size)
        return int(texts["input_ids"].shape[1])


def _quantization(model: Network) -> str | None:
    """The name of the checkpoint's quantization method; None if it has none."""
    settings = getattr(model.config, "quantization_config", None)
    method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
    return None if method is None else str(getattr(method, "value", method))
