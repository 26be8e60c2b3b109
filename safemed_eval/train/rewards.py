"""What GRPO rewards: an answer that is right, and a form that was kept. Pure functions of one completion."""

from __future__ import annotations

import re

from safemed_eval.core import Question
from safemed_eval.models.answers import CLOSING_TAG, parse
from safemed_eval.models.checkpoints.prompts import Template, opens_answer, thinks

_THOUGHT = r"<think>(?:(?!</?think>|</?answer>).)+</think>\s*"


def correct(text: str, question: Question, label: int) -> float:
    """1 if the text answers with the gold option, else 0; read by the parser that evaluation uses."""
    return float(parse(text, question) == label)


def kept(text: str, template: Template) -> float:
    """1 if the text has the form that its template asks for, else 0.

    That is the template's cue and a letter, `<answer> B </answer>` or `Answer: B`, and nothing else; where a thought is
    asked for, one `<think>...</think>` before it.
    """
    thought = _THOUGHT if thinks(template) else ""
    closing = CLOSING_TAG if opens_answer(template) else r"\.?"
    return float(
        re.fullmatch(rf"\s*{thought}{re.escape(template.cue)}\s*[A-Z]\s*{closing}\s*", text, re.DOTALL) is not None
    )
