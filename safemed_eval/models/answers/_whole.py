"""Texts that consist of a letter or an option's text, or begin with a letter and then explain it."""

from __future__ import annotations

import re

from safemed_eval.models.answers._cues import (
    ALSO,
    CUED,
    SUPPOSED,
    Statement,
    alone_after,
    aside,
    attached_name,
    is_asked,
)
from safemed_eval.models.answers._names import WORD, Names, plain
from safemed_eval.models.answers._verdicts import CERTAIN, TAKEN_BACK, denied, listed
from safemed_eval.models.answers._weighed import weigh

_WHOLE_OPTION = re.compile(r"\W*(?:option|choice|answer|letter|assistant|1[.)])\s+", re.IGNORECASE)
_AFTERTHOUGHT = re.compile(
    rf"(?<![\s,(])[\s,(]{{1,4}}(?:{CERTAIN}|certain|sure|alone|correct|I\s+(?:think|believe|guess)"
    r"|(?:not|over|(?:rather|instead)\s+(?:than|of))\s+[(\[]?(?-i:[A-Z])(?:\s+or\s+(?-i:[A-Z]))?)[)\].!\s]*\Z",
    re.IGNORECASE,
)
"""Words behind an answer that leave it standing."""
_ONLY_LETTER = re.compile(r"[\s()\[\]{}<>'.,:;!-]*([A-Za-z])(?:\s*(?:입니다|です))?[\s()\[\]{}<>'.,:;!-]*")


def whole(view: str, names: Names) -> int | None:
    """Return the option if the whole text is its letter, its own text, or both, and perhaps an afterthought."""
    view = _AFTERTHOUGHT.sub("", view)
    if (bare := _ONLY_LETTER.fullmatch(view)) is not None:
        return names.of_letter(bare[1])
    said = plain(view)
    same = names.same.get(said, [])
    if same:
        return same[0] if len(same) == 1 else None
    if (option := _WHOLE_OPTION.match(view)) and (bare := _ONLY_LETTER.fullmatch(view, option.end())):
        return names.of_letter(bare[1])
    both = re.fullmatch(r"\W*([A-Z])(?!\w)\W*\s(\S.*?)\s*", view, re.DOTALL)
    if both and both[2] and (index := names.index(both[1])) is not None:
        return index if names.same.get(plain(both[2])) == [index] else None
    return None


_OPENING = re.compile(
    rf"[\s(\[{{<'.>-]*([A-Z])(?!{WORD}|'\w)(?P<mark>[)\]}}>]*\s*[).:,;—]"
    rf"|[)\]}}>]+|\s*\n|\s+-\s|\s+(?=(?:because|since|rather|not|instead)\b)|\s+)"
)


def opening(view: str, names: Names) -> Statement | None:
    """Read the marked letter that a text begins with, before an explanation; None if it begins otherwise."""
    first = _OPENING.match(view)
    if first is None or is_asked(view, first.end(1)):
        return None
    letter, at, option = first[1], first.start(1), names.of_letter(first[1])
    marked = first["mark"].strip() or "\n" in first["mark"]
    if letter == "A" and not marked:
        return None  # an article
    named = attached_name(view, first.end(1), names)
    if named is None:
        behind = view[first.end() : first.end() + 1]
        lower = behind.islower() and first["mark"].strip()[-1:] in (".", ":")
        if (not marked and not view.startswith(("because", "since", "rather", "not", "instead"), first.end())) or lower:
            return None
        if option is None and ")" not in first["mark"]:
            return None
        own_end = first.end(1)
    else:
        own_end = named.end()
        if option not in names.named(named[0]):
            option = None if not aside(view, named) else option
            own_end = first.end(1)
    if listed(view) or denied(view, own_end) or TAKEN_BACK.search(view, own_end) or SUPPOSED.match(view, own_end):
        return None
    if also := ALSO.match(view, own_end):
        option = None if also[1] != letter and alone_after(view, also) else option
    if named is not None and option is not None and _is_listed(view, at, names):
        return None
    if set(weigh(view, names).affirmed) - {option}:
        option = None
    return Statement(start=0, end=own_end, option=option, rank=CUED, place=(at, at + 1), lettered=True)


def _is_listed(view: str, place: int, names: Names) -> bool:
    """True if the letter at this place belongs to a list of the options."""
    listed = any(mention.start <= place < mention.end for mention in names.places(view))
    return listed and not any(mention.start <= place < mention.end for mention in names.mentions(view))
