"""What GRPO rewards: an answer that is right, and a form that was kept. Pure functions of one completion."""

from __future__ import annotations

import re

from safemed_eval.core import Question
from safemed_eval.models.answers import parse

_ANSWER = re.compile(r"\s*<answer>\s*[A-Z]\s*</answer>\s*")
_THOUGHT_AND_ANSWER = re.compile(r"\s*<think>(?:(?!</?think>|</?answer>).)+</think>" + _ANSWER.pattern, re.DOTALL)


def correct(text: str, question: Question, label: int) -> float:
    """1 if the text answers with the gold option, else 0; read by the parser that evaluation uses."""
    return float(parse(text, question) == label)


def kept(text: str, thinks: bool) -> float:
    """1 if the text is `<answer>X</answer>`, with `<think>...</think>` before it where that was asked for, else 0."""
    return float((_THOUGHT_AND_ANSWER if thinks else _ANSWER).fullmatch(text) is not None)
