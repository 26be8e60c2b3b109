"""Written answers: parse one to an option, or edit it so that it gives another."""

from __future__ import annotations

from safemed_eval.models.answers.reading import Told, conclusion, first_answer, parse, rationale, told
from safemed_eval.models.answers.retelling import CLOSING_TAG, OPENING_TAG, curtail, retell

__all__ = [
    "CLOSING_TAG",
    "OPENING_TAG",
    "Told",
    "conclusion",
    "curtail",
    "first_answer",
    "parse",
    "rationale",
    "retell",
    "told",
]
