"""A question and its gold answer, from the fields of a record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from safemed_eval.core import MAX_OPTIONS, Question
from safemed_eval.errors import DataError

_LETTER = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])(?:\)|[.:](?=\s)))\s*(\S.*)", re.DOTALL)
""""(A) CT", "A) CT", "A. CT" and "A: CT"."""


def make_question(text: object, options: Sequence[object]) -> Question:
    """A question from a record's fields, its options `unlettered`. Raises DataError where one is empty, or not text."""
    options = unlettered(options)
    if not (isinstance(text, str) and text.strip()):
        raise DataError("the question is empty")
    texts = [option.strip() for option in options if isinstance(option, str) and option.strip()]
    if len(texts) < len(options):
        raise DataError(f"an option is empty, or not text: {list(options)}")
    if not 2 <= len(options) <= MAX_OPTIONS:
        raise DataError(f"needs 2 to {MAX_OPTIONS} options (option_a, option_b, ...), has {len(options)}")
    return Question(text=text.strip(), options=tuple(texts))


def unlettered(options: Sequence[object]) -> list[object]:
    """["A) CT", "B) MRI"] -> ["CT", "MRI"], where every option carries its own letter; otherwise the options as given.

    A prompt puts letters in front itself.
    """
    found = [_LETTER.fullmatch(option.strip()) if isinstance(option, str) else None for option in options]
    letters = "".join((match[1] or match[2]).upper() if match else "-" for match in found)
    if letters != ascii_uppercase[: len(options)]:
        return list(options)
    return [match[3] for match in found if match]


def gold_index(answer: object, options: Sequence[object]) -> int:
    """The index of the one option whose text is the gold answer, with its letter in front where it carries one or not.

    Raises:
        DataError: none is, or two are.
    """
    if not isinstance(answer, str) or not answer.strip():
        raise DataError("no gold answer")
    bare = unlettered(options)
    hits = [
        i
        for i, texts in enumerate(zip(options, bare, strict=True))
        if any(isinstance(text, str) and text.strip() == answer.strip() for text in texts)
    ]
    if len(hits) != 1:
        found = "none" if not hits else str(len(hits))
        raise DataError(f"gold answer '{answer}' equals {found} of the options {list(options)}")
    return sole(hits[0], bare)


def sole(index: int, options: Sequence[object]) -> int:
    """The index of a gold option that was named by its letter. Raises DataError where another has the same text."""
    if sum(str(option).strip() == str(options[index]).strip() for option in options) > 1:
        raise DataError(f"gold answer '{options[index]}' equals more than one of the options {list(options)}")
    return index
