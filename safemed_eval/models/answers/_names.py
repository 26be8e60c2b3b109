"""Find the places where a text names options, in their own words or as `option B`: whole words, longest name first."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_CJK = "\u2e80-\u9fff\uac00-\ud7af"
WORD = rf"[^\W{_CJK}]"
"""A letter or digit of a script that separates words by blanks."""


class _Flat(dict[int, int]):
    """The plain form of each character: its letter or digit in NFKC, a blank if it is invisible."""

    def __missing__(self, code: int) -> int:
        folded = unicodedata.normalize("NFKC", chr(code))
        folded = folded if len(folded) == 1 else folded.strip("().")
        hidden = unicodedata.category(chr(code)) == "Cf" or 0xFE00 <= code <= 0xFE0F
        self[code] = ord(" ") if hidden else ord(folded) if len(folded) == 1 and code > 127 else code
        return self[code]


_FLAT = _Flat(dict.fromkeys(map(ord, '*`"“”„«»#_$~|「」\ue000\ue001\u3000\u00a0\t✅☑✔✓'), ord(" ")))
_FLAT |= {
    ord(a): ord(b)
    for a, b in ("【(", "】)", "『(", "』)", "。\n", "、,", "\r\n", "❌✗", "✘✗", "✖✗", "👎✗", "⛔✗", "🚫✗")
}
_FLAT |= dict.fromkeys((0x2018, 0x2019), ord("'")) | dict.fromkeys((0x2010, 0x2011, 0x2013), ord("-"))  # quotes, dashes
_FLAT |= {code: code - 0x1F170 + ord("A") for code in range(0x1F170, 0x1F18A)}  # white letters on a square
_BOLD_LETTER = re.compile(r"(?<!\w)\*\*([A-Z])\*\*(?!\w)")
_STRUCK = re.compile(r"~~[^~\n]{1,200}~~|<(del|strike)>[^<>]{0,200}</\1>")
_MARKUP = re.compile(
    r"</?(?:b|i|u|em|strong|mark|code|span|p|br|font|div|h[1-6]|li)\b[^<>\n]{0,60}>|&(?:quot|apos|nbsp|#39);"
    r"|\bboxed\s*\{"
    r"|\\(?:text)?color\s*\{\w{1,20}\}\s*\{?|\\[()\[\],;! ]"
    r"|\\(?:text[a-z]{0,8}|math[a-z]{0,8}|operatorname|underline|emph|bf|it|rm|sf|tt|em|bfseries|itshape|large|Large"
    r"|LARGE|huge|Huge|small|normalsize|displaystyle|f?box|f?boxed|framebox)(?![A-Za-z])\s*\{?"
)


def flat(text: str) -> str:
    """Blank out marks of Markdown, LaTeX and HTML and what is struck through, and convert compatibility forms of
    characters to plain ones; every character keeps its place."""
    if "**" in text:
        text = _BOLD_LETTER.sub(r" (\1) ", text)
    if any(mark in text for mark in ("\\", "boxed", "<", "~~", "&")):
        text = _MARKUP.sub(_blank, _STRUCK.sub(_blank, text))
    if "boxed" in text or "\\" in text:
        text = text.replace("}", " ")
    return text.translate(_FLAT)


def _blank(match: re.Match[str]) -> str:
    return " " * (len(match[0]) - 1) + ("\n" if match[0].startswith(("<br", "</p")) else " ")


def plain(text: str) -> str:
    """Normalize case, blanks and surrounding marks, to compare a text with an option."""
    return re.sub(r"\s+", " ", flat(text)).strip(" .'{}").casefold()


_LETTERS = rf"[A-Z](?:\s*(?:,\s*(?:and\b|or\b)?|and\b|or\b|&|/)\s*[(\[]?[A-Z][)\]]?(?!{WORD}|['-])){{0,9}}"
_LABEL = (
    rf"\b(?i:options?|choices?|answers?|letter)\s+[(\[]?(?P<option>{_LETTERS})[)\]]?(?!{WORD}|['-])"
    rf"|[(\[](?P<bracket>{_LETTERS})[)\]](?!{WORD})"
    r"|(?:\A|(?<=\n))[ >•+-]*(?:\d+[.)]\s*)?(?P<line>[A-Z])[).:](?=\s)"
    rf"|(?<!{WORD})(?P<subject>{_LETTERS})"
    r"(?=\s+(?:is|was|are|were|can|cannot|would|does|fits|matches|seems|appears|best)\b)"
)
_LABELS = re.compile(rf"{_LABEL}|(?<=[\s,;])(?P<listed>[A-Z])(?=\)\s|[.:]\s)")
_CLOSES = re.compile(r"\)")
_NAME_BEGINS = rf"(?<!{WORD})(?<!\w[-/])"
_NAME_IS_WHOLE = rf"(?:(?<=\w)(?!{WORD})|(?<!\w))(?![/-](?!weighted|scan|image|imaging|based|type)\w)(?!'(?!s\b)\w)"
"""Whole words, and not part of a compound such as "PET-CT"."""
_ENGLISH = re.compile(
    r"it|us|an|a|i|in|is|as|at|be|am|on|to|of|or|he|me|we|so|do|if|up|by|pet|all|can|are|has|her|his|was|she|ill"
    r"|aids|add"
    r"|pad|mad|not|out"
)
"""Words that name an option only in the option's own case: "US", "IT", "PET"."""
_WEAK = re.compile(r"\W*(?:\d+(?:[.,/]\d+)*|\w|yes|no|none|true|false|other|others|unknown|both|neither)\W*")
"""Options that occur in any text with another meaning; they are read only where they stand alone."""
_UNIT = r"(?!\s?(?:%|°)|[\s-]?(?:[cm]?m|mm[23]?|cm[23]?|m[lgs]|kg|g|days?|weeks?|months?|years?|hours?|T|Hz|kVp?|HU)\b)"
KIND = (
    r"(?:(?:scans?|images?|imag(?:ery|ing)|slices?|views?|stud(?:y|ies)|sequences?|modality|exam(?:ination)?s?|films?"
    r"|radiographs?|radiography|photographs?|photography|pictures?|scanner|disease|infection|syndrome|diagnosis"
    r"|pattern"
    r"|pneumonia|planes?|projections?|type|findings?|options?|answer|technique|technology|category|class|changes"
    r"|disorder|condition"
    r"|process)\b)"
)
NAME_END = re.compile(
    rf"\s*(?:\Z|\n|[^\w\s]|[{_CJK}]|(?-i:[A-Z][).:])|{KIND}|(?:of|in|on|at|by|with|without|within|from|for|to|as"
    rf"|is|are|was|were|has"
    r"|have|had|can|could|may|might|will|would|should|does|do|did|because|since|due|given|which|that|and|or|but|than"
    r"|over|rather|not|likely|based|here|if|when|while|though|cannot|nor|show\w*|demonstrat\w+|depict\w+|reveal\w+"
    r"|display\w+|indicat\w+|obtained|taken|acquired|performed|seen|located|involving|affecting|measuring|caused"
    r"|characteri[sz]ed|visible|present|identified|appears?|seems?|fits?|best|match\w+|explains?|describes?|provides?"
    r"|uses?|remains?|the\s+(?:best|correct|right|most)|alone|instead|typically|usually|often|generally|commonly"
    r"|also|y|et|und|oder|por|porque|car|weil)\b)",
    re.IGNORECASE,
)
_WEAK_END = re.compile(rf"[\s)\]']*(?:\Z|[.,;:!—\n]|\((?=[A-Z]\))|-\s|[{_CJK}])")


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A place in a text that names one option, or several, as in `A and B`, or in `A) MRI` where B is MRI.

    Attributes:
        start, end: the place.
        options: their indexes.
        labelled: it has a letter and the option's own text, as in `B) MRI`.
        weak: it is only a text such as "No" or "2".
        letters: places of letters, each with its option.
        name: the place of the option's own text.
    """

    start: int
    end: int
    options: frozenset[int]
    labelled: bool = False
    weak: bool = False
    letters: tuple[tuple[int, int], ...] = ()
    name: tuple[int, int] | None = None


class Names:
    """Searches texts for the options of a question.

    Attributes:
        same: the options by their normalized text; one text stands for several options that differ only in case or
            marks.
    """

    def __init__(self, options: tuple[str, ...]) -> None:
        self.options = options
        self.same: dict[str, list[int]] = {}
        self._keys: dict[str, list[int]] = {}
        for index, option in enumerate(options):
            self.same.setdefault(plain(option), []).append(index)
            self._keys.setdefault(_key(plain(option)), []).append(index)
        words = sorted(filter(None, self.same), key=len, reverse=True)
        names = "|".join(_pattern(word, self._case(word)) for word in words) or r"(?!)"
        self._name = re.compile(rf"{_NAME_BEGINS}(?:{names}){_NAME_IS_WHOLE}")

    def _case(self, word: str) -> str:
        return " ".join(flat(self.options[self.same[word][0]]).split()).strip(" .'{}")

    def index(self, letter: str) -> int | None:
        """The option of a letter; None beyond the last option."""
        index = ord(letter.upper()) - ord("A")
        return index if 0 <= index < min(len(self.options), 26) else None

    def of_letter(self, letter: str) -> int | None:
        """The option that a letter alone stands for, by its place or by its text; None if these differ."""
        index, same = self.index(letter), self.same.get(letter.casefold(), [])
        if index is None:
            return same[0] if len(same) == 1 else None
        return index if same in ([], [index]) else None

    def name_at(self, view: str, place: int) -> re.Match[str] | None:
        """Match the name of an option at this place, if it also ends like a name."""
        name = self._name.match(view, place)
        if name is None or not self.named(name[0]):
            return None
        ends = _WEAK_END if _WEAK.fullmatch(name[0].casefold()) else NAME_END
        return name if ends.match(view, name.end()) else None

    def named(self, name: str) -> list[int]:
        """The options with this name, as a text spells it."""
        return self._keys.get(_key(name), [])

    def mentions(self, view: str) -> list[Mention]:
        """Find all places that name options, lists of options excepted. A letter and the text next to it are one."""
        places = self.places(view)
        return _coordinated(view, _without_lists(view, _merged(view, places))) if places else places

    def places(self, view: str) -> list[Mention]:
        """Find each letter and each name that stands for an option, one by one."""
        mentions: list[Mention] = []
        matches = [*self._name.finditer(view), *_LABELS.finditer(view)]
        for match in sorted(matches, key=lambda match: (match.start(), match.re is _LABELS)):
            mention = self._labelled(match) if match.re is _LABELS else self._called(match)
            if mention is not None and (not mentions or mentions[-1].end <= mention.start):
                mentions.append(mention)
        return mentions

    def _called(self, match: re.Match[str]) -> Mention | None:
        """Read an option's own text; None if it has another meaning at this place."""
        name = match[0]
        if not self.named(name):
            return None  # differs in a letter that only regular expressions consider the same
        weak = bool(_WEAK.fullmatch(name.casefold()))
        if len(name) == 1 and name.isalpha():
            return None  # an option that is a letter is read by its place, or as a whole
        if weak and not name[0].isdigit() and not _WEAK_END.match(match.string, match.end()):
            return None  # "No" in "no fracture"
        return Mention(
            start=match.start(), end=match.end(), options=frozenset(self.named(name)), weak=weak, name=match.span()
        )

    def _labelled(self, match: re.Match[str]) -> Mention | None:
        """Read letters of options, as in `option B`, `(B)`, `B is`; None if they have another meaning at this place."""
        group, view = str(match.lastgroup), match.string
        if group == "subject" and not begins(view, match.start()):
            return None
        if group == "listed" and not (_CLOSES.match(view, match.end()) or self._name.match(view, match.end() + 2)):
            return None  # "grade B. The..."
        places = [match.start(group) + letter.start() for letter in re.finditer(r"(?<!\w)[A-Z](?!\w)", match[group])]
        letters = tuple((at, index) for at in places if (index := self.index(view[at])) is not None)
        if not letters:
            return None
        return Mention(
            start=match.start(), end=match.end(), options=frozenset(index for _, index in letters), letters=letters
        )


