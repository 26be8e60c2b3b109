"""The model's turn of a conversation: between tokens and what they say, up to where an answer's letter is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safemed_eval.core import Question
from safemed_eval.models.answers import OPENING_TAG, rationale
from safemed_eval.models.checkpoints.prompts import Template
from safemed_eval.models.checkpoints.thoughts import CLOSE, OPEN, find_thought, is_open, turn_end


class Turn:
    """What a checkpoint writes, by its processor and the template that it is asked with.

    In texts, the marks of its thought are `<think>` and `</think>`, whatever they are in the checkpoint, and one that
    the prompt has opened is opened.

    Args:
        control: the control tokens of its tokenizer.
    """

    def __init__(self, processor: Any, template: Template, control: set[str]) -> None:
        self.tokenizer, self.cue, self.control = processor.tokenizer, template.cue, control
        self.thought = find_thought(processor)
        self._behind_answer = turn_end(processor)

    def ends(self, settings: Any) -> list[int]:
        """The tokens that end a turn: those of the generation settings, the tokenizer's, and the chat template's.

        The last is the control token that the template writes right behind an answer.
        """
        listed = settings.eos_token_id
        ends = {*(listed if isinstance(listed, (list, tuple)) else [listed]), self.tokenizer.eos_token_id}
        written = max((token for token in self.control if self._behind_answer.startswith(token)), key=len, default="")
        if written and written not in self.thought.closing:
            ends.add(self.tokenizer.convert_tokens_to_ids(written))
        return sorted(int(token) for token in ends if token is not None)

    def told(self, tokens: Sequence[int]) -> str:
        """What tokens say that the model has written. Control tokens are part of it, but for padding."""
        idle = {self.tokenizer.pad_token_id, self.tokenizer.bos_token_id}
        kept = [token for token in tokens if token not in idle]
        text = self.thought.told(self.tokenizer.decode(kept, skip_special_tokens=False))
        return f"{OPEN}{text}" if self.thought.opened else text

    def tokens(self, text: str) -> tuple[int, ...]:
        """The tokens that the model would have written a text with; control tokens are left out, but for its marks."""
        return tuple(self.tokenizer(self.own(text), add_special_tokens=False)["input_ids"])

    def own(self, text: str) -> str:
        """What stands behind the prompt where a text is the model's turn."""
        own = self.thought.own(text.removeprefix(OPEN) if self.thought.opened else text)
        marks = self.thought.opening + self.thought.closing
        for token in self.control:  # an image token would ask for an image
            own = own if token in marks else own.replace(token, "")
        return own

    def before_letter(self, text: str, question: Question) -> str:
        """What the turn says up to the option letter: the text's thought, closed, and the template's cue.

        The thought of a text without think tags is what stands before its answer, or all of one that has no answer.
        """
        if is_open(text):
            return f"{text.rstrip()}{self.thought.told(self.thought.end)}{self.cue}"
        if CLOSE in text:
            thought = text[: text.rindex(CLOSE) + len(CLOSE)]
            return f"{thought}{self.thought.behind}{self.cue}"
        at = text.lower().find(OPENING_TAG)
        said = text[:at] if at >= 0 else rationale(text, question) or ""
        return f"{said.strip()}\n{self.cue}" if said.strip() else self.cue
