"""What the words next to an option say of it: that it is right (`B: yes`), or that it is wrong (`C. Doesn't fit`)."""

from __future__ import annotations

import re

from safemed_eval.models.answers._names import WORD, Names

CERTAIN = (
    r"(?:(?:(?:very|most|almost|quite)\s+)?(?:likely|probably|certainly|surely|definitely)|clearly|obviously"
    r"|undoubtedly|unquestionably|evidently|simply|really|exactly|precisely|absolutely|plainly|presumably|indeed"
    r"|thus|therefore|only|just|actually|still|for\s+sure|in\s+all\s+likelihood"
    r"|of\s+course|without\s+(?:an?y?\s+)?doubt|(?:there\s+is\s+)?no\s+doubt)"
)
"""Adverbs that leave a statement standing."""
WRONG = (
    r"(?:incorrect[aeo]?|wrong|untrue|mistaken|misleading|unlikely|improbable|implausible|impossible|inconsistent"
    r"|incompatible|inappropriate|unsuitable|unsupported|excluded|ruled\s+out|eliminated|rejected|dismissed|discarded"
    r"|invalid|irrelevant|inaccurate|refuted|disproved|contradicted"
    r"|less\s+(?:likely|probable|consistent)|falsch|fausse|falsa)"
)
"""What is said of an option that is not the answer."""
BACK = (
    r"(?:\b(?:wait|hold\s+on|oops|hmm+|actually|correction|scratch\s+that|sorry|apologies|(?:or\s+)?rather(?!\s+than)"
    r"|(?:I|we)\s+mean(?:t)?|make\s+that|(?:up)?on\s+(?:second\s+thoughts?|(?:closer\s+)?(?:reflection|inspection))"
    r"|my\s+mistake|I\s+(?:was|made)\s+(?:wrong|mistaken|a\s+mistake|an\s+error)|let\s+me\s+(?:correct|re-?\w+)"
    r"|instead)\b|(?<=[,.…?!—-]\s)no(?=\s*[,:—-]))"
)
"""Words that take back what was said before them."""
REVISES = re.compile(
    rf"{BACK}|\b(?:apologi[sz]e|(?:change|revise|correct|update)\s+my\s+answer|revised|corrected|rather"
    r"|(?:that|this)(?:'s|\s+is|\s+was)\s+(?:wrong|incorrect|not\s+(?:right|correct)))\b",
    re.IGNORECASE,
)
TAKEN_BACK = re.compile(
    r"(?:\A|[.!?\n])\W*(?:(?:no|hmm|oh)\b\W*)*\b(?:hmm\W+no|wait|actually|correction|on\s+second\s+thoughts?"
    r"|scratch\s+that|let\s+me\s+re-?\w*|i\s+was\s+wrong|i\s+made\s+a\s+mistake|my\s+mistake)\b"
    r"|\b(?:that|this)(?:'s|\s+is|\s+was)\s+(?:wrong|incorrect|not\s+(?:right|correct))\b",
    re.IGNORECASE,
)
_START = (
    r"[\s,.:;?()=—>…-]*(?:(?:though|although|while|despite|even\s+if)\b[^,.\n]{0,60},\s*)?(?:(?:and|but|so)\s+)?"
    r"(?:(?:this|that|it|the|which|here|option|choice|answer|one|statement|description)\b(?:'s\b)?[\s,:]*){0,4}"
    r"(?:(?:is|was|are|to|be|would|can|could|may|must|should|has|have|been|seems?|appears?|looks?|also|completely"
    r"|totally"
    rf"|entirely|highly|very|the|(?-i:[Aa]n|a)|rather|most|absolutely|ist|está|est|es|è|é|{CERTAIN})\b\s*){{0,6}}"
)
_END = r"(?=\s*(?:[.,;:!)—…-]|\Z|\n|(?-i:\(?[A-Z][).:])|(?:because|since|as|here|for|due)\b))"
_NO_OBJECT = (
    r"(?! +(?:(?:to|be|with|that|would|like|options?)\s+){0,3}(?:an?\s+)?(?-i:[A-Z](?![):])|\ue000)"
    r"|\s*(?:(?:option|answer|choice)s?\s*)?:[\s(\[]*(?-i:[A-Z]\b|[A-Z]{2}|\ue000)| +(?:option|answer|choice|one)s\b"
    r"| +with\s+(?!the\b|these\b|this\b|our\b|what\b|any\b|image|finding))"
)
"""Nothing follows that is denied instead: not `B. Excluded A`, `B. Wrong answers: A`, `B. Not consistent with CT`."""
_GOOD = (
    rf"(?:(?:it|this|that|so){_END}|(?:this|the|a)\s+(?:one|option|answer|case|choice)\b"
    r"|(?:(?:good|best|right|correct|suitable|plausible|likely)\s+)?(?:likely|probable|plausible|possible|correct"
    r"|right"
    r"|true|supported|consistent|compatible|appropriate|suitable|indicated|valid|relevant|applicable|(?:seen|visible"
    r"|shown|present)(?!\s+(?:in|on)\b)|answer|option|choice|fit|match|candidate)\b)"
)
_FIT = r"(?:fit|match|apply|work|hold|make\s+sense|correspond|agree|explain|describe|belong|account)\b"
_NOT = r"(?:not|never|cannot|can't|won't|\w{2,6}n't|nicht|ne)"
_NO = (
    r"(?:✗|(?:(?!(?:wrong|incorrect|mistaken|misleading|inappropriate)\s+to\s+(?!choose|pick|select))"
    rf"{WRONG}|false(?!\s+(?:positive|negative|lumen))|distractor|trap|(?:doubtful|questionable|mistake"
    rf"|error){_END}|out(?!\s+of))\b"
    rf"|(?:poor|bad|weak)\s+(?:choice|option|answer|fit|match|candidate)\b|(?:no|nope|never|not|none|(?-i:N)"
    rf"|\w{{2,6}}n't)\b{_END}|(?:no\s+way|by\s+no\s+means|not\s+at\s+all)\b"
    r"|(?:(?:do|does|did|can|could|is|was|would|will|may)\s+)?"
    rf"{_NOT}\s+(?:(?:be|really|at\s+all|the|(?-i:an?)|very|{CERTAIN})\s+){{0,3}}(?:{_GOOD}|{_FIT}|be{_END}"
    rf"|richtig\b|korrekt\b)"
    r"|fails?\b|makes?\s+no\s+sense|contradicts?\b|(?:there(?:'s|\s+is)\s+)?no\s+(?:evidence|support|sign)\s+(?:for"
    r"|of)\s+"
    r"(?:it|this|that)\b|(?:I|we)(?:'d|'ll|\s+(?:would|can|could|will|must))?\s+(?:(?:reject|exclude|dismiss"
    r"|eliminate|discard"
    r"|rule\s+out)\s+(?:it|this|that)|rule\s+(?:it|this|that)\s+out|disagree|do(?:n't|\s+not)\s+agree)\b"
    r"|I\s+(?:\w+\s+)?(?:doubt|(?:do\s+not|don't)\s+(?:think|believe))\s+(?:it|this|that|so)\b"
    rf"|(?:选项|選項|项|項)?是?(?:错|錯|不正确|不对|不符|排除)){_NO_OBJECT}"
)
_YES = (
    rf"(?:(?:correct[aeo]?|true|yes|(?-i:Y)|confirmed|richtig|korrekt|corretta|fits|matches|answer)\b|right{_END}"
    rf"|(?:right|best|likely)\s+(?:answer|option|choice|one|fit|match)\b|(?:选项|選項|项|項)?是?(?:正确|對|对))"
)
_DENIED = re.compile(_START + _NO, re.IGNORECASE)
_AFFIRMED = re.compile(_START + _YES, re.IGNORECASE)
_CLAUSE = re.compile(r"[.;,:\n(—]|\s-\s|\b(?:so|therefore|thus|hence|but)\b", re.IGNORECASE)
_ENTRY = re.compile(
    r"(?:\A|(?<=[.;,!?\n])|(?<= )(?=\([A-Z]\)))[ \t>•✗☐☒-]*(?:(?:\[[ xX✗]?\]|\([ xX]?\)|\d{1,3}[.)])[ \t]{0,3})?"
    rf"(?:(?i:option|choice|answer)\s+|选项)?[(\[]?(?P<letter>[A-Z])(?!{WORD}|['-]\w)"
    r"(?=[)\]]*\s*(?:[).:?,;(=✗\n—-]|\Z|is\b|项|是|正|错|不|对|對|[A-Z]))[)\].:?]*"
)
"""The head of an entry in a list of options, such as `- **Option B**:`, `[x] B)` or `❌ A`."""
_BOLD = re.compile(r"\*\*|__|\*(?=[A-Z])")
_GAP = re.compile(r"[\s,.:;=(-]*")
_TICK = re.compile(r"[\[(][xX✓✔][\])]|[✅☑✔✓☒]|\((?:correct|right)(?:\s+answer)?\)|←|<--?", re.IGNORECASE)


