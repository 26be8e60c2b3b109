"""How a question is put into words, and after which words the answer letter is read."""

from __future__ import annotations

import hashlib
from typing import Any

from safemed_eval.core import Question

ANSWER_CUE = "Answer:"
"""Begins the model's turn; the next token is the option letter."""


def wording(question: Question) -> str:
    """The user's turn: the question, one option a line, and what to answer with."""
    lines = [f"{letter}) {option}" for letter, option in zip(question.letters, question.options, strict=True)]
    return "\n".join([question.text, *lines, "Answer with the letter of the correct option."])


def render(processor: Any, question: Question) -> str:
    """The full prompt up to and including the answer cue, through the checkpoint's chat template.

    A checkpoint without a chat template (a base model) gets its image token, the wording and the cue on lines of
    their own.
    """
    text = wording(question)
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": text}]
        message = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        return f"{prompt}{ANSWER_CUE}"
    return f"{processor.image_token}\n{text}\n{ANSWER_CUE}"


def template_sha256(processor: Any) -> str | None:
    """Hash of the chat template, None where there is none."""
    template = getattr(processor, "chat_template", None)
    if not template:
        return None
    return hashlib.sha256(str(template).encode()).hexdigest()
