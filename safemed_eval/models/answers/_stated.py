"""Explicit statements of an answer in a text: in tags, boxed, as a JSON value, or after a cue."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from safemed_eval.models.answers._cues import MARK, MARKED, TAG, Statement, claim, cued
from safemed_eval.models.answers._names import Names, flat
from safemed_eval.models.answers._whole import whole

TAGGED = re.compile(
    r"(?:<(?P<tag>answer|conclusion|final[_ -]?answer|ans)>|\[(?P<bracket>answer)\])(?P<said>.*?)"
    r"(?=</?(?P=tag)>|\[/?(?P=bracket)\]|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_BOX = re.compile(r"\\?f?box(?:ed)?\s*\{|\x08oxed\s*\{|<\|begin_of_box\|>")
_UNBOX = "<|end_of_box|>"
_KEY = re.compile(
    r"""[{,\s]["'](?:(?:final|correct|predicted|selected|my)[_ -]?)?(?:answer|choice|option|prediction|label|letter)"""
    r"""(?:[_ -]?(?:letter|choice|option|key))?["']\s*:\s*"""
    r"""(?P<said>"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\[[^\]\n]*\]|[^\s,}"'\[{]+)""",
    re.IGNORECASE,
)
REVISES = re.compile(
    r"\b(?:wait|actually|correction|on\s+(?:second\s+thoughts?|reflection|closer\s+inspection)|scratch\s+that"
    r"|let\s+me\s+(?:correct|re-?\w+)|i\s+(?:was|made)\s+(?:wrong|mistaken|a\s+mistake|an\s+error)|my\s+mistake|sorry"
    r"|apologi[sz]e|(?:change|revise|correct|update)\s+my\s+answer|revised|corrected|instead|rather"
    r"|(?:that|this)(?:'s|\s+is|\s+was)\s+(?:wrong|incorrect|not\s+(?:right|correct)))\b",
    re.IGNORECASE,
)
TAKEN_BACK = re.compile(
    r"(?:\A|[.!?\n])\W*(?:(?:no|hmm|oh)\b\W*)*\b(?:wait|actually|correction|on\s+second\s+thoughts?"
    r"|scratch\s+that|let\s+me"
    r"\s+re|i\s+was\s+wrong|i\s+made\s+a\s+mistake|my\s+mistake)\b|\b(?:that|this)(?:'s|\s+is|\s+was)\s+(?:wrong"
    r"|incorrect"
    r"|not\s+(?:right|correct))\b",
    re.IGNORECASE,
)


_DEPTH = 3
"""The deepest nesting that is read, such as a box in a tag in a box; deeper texts are of models that repeat."""


def statements(text: str, view: str, names: Names, depth: int = 0) -> list[Statement]:
    """Find all explicit statements in a text, in order. A cue inside a marked passage is not a statement of its own."""
    stated, unmarked = [*_marked(text, names, depth)] if depth < _DEPTH else [], view
    for statement in stated:
        unmarked = unmarked[: statement.start] + MARK * (statement.end - statement.start) + unmarked[statement.end :]
    for statement in cued(unmarked, names):
        if unmarked[statement.place[0] : statement.place[0] + 1] != MARK:
            stated.append(statement)
            continue
        place = next(place for place, around in enumerate(stated) if around.start <= statement.place[0] < around.end)
        stated[place] = replace(stated[place], start=statement.start)
    return sorted(stated, key=lambda statement: (statement.end, statement.rank))


def settled(stated: list[Statement], view: str) -> int | None:
    """Return the option of the last statement, or None if the statements contradict each other.

    An earlier statement of another option contradicts it, unless the last one ranks higher, or ranks the same and the
    words between them take the earlier one back. Words after the last statement may take it back, too.
    """
    last = stated[-1]
    for earlier in stated[:-1]:
        if earlier.option == last.option or earlier.rank < last.rank:
            continue
        if earlier.rank > last.rank or not REVISES.search(view, earlier.end, last.place[0]):
            return None
    return None if TAKEN_BACK.search(view[last.end :]) else last.option


def _marked(text: str, names: Names, depth: int) -> Iterator[Statement]:
    close = 0
    tagged = [*TAGGED.finditer(text)] if "<" in text or "[" in text else []
    filled = [tag for tag in tagged if tag["said"].strip()]
    for tag in filled or tagged[:1]:
        yield _statement(tag.start(), tag.end(), tag.span("said"), text, TAG, names, depth)
    if "box" in text or "\x08" in text:
        for box in _BOX.finditer(text):
            if box.start() < close:
                continue  # inside another box
            end = text.find(_UNBOX, box.end()) if box[0].endswith(">") else _brace(text, box.end())
            end = len(text) if end < 0 else end
            close = end + (len(_UNBOX) if box[0].endswith(">") else 1)
            if not any(tag.start() <= box.start() < tag.end() for tag in tagged):
                yield _statement(box.start(), close, (box.end(), end), text, MARKED, names, depth)
    if "{" in text:
        for key in _KEY.finditer(text):
            start, end = key.span("said")
            if key["said"][0] in "\"'[":
                start, end = start + 1, end - 1
            if not any(tag.start() <= key.start() < tag.end() for tag in tagged):
                yield _statement(key.start(), key.end(), (start, end), text, MARKED, names, depth)


def _statement(
    start: int, end: int, place: tuple[int, int], text: str, rank: int, names: Names, depth: int
) -> Statement:
    said = text[slice(*place)]
    return Statement(start=start, end=end, option=_content(said, names, depth + 1), rank=rank, place=place)


def _brace(text: str, start: int) -> int:
    """The place of the brace that closes the one before this place; -1 if there is none."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return place
    return -1


def _content(said: str, names: Names, depth: int) -> int | None:
    """Read the text between the marks of an answer as one option."""
    view = flat(said.replace("<|begin_of_box|>", " ").replace(_UNBOX, " "))
    if (option := whole(view, names)) is not None:
        return option
    inner = statements(said, view, names, depth)
    if inner:
        return settled(inner, view)
    claimed = claim(view, 0, names, strict=False, sure=True, copula=True)
    return claimed.option if claimed else None
