"""The model's turn of a conversation: tokens to texts and back, and the text up to the place of the answer's letter."""

from __future__ import annotations

from collections.abc import Sequence

from safemed_eval.core import Question
from safemed_eval.models.answers import OPENING_TAG, first_answer, rationale
from safemed_eval.models.checkpoints.prompts import Template
from safemed_eval.models.checkpoints.protocols import GenerationSettings, Processor
from safemed_eval.models.checkpoints.thoughts import CLOSE, OPEN, find_thought, is_open, turn_end


class Turn:
    """Converts between the tokens that a checkpoint writes and texts.

    In texts, thoughts are marked by `<think>` and `</think>`, whatever the checkpoint's own marks are. If the prompt
    has opened a thought, the text begins with `<think>`, too.

    Args:
        control: the control tokens of its tokenizer.
    """

    def __init__(self, processor: Processor, template: Template, control: set[str]) -> None:
        self.tokenizer, self.cue, self.control = processor.tokenizer, template.cue, control
        self.thought = find_thought(processor)
        self._behind_answer = turn_end(processor)

    def ends(self, settings: GenerationSettings) -> list[int]:
        """The tokens that end a turn, by the generation settings, the tokenizer and the chat template.

        The template's is the control token that it writes directly after an answer.
        """
        listed = settings.eos_token_id
        ends = {*(listed if isinstance(listed, (list, tuple)) else [listed]), self.tokenizer.eos_token_id}
        written = max((token for token in self.control if self._behind_answer.startswith(token)), key=len, default="")
        if written and written not in self.thought.closing:
            ends.add(self.tokenizer.convert_tokens_to_ids(written))
        return sorted(int(token) for token in ends if token is not None)

    def told(self, tokens: Sequence[int]) -> str:
        """The text of tokens that the model has written. It includes control tokens, except for padding."""
        idle = {self.tokenizer.pad_token_id, self.tokenizer.bos_token_id}
        kept = [token for token in tokens if token not in idle]
        text = self.thought.told(self.tokenizer.decode(kept, skip_special_tokens=False))
        return f"{OPEN}{text}" if self.thought.opened else text

    def tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a text as the model writes it, without control tokens other than the marks of a thought."""
        return tuple(self.tokenizer(self.own(text), add_special_tokens=False)["input_ids"])

    def own(self, text: str) -> str:
        """The text as it follows the prompt, with the checkpoint's own marks."""
        own = self.thought.own(text.removeprefix(OPEN) if self.thought.opened else text)
        marks = self.thought.opening + self.thought.closing
        for token in self.control:  # an image token would request an image
            own = own if token in marks else own.replace(token, "")
        return own

    def before_letter(self, text: str, question: Question) -> str:
        """The turn up to the option letter: the thought of a text, closed, and the template's cue.

        Without think tags, the thought is the text before its answer, or all of the text if it has no answer. Of a text
        that answers before it thinks, the thought does not count.
        """
        text = text if (first := first_answer(text)) is None else first
        if is_open(text):
            return f"{text.rstrip()}{self.thought.told(self.thought.end)}{self.cue}"
        if CLOSE in text:
            thought = text[: text.rindex(CLOSE) + len(CLOSE)]
            return f"{thought}{self.thought.behind}{self.cue}"
        at = text.lower().find(OPENING_TAG)
        said = text[:at] if at >= 0 else rationale(text, question) or ""
        return f"{said.strip()}\n{self.cue}" if said.strip() else self.cue
