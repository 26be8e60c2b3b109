"""The rewards of GRPO, for the right answer and for the right format: pure functions of one completion."""

from __future__ import annotations

import re

from safemed_eval.core import Question
from safemed_eval.models.answers import CLOSING_TAG, parse
from safemed_eval.models.checkpoints.prompts import Template, answers_first, opens_answer, thinks

_THOUGHT = r"<think>(?:(?!</?think>|</?answer>).)+</think>\s*"


def correct(text: str, question: Question, label: int) -> float:
    """Return 1 if the text answers with the gold option, else 0; evaluation uses the same parser."""
    return float(parse(text, question) == label)


def kept(text: str, template: Template) -> float:
    """Return 1 if the text has exactly the format that its template asks for, else 0.

    The format is the template's cue and a letter, `<answer> B </answer>` or `Answer: B`, and nothing else; if the
    template asks for a thought, one `<think>...</think>` before it, or after it.
    """
    before = _THOUGHT if thinks(template) and not answers_first(template) else ""
    after = _THOUGHT if answers_first(template) else ""
    closing = CLOSING_TAG if opens_answer(template) else r"\.?"
    answer = rf"{re.escape(template.cue)}\s*[A-Z]\s*{closing}"
    return float(re.fullmatch(rf"\s*{before}{answer}\s*{after}", text, re.DOTALL) is not None)
