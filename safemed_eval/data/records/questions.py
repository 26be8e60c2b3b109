"""Makes a question and its gold answer from the fields of a record, and refuses what is ambiguous."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from string import ascii_uppercase

from safemed_eval.core import MAX_OPTIONS, Question
from safemed_eval.errors import DataError

_LETTER = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])(?:\)|[.:](?=\s)))\s*(\S.*)", re.DOTALL)
""""(A) CT", "A) CT", "A. CT" and "A: CT"."""


def make_question(text: object, options: Sequence[object]) -> Question:
    """Make a question from a record's fields; options lose letters of their own, see `unlettered`.

    Raises:
        DataError: a text is empty or not text, or there are too few or too many options.
    """
    options = unlettered(options)
    refuse_unaskable(text, options)
    return Question(text=str(text).strip(), options=tuple(str(option).strip() for option in options))


def refuse_unaskable(text: object, options: Sequence[object]) -> None:
    """Raise DataError if a text is empty or not text, or if there are too few or too many options."""
    if not (isinstance(text, str) and text.strip()):
        raise DataError("the question is empty")
    if not all(isinstance(option, str) and option.strip() for option in options):
        raise DataError(f"an option is empty, or not text: {list(options)}")
    if not 2 <= len(options) <= MAX_OPTIONS:
        raise DataError(f"needs 2 to {MAX_OPTIONS} options (option_a, option_b, ...), has {len(options)}")


def unlettered(options: Sequence[object]) -> list[object]:
    """Turn ["A) CT", "B) MRI"] into ["CT", "MRI"] if every option carries its own letter; prompts add letters anyway.

    Other options are returned as they are.

    Raises:
        DataError: the letters are in another order, so that an answer's letter could mean two options.
    """
    matches = [_LETTER.fullmatch(option.strip()) if isinstance(option, str) else None for option in options]
    letters = "".join((match[1] or match[2]).upper() if match else "-" for match in matches)
    places = ascii_uppercase[: len(options)]
    if letters != places:
        if "".join(sorted(letters)) == places:
            raise DataError(f"the options carry the letters {', '.join(letters)}; write them in order, A first")
        return list(options)
    return [match[3] for match in matches if match]


def gold_index(answer: object, options: Sequence[object]) -> int:
    """Find the option whose text is the gold answer, compared with and without the option's own letter.

    Raises:
        DataError: no option equals it, or more than one does.
    """
    if not isinstance(answer, str) or not answer.strip():
        raise DataError("no gold answer")
    bare = unlettered(options)
    hits = [
        i
        for i, texts in enumerate(zip(options, bare, strict=True))
        if any(isinstance(text, str) and same_text(text, answer) for text in texts)
    ]
    if len(hits) != 1:
        number = "none" if not hits else str(len(hits))
        raise DataError(f"gold answer '{answer}' equals {number} of the options {list(options)}")
    return sole(hits[0], bare)


def same_text(one: object, other: object) -> bool:
    """True for texts that look alike: equal but for space around them, and for how accents are encoded."""
    first, second = (unicodedata.normalize("NFC", str(text).strip()) for text in (one, other))
    return first == second


def sole(index: int, options: Sequence[object]) -> int:
    """Return the index of the gold option. Raises DataError if another option has the same text."""
    if sum(same_text(option, options[index]) for option in options) > 1:
        raise DataError(f"gold answer '{options[index]}' equals more than one of the options {list(options)}")
    return index
