"""A transformers image-text-to-text checkpoint behind the waist: one forward, the letter rows of lm_head."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from PIL import Image

from safemed_eval.core import Question
from safemed_eval.errors import CheckpointError, DataError, ModelOutputError
from safemed_eval.faults import faults_of_the_model, place_of
from safemed_eval.models.checkpoints.letters import find_head, letter_tokens, letters_only
from safemed_eval.models.checkpoints.processor import ImageCall, official_inputs, picture, pixel_inputs
from safemed_eval.models.checkpoints.prompts import Asking, default_template, render, template_sha256
from safemed_eval.models.checkpoints.proof import Plain, refuted
from safemed_eval.models.checkpoints.shortcuts import (
    LAST_LAYER,
    PACKED,
    PREFIX,
    SHORTCUTS,
    Prefix,
    Prefixes,
    cache_argument,
    last_token_only,
    packed_images,
)
from safemed_eval.models.checkpoints.turn import Turn
from safemed_eval.models.precision import in_float32, is_half

_Tensors = Mapping[str, torch.Tensor]
_TEXTS_KEPT = 4096
_BATCHES_KEPT = 4
_SOME_SIZE = 224, 224
"""Height and width of the image where only the text counts, or where nobody says what will be asked."""
_SHORTEST = Question(text="?", options=("a", "b"))
_LONGEST = Question(
    text="Which of these findings is the most likely one? " * 3, options=("a lesion of the liver", "an effusion")
)
"""What shortcuts are proved on where nobody says what will be asked."""
_ANY_LENGTH = range(2**31)


class VLM:
    """Scores the option letters of a question as the next token after the template's cue.

    Args:
        model: a transformers model for image-text-to-text.
        processor: the processor that was saved with it.
        asking: the template (without one the default of its readout), and what a subclass needs.
    Raises:
        CheckpointError: the output head cannot be read, or the answer does not go on from the prompt.
    """

    def __init__(self, model: Any, processor: Any, asking: Asking) -> None:
        if getattr(model.config, "is_encoder_decoder", False):
            raise CheckpointError(
                f"{type(model).__name__} is an encoder-decoder: its answer is a text apart, that no cue can begin; "
                "only models that go on from their prompt can be asked"
            )
        self.model = model
        self.processor = processor
        self.template = asking.template or default_template(asking.readout)
        self.asking = replace(asking, template=self.template)
        self._head = find_head(model)
        self._forward = set(inspect.signature(model.forward).parameters)
        tokenizer = processor.tokenizer
        added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._control = {token for token in added | set(tokenizer.all_special_tokens) if token.strip()}
        self.turn = Turn(processor, self.template, self._control)
        self._letters: dict[int, torch.Tensor] = {}
        self._texts: OrderedDict[tuple[str, int, int], tuple[_Tensors, ImageCall]] = OrderedDict()
        self._batches: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()
        self._prefixes = Prefixes(model)
        self.shortcuts: tuple[str, ...] = ()
        """Those of `shortcuts.SHORTCUTS` that scores are computed with."""
        self.refused: dict[str, str] = {}
        """The others, and why."""
        self._proved = range(0)
        """The lengths of prompts, in tokens, that the shortcuts are proved for."""
        self._ends: tuple[Question, ...] = ()
        """The questions with the shortest and the longest of them."""

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    def letters(self, count: int) -> torch.Tensor:
        """(count,) token ids of the first option letters, on the head's device; see `letter_tokens`."""
        if count not in self._letters:
            device = self._head[2].weight.device
            self._letters[count] = torch.tensor(
                letter_tokens(self.processor.tokenizer, self._ending(), count), device=device
            )
        return self._letters[count]

    def _ending(self) -> str:
        """What the letter comes after: the cue, or what the processor writes behind every prompt.

        PaliGemma's ends each with a line break.

        Raises:
            CheckpointError: it ends them with a control token, behind which an answer starts anew.
        """
        tokenizer, cue = self.processor.tokenizer, self.template.cue
        some = Question(text="", options=("",))
        plain, longer = (
            self._text(self.prompt(some, cue + more), *_SOME_SIZE)[0]["input_ids"][0].tolist() for more in ("", " A")
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

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """(B, 3, H, W) pixels in [0, 1] units and one question per row -> (B, K) letter logits, at least float32."""
        rendered = {q: self.prompt(q, self.template.cue) for q in dict.fromkeys(questions)}
        if self.shortcuts:
            height, width = canvas.shape[-2:]
            self._prove_for(rendered, (height, width))
        return self._scores(canvas, [rendered[q] for q in questions], max(len(q.options) for q in questions))

    def _scores(self, canvas: torch.Tensor, prompts: Sequence[str], options: int) -> torch.Tensor:
        inputs = self._inputs(canvas, prompts, positions=True, short=PREFIX in self.shortcuts, checked=False)
        return self._letter_logits(inputs, options, self.shortcuts)

    def scores_after(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        """Letter logits after what each row has thought: the cue follows the thought, and the letter the cue.

        Args:
            canvas: (B, 3, H, W) pixels in [0, 1] units; the logits are differentiable in them, with the texts held.
            texts: one a row, as `Turn.told` gives them, with an answer or without.
        Returns:
            (B, K), at least float32.
        """
        befores = [self.turn.before_letter(text, question) for text, question in zip(texts, questions, strict=True)]
        written = [self.turn.tokens(before) for before in befores]
        inputs = self._inputs(canvas, [self.prompt(q, "") for q in questions], positions=True, written=written)
        return self._letter_logits(inputs, max(len(q.options) for q in questions))

    @torch.no_grad()
    def refuse_pixels(self, canvas: torch.Tensor, question: Question) -> None:
        """Raise ModelOutputError where it is the image processor that makes NaN or infinity of a canvas."""
        self._inputs(canvas, [self.prompt(question, self.template.cue)] * len(canvas), positions=False)

    def take_shortcuts(self, questions: Sequence[Question] = (), size: tuple[int, int] | None = None) -> None:
        """Use from now on the shortcuts that are proved not to change the scores; see `proof`.

        They are proved for prompts as long as the shortest and the longest of these questions, on images of this
        size, and again when a shorter or longer prompt comes. The weights must not change any more.

        Args:
            questions: some that will be asked, the shortest and the longest among them; synthetic ones by default.
            size: height and width.
        """
        self._prefixes = Prefixes(self.model)
        self._batches.clear()
        self.shortcuts, self.refused, self._proved, self._ends = SHORTCUTS, {}, range(0), ()
        chosen = self.askable(questions) or (_SHORTEST, _LONGEST)
        try:
            self._prove_for({q: self.prompt(q, self.template.cue) for q in chosen}, size or _SOME_SIZE)
        except Exception as error:  # it cannot be asked at all: `check` says what is wrong with it
            self._refuse_all(place_of(error))

    @torch.no_grad()
    def _prove_for(self, prompts: Mapping[Question, str], size: tuple[int, int]) -> None:
        """Keep those shortcuts only that are proved for the lengths of these prompts, too."""
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
            if is_half(self.model):
                with self.exact() as twin:
                    twin._prove(ends, size)
                self.shortcuts, self.refused = twin.shortcuts, self.refused | twin.refused
            self._prove(ends, size)
        except CheckpointError as error:
            self._refuse_all(f"not proved: {error}")
        except Exception as error:  # the plain forward fails: `check` says what is wrong with it
            self._refuse_all(place_of(error))

    def _prove(self, ends: Sequence[Question], size: tuple[int, int]) -> None:
        """Keep the shortcuts that agree with the plain forward, in the precision that the weights have now."""
        canvas = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(0)).to(self.device)
        prompts = [self.prompt(question, self.template.cue) for question in ends]

        def scored(batch: tuple[int, ...]) -> list[torch.Tensor]:
            counts = [len(ends[i].options) for i in batch]
            rows = self._scores(canvas[list(batch)], [prompts[i] for i in batch], max(counts))
            return [row[:count] for row, count in zip(rows, counts, strict=True)]

        candidates, self.shortcuts = self.shortcuts, ()
        plain = Plain.measure(scored)
        for name in candidates:
            before, self.shortcuts = self.shortcuts, (*self.shortcuts, name)
            reason = refuted(plain, scored)
            if reason is None and name == PREFIX and not self._prefixes:
                reason = "no tokens stand before the image in every prompt"
            if reason is not None:
                self.shortcuts, self.refused[name] = before, reason

    def _refuse_all(self, reason: str) -> None:
        self.shortcuts, self.refused = (), dict.fromkeys(SHORTCUTS, reason) | self.refused

    def _length(self, prompt: str, size: tuple[int, int]) -> int:
        """The length of a prompt in tokens, those of the image included."""
        texts, _ = self._text(prompt, *size)
        return int(texts["input_ids"].shape[1])

    @contextmanager
    def exact(self) -> Iterator[Self]:
        """The same model with the same shortcuts, computing in float32; inside this block only. See `in_float32`."""
        with in_float32(self.model):
            twin = type(self)(self.model, self.processor, self.asking)
            twin.shortcuts, twin._proved = self.shortcuts, _ANY_LENGTH
            yield twin

    @property
    def is_half(self) -> bool:
        """True if any weight is a 16-bit float."""
        return is_half(self.model)

    @property
    def unthinking(self) -> VLM:
        """This very checkpoint: it writes no thought."""
        return self

    def letter_names(self, count: int) -> list[str]:
        """The tokens of the first option letters as the tokenizer writes them."""
        names: list[str] = self.processor.tokenizer.convert_ids_to_tokens(self.letters(count).tolist())
        return names

    def refuse_8_bit_only(self, clean: torch.Tensor, noisy: torch.Tensor, question: Question) -> None:
        """Raise CheckpointError if an image (3, H, W) passes the processor as 8 bits, but noise (1, 3, H, W) fails."""
        with faults_of_the_model():
            _, call = official_inputs(self.processor, picture(clean), self.prompt(question, self.template.cue))
        try:
            with faults_of_the_model():
                pixel_inputs(self.processor, noisy, call)
        except ModelOutputError as error:
            name = type(self.processor.image_processor).__name__
            raise CheckpointError(
                f"{name} takes 8-bit images only: neither noise nor gradients pass; {error}"
            ) from error

    def image_inputs(self, canvas: torch.Tensor, question: Question) -> tuple[str, torch.Tensor, torch.Tensor]:
        """The name of the image input, and its values for a (3, H, W) canvas by the 8-bit and by the float path."""
        official, call = official_inputs(self.processor, picture(canvas), self.prompt(question, self.template.cue))
        ours = pixel_inputs(self.processor, canvas[None], call)
        name = next(key for key in call.outputs if official[key].is_floating_point())
        return name, official[name], ours[name]

    def official_scores(self, image: Image.Image, question: Question) -> torch.Tensor:
        """(K,) letter logits of the untouched path: 8-bit image, whole processor, model with its full head."""
        inputs, _ = official_inputs(self.processor, image, self.prompt(question, self.template.cue))
        logits: torch.Tensor = self.model(**self._to_model(inputs), use_cache=False).logits[0, -1]
        return logits[self.letters(len(question.options)).to(logits.device)].float()

    def describe(self, question: Question) -> dict[str, Any]:
        """Architecture, processor, and the rendered prompt of this question, for `run.json`."""
        return {
            "architecture": type(self.model).__name__,
            "processor": type(self.processor).__name__,
            "image_processor": type(self.processor.image_processor).__name__,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attn": getattr(self.model.config, "_attn_implementation", None),
            "quantization": _quantization(self.model.config),
            "chat_template_sha256": template_sha256(self.processor),
            "thought": [self.turn.thought.opening, self.turn.thought.closing],
            "shortcuts": list(self.shortcuts),
            "prompt": self.prompt(question, self.template.cue if self.asking.readout == "choice" else ""),
        }

    def prompt(self, question: Question, cue: str) -> str:
        """The rendered prompt, with these words as the beginning of the model's turn.

        A thought that the chat template has opened is closed before them, in the checkpoint's own way.

        Raises:
            DataError: the question holds a control token of the checkpoint, which would rewrite the prompt.
        """
        self.refuse_control_tokens(question)
        prompt = render(self.processor, self.template.wording(question))
        thought = self.turn.thought
        return prompt + (thought.end if cue and thought.opened else "") + cue

    def askable(self, questions: Iterable[Question]) -> list[Question]:
        """Those of the questions that hold no control token of the checkpoint."""
        return [question for question in questions if not self._control_tokens(question)]

    def refuse_control_tokens(self, question: Question) -> None:
        """Raise DataError where the question holds a control token of the checkpoint."""
        if tokens := self._control_tokens(question):
            raise DataError(f"the question holds the checkpoint's special token {tokens[0]}")

    def _control_tokens(self, question: Question) -> list[str]:
        text = "\n".join((question.text, *question.options))
        return sorted(token for token in self._control if token in text)

    def _inputs(
        self,
        canvas: torch.Tensor,
        prompts: Sequence[str],
        *,
        positions: bool,
        written: Sequence[tuple[int, ...]] | None = None,
        short: bool = False,
        checked: bool = True,
    ) -> dict[str, Any]:
        """What the model's forward takes: the pixels of each row, and the text sides left-padded together.

        Args:
            written: tokens behind each prompt, as if the model had written them.
            short: without the tokens that all rows begin with; their keys and values are there instead.
            checked: look whether the pixels are finite; see `pixel_inputs`.
        """
        height, width = canvas.shape[-2:]
        _, call = self._text(prompts[0], height, width)
        images = self._to_model(pixel_inputs(self.processor, canvas, call, checked=checked))
        tokens = tuple(written or [()] * len(prompts))
        texts = self._collate(tuple(prompts), tokens, height, width, images if positions else None, short)
        return {**texts, **images}

    def _text(self, prompt: str, height: int, width: int) -> tuple[_Tensors, ImageCall]:
        """The text side of one prompt: ids, masks and token types, each (1, L); built once by the processor."""
        key = (prompt, height, width)
        if key not in self._texts:
            blank = Image.new("RGB", (width, height), (127, 127, 127))
            inputs, call = official_inputs(self.processor, blank, prompt)
            texts = {name: value for name, value in inputs.items() if name not in call.outputs}
            self._texts[key] = texts, call
            if len(self._texts) > _TEXTS_KEPT:
                self._texts.popitem(last=False)
        self._texts.move_to_end(key)
        return self._texts[key]

    def _collate(
        self,
        prompts: tuple[str, ...],
        written: tuple[tuple[int, ...], ...],
        height: int,
        width: int,
        images: _Tensors | None,
        short: bool,
    ) -> dict[str, Any]:
        """Left-pad the text sides of a batch, on the model's device; given images, with the positions of its tokens."""
        rows = tuple(zip(prompts, written, strict=True))
        alike = len({*rows}) == 1  # the noisy copies of an image: a batch of fewer is the beginning of one of more
        key = (rows[:1] if alike else rows, height, width, images is None, short)
        kept = self._batches.get(key)
        if kept is None or len(kept["input_ids"]) < len(rows):
            sides = [self._text(prompt, height, width)[0] for prompt in prompts]
            longer = [_longer(side, tokens) for side, tokens in zip(sides, written, strict=True)]
            kept = self._batches[key] = self._padded(longer, images, short)
            if len(self._batches) > _BATCHES_KEPT:
                self._batches.popitem(last=False)
        self._batches.move_to_end(key)
        return _first(kept, len(rows)) if alike else kept

    def _padded(self, rows: Sequence[_Tensors], images: _Tensors | None, short: bool) -> dict[str, Any]:
        longest = max(row["input_ids"].shape[1] for row in rows)

        def padded(name: str) -> torch.Tensor:
            value = self.processor.tokenizer.pad_token_id if name == "input_ids" else 0
            beyond = (0, 0) * (rows[0][name].ndim - 2)
            return torch.cat(
                [F.pad(row[name], (*beyond, longest - row[name].shape[1], 0), value=value) for row in rows]
            )

        batch: dict[str, Any] = self._to_model({name: padded(name) for name in rows[0]})
        # Without explicit positions most models count the padding in; rotary ones forgive that, to rounding.
        positions = getattr(self.model, "_prepare_position_ids_for_generation", None)
        if images is not None and "position_ids" in self._forward and positions is not None:
            batch["position_ids"] = positions(batch["input_ids"], {**batch, **images})
        return self._prefixes.take_out(batch, rows) if short else batch

    def _to_model(self, inputs: _Tensors) -> dict[str, torch.Tensor]:
        return {
            name: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    def _letter_logits(self, inputs: Mapping[str, Any], options: int, shortcuts: Sequence[str] = ()) -> torch.Tensor:
        last = {"logits_to_keep": 1} if "logits_to_keep" in self._forward else {}
        cache: dict[str, Any] = {"use_cache": False}
        if PREFIX in inputs:
            kept: Prefix = inputs[PREFIX]
            cache = {"use_cache": True, cache_argument(self.model): kept.cache(len(inputs["input_ids"]))}
        narrow = last_token_only(self.model) if LAST_LAYER in shortcuts else nullcontext()
        packed = packed_images(self.model) if PACKED in shortcuts else nullcontext()
        with letters_only(self._head, self.letters(options)), narrow, packed:
            plain = {name: value for name, value in inputs.items() if name != PREFIX}
            logits: torch.Tensor = self.model(**plain, **cache, **last).logits[:, -1]
        if logits.shape[1] != options:
            raise CheckpointError(
                f"{type(self.model).__name__} does not compute its logits with its output head; letters cannot be read"
            )
        return logits


def _first(batch: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The first rows of a batch; of positions, (..., B, L), too."""
    return {
        name: value if name == PREFIX else value[..., :rows, :] if name == "position_ids" else value[:rows]
        for name, value in batch.items()
    }


def _longer(side: _Tensors, tokens: tuple[int, ...]) -> _Tensors:
    """A text side with these tokens behind it; what else it says of its last token, it says of them."""
    if not tokens:
        return side
    last = {name: value[:, -1:].repeat_interleave(len(tokens), dim=1) for name, value in side.items()}
    last["input_ids"] = torch.tensor([tokens])
    return {name: torch.cat([value, last[name]], dim=1) for name, value in side.items()}


def _quantization(config: Any) -> str | None:
    """The name of the checkpoint's quantization method, None where it has none."""
    settings = getattr(config, "quantization_config", None)
    method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
    return None if method is None else str(getattr(method, "value", method))