@lru_cache(maxsize=2**12)
def names_of(options: tuple[str, ...]) -> Names:
    """Compile the options of a question, once."""
    return Names(options)


_BEGINS = re.compile(
    r"(?:\A|[.!?;:,\n(]|\b(?:so|therefore|thus|hence|that|but|and|or|nor|both|neither|either|think|believe"
    r"|only|unlike|reflection|conclude|clearly))[\s'>-]*\Z",
    re.IGNORECASE,
)


def begins(view: str, place: int) -> bool:
    """True if a clause may begin at this place: `B is correct`, but not `hepatitis B is correct`."""
    return _BEGINS.search(view[max(0, place - 40) : place]) is not None


def _key(name: str) -> str:
    """A key that "X-Ray", "X ray" and "xray" share."""
    return re.sub(r"[-\s]+", "", name).casefold()


def _pattern(word: str, written: str) -> str:
    """A pattern for a name in a text; a number must not be part of another ("2.5"), a bound ("> 2") or have a unit."""
    pattern = re.escape(written if len(word) == len(written) else word)
    pattern = re.sub(r"(?:\\ )+", r"[-\\s]+", pattern)
    pattern = re.sub(r"(?<=[^\]])\\-", r"[-\\s]?", pattern)
    if not (_ENGLISH.fullmatch(word) or (len(word) == 1 and word.isalpha())):
        pattern = rf"(?i:{pattern})"
    number = (
        r"(?![.,]\d)(?!\s?%)(?!\+(?!\s*\d))(?!\s+or\s+(?:more|less|fewer|higher|lower|above|below|greater)\b)"
        if word[-1].isdigit()
        else ""
    )
    unit = _UNIT if _WEAK.fullmatch(word) and word[-1].isdigit() else ""
    before = r"(?<!\d[.,])(?<![-+<≤≥≦≧])(?<![<≤≥≦≧]\s)(?<!(?<![=-])>)(?<!(?<![=-])>\s)" if word[0].isdigit() else ""
    return f"{before}{pattern}{number}{unit}"


