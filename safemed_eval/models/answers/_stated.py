"""Explicit statements of an answer in a text: in tags, boxed, as a JSON value, or after a cue."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from safemed_eval.models.answers._cues import MARK, MARKED, TAG, Statement, claim, cued
from safemed_eval.models.answers._names import Names, flat
from safemed_eval.models.answers._verdicts import REVISES, TAKEN_BACK, denied
from safemed_eval.models.answers._whole import whole

_TAG = (
    r"answer|conclusion|final[_ -]?answer|answer[_ -]?letter|ans"
    r"|(?P<loose>final|output|result|response|choice|option|solution|prediction|verdict|selection|decision)"
)
TAGGED = re.compile(
    rf"(?:<\s{{0,3}}(?P<tag>{_TAG})\s{{0,3}}>|\[(?P<bracket>answer)\])(?P<said>.*?)"
    r"(?=<\s{0,3}/?\s{0,3}(?P=tag)\s{0,3}>|\[/?(?P=bracket)\]|\Z)",
    re.DOTALL | re.IGNORECASE,
)
"""A passage in the tags of an answer; `loose` tags count only if a text has no others."""
BOX = re.compile(r"\\?f?box(?:ed)?\s*\{|\x08oxed\s*\{|<\|begin_of_box\|>")
_UNBOX = "<|end_of_box|>"
_VALUE = r"""["']\s*:\s*(?P<said>"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\[[^\]\n]*\]|[^\s,}"'\[{]+)"""
_KEYS = (
    re.compile(
        r"""[{,\s]["'](?:(?:final|correct|predicted|selected|my)[_ -]?)?"""
        rf"""(?:answers?|choice|option|prediction|label|letter)(?:[_ -]?(?:letter|choice|option|key))?{_VALUE}""",
        re.IGNORECASE,
    ),
    re.compile(
        rf"""[{{,\s]["'](?:final|correct|result|response|output|decision|verdict|conclusion|diagnosis|pick|selection"
        rf"|selected|choices|ans){_VALUE}""",
        re.IGNORECASE,
    ),
)
"""JSON keys of answers; those of the second pattern count only if a text has none of the first."""
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
    if TAKEN_BACK.search(view[last.end :]) or _withdrawn(last, view):
        return None
    for earlier in stated[:-1]:
        cued_and_denied = earlier.rank < MARKED and _withdrawn(earlier, view)
        if earlier.option == last.option or earlier.rank < last.rank or cued_and_denied:
            continue
        if earlier.rank > last.rank or not REVISES.search(view, earlier.end, last.place[0]):
            return None
    return last.option


_CLOSING = re.compile(r"(?:</[^<>\n]{1,40}>|\[/\w{1,20}\])?")
_NEGATED = re.compile(r"(?:\b(?:not|never|except|unlike|than|(?:any|every)thing\s+but)|n't)[\s:'(]*\Z", re.IGNORECASE)


def _withdrawn(statement: Statement, view: str) -> bool:
    """True if the words around a statement deny it: `not <answer>A</answer>`, `Answer: A - wrong.`"""
    behind = _CLOSING.match(view, statement.end)
    assert behind is not None
    before = view[max(0, statement.start - 30) : statement.start]
    return denied(view, behind.end()) or (statement.rank >= MARKED and _NEGATED.search(before) is not None)


def _marked(text: str, names: Names, depth: int) -> Iterator[Statement]:
    close = 0
    tagged = [*TAGGED.finditer(text)] if "<" in text or "[" in text else []
    filled = [tag for tag in tagged if tag["said"].strip()]
    filled = [tag for tag in filled if not tag["loose"]] or filled
    for tag in filled or tagged[:1]:
        yield _statement(tag.start(), tag.end(), tag.span("said"), text, TAG, names, depth)
    if "box" in text or "\x08" in text:
        for box in BOX.finditer(text):
            if box.start() < close:
                continue  # inside another box
            end = text.find(_UNBOX, box.end()) if box[0].endswith(">") else _brace(text, box.end())
            end = len(text) if end < 0 else end
            close = end + (len(_UNBOX) if box[0].endswith(">") else 1)
            if not any(tag.start() <= box.start() < tag.end() for tag in tagged):
                yield _statement(box.start(), close, (box.end(), end), text, MARKED, names, depth)
    if "{" in text:
        for key in next(filter(None, ([*keys.finditer(text)] for keys in _KEYS)), []):
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