def denied(view: str, place: int) -> bool:
    """True if the words at this place, right after an option, say that it is not the answer."""
    return _DENIED.match(view, place) is not None


def listed(view: str) -> bool:
    """True if the text begins with a list of the options, letter by letter, line by line."""
    lines = [entry for entry in _ENTRY.finditer(view) if not view[: entry.start()].rpartition("\n")[2].strip()]
    return len(lines) > 1 and lines[0].start() == 0 and [entry["letter"] for entry in lines[:2]] == ["A", "B"]


def judged(text: str, view: str, names: Names) -> list[int]:
    """Read a list that judges options one by one (`A: no`, `B: yes`) or marks one of them (`[x] B`).

    Returns:
        The options that are right; none if there is no such list.
    """
    entries = [*_ENTRY.finditer(view)]
    letters = [entry["letter"] for entry in entries]
    if not 2 <= len(entries) == len({*letters}) or any(names.index(letter) is None for letter in letters):
        return []
    ends = [*(entry.start() for entry in entries[1:]), len(view)]
    said = [_behind_name(view, entry.end(), end, names) for entry, end in zip(entries, ends, strict=True)]
    parts = [*zip(entries, said, ends, strict=True)]
    verdicts: list[bool | None] = [
        True if _TICK.search(text, entry.start(), end) else "✗" not in entry[0] and verdict(view, place, end)
        for entry, place, end in parts
    ]
    if not any(re.search(r"\w", _TICK.sub("", text[place:end])) for _, place, end in parts):
        marks = _TICK if any(verdicts) else _BOLD
        verdicts = [marks.search(text, entry.start(), end) is not None for entry, _, end in parts]
    if sum(verdict is not None for verdict in verdicts) < 2:
        return []
    return [ord(letter) - ord("A") for letter, verdict in zip(letters, verdicts, strict=True) if verdict]


def _behind_name(view: str, place: int, end: int, names: Names) -> int:
    """The place behind the name of an option that stands at this place, if one does."""
    gap = _GAP.match(view, place)
    assert gap is not None
    name = names.name_at(view, gap.end())
    return min(name.end(), end) if name else place


def verdict(view: str, place: int, end: int) -> bool | None:
    """True or False if a clause of this part begins by saying that an option is right or wrong; the first counts."""
    for start in (place, *(clause.end() for clause in _CLAUSE.finditer(view, place, end))):
        if start < end and _DENIED.match(view, start, end):
            return False
        if start < end and _AFFIRMED.match(view, start, end):
            return True
    return None