_LABEL_TO_NAME = re.compile(r"[\s,.:;)\]=(-]*(?:(?:an?|the)\s+)?")
_TO_BRACKET = re.compile(r"\s*")
_BETWEEN_LISTED = re.compile(r"[\s,;.)-]*(?:(?:and|or)\s+)?")
_AND = re.compile(
    r"\)?\s*(?:,\s*(?:(?:and|or|nor)\b)?|(?:and|or|nor|versus|vs\.?|plus|with)\b|&|/|\+)\s*(?:(?:an?|the|any)\s+)?"
)


def _merged(view: str, mentions: list[Mention]) -> list[Mention]:
    """Merge the two parts of `B) MRI`, `Option B, MRI,` and `MRI (B)` into one mention."""
    merged: list[Mention] = []
    for mention in mentions:
        last = merged[-1] if merged else None
        if last is not None:
            named = (
                last.letters
                and mention.name
                and not mention.letters
                and _LABEL_TO_NAME.fullmatch(view, last.end, mention.start)
            )
            called = last.name and not last.letters and mention.letters and view[mention.start] in "(["
            if named or (called and _TO_BRACKET.fullmatch(view, last.end, mention.start)):
                both = last.options | mention.options
                own = bool(last.options & mention.options) and len(last.letters or mention.letters) == 1
                merged[-1] = Mention(
                    start=last.start,
                    end=mention.end,
                    options=last.options & mention.options if own else both,
                    labelled=own,
                    letters=last.letters or mention.letters,
                    name=last.name or mention.name,
                )
                continue
        merged.append(mention)
    return merged


def _without_lists(view: str, mentions: list[Mention]) -> list[Mention]:
    """Leave out options that are listed one after another with their letters, as in the prompt."""
    kept: list[Mention] = []
    listed = False
    for mention, following in zip(mentions, [*mentions[1:], None], strict=True):
        joined = (
            following is not None
            and mention.labelled
            and following.labelled
            and mention.options != following.options
            and _BETWEEN_LISTED.fullmatch(view, mention.end, following.start)
        )
        if not (joined or listed):
            kept.append(mention)
        listed = bool(joined)
    return kept


def _coordinated(view: str, mentions: list[Mention]) -> list[Mention]:
    """Join `CT and MRI` or `CT, MRI or X-Ray` into one mention of all of them."""
    joined: list[Mention] = []
    for mention in mentions:
        last = joined[-1] if joined else None
        if last is not None and _AND.fullmatch(view, last.end, mention.start):
            joined[-1] = Mention(
                start=last.start,
                end=mention.end,
                options=last.options | mention.options,
                weak=last.weak and mention.weak,
                letters=last.letters + mention.letters,
            )
        else:
            joined.append(mention)
    return joined
