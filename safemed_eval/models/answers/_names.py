"""Where a text names options, in their own words or as `option B`: whole words, the longest name first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_CJK = "\u2e80-\u9fff\uac00-\ud7af"
WORD = rf"[^\W{_CJK}]"
"""A character of a word in a script that puts blanks between words."""

_FLAT = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width forms of ASCII
_FLAT |= dict.fromkeys(map(ord, '*`"“”„«»#_$~|「」\ue000\ue001\u3000\u00a0\t✅☑✔'), ord(" "))
_FLAT |= {ord(a): ord(b) for a, b in ("【(", "】)", "『(", "』)", "。\n", "、,", "\r\n")}
_FLAT |= dict.fromkeys((0x2018, 0x2019), ord("'")) | dict.fromkeys((0x2010, 0x2011, 0x2013), ord("-"))  # quotes, dashes
_BOLD_LETTER = re.compile(r"(?<!\w)\*\*([A-Z])\*\*(?!\w)")
_LATEX = re.compile(
    r"\\[()\[\],;! ]|\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|mathbb|operatorname)\s*\{"
    r"|(?:\\f?box(?:ed)?|\bboxed)\s*\{"
)


def flat(text: str) -> str:
    """The text without marks of Markdown and LaTeX, full-width forms as ASCII: each character in its old place."""
    if "**" in text:
        text = _BOLD_LETTER.sub(r" (\1) ", text)
    if "boxed" in text or "\\" in text:
        text = _LATEX.sub(lambda found: " " * len(found[0]), text).replace("}", " ")
    return text.translate(_FLAT)


def plain(text: str) -> str:
    """Without case, runs of blanks, and marks around the words; to compare a text with an option."""
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
    r"it|us|an|a|i|in|is|as|at|be|am|on|to|of|or|he|me|we|so|do|if|up|by|pet|all|can|are|has|her|his|was|she|ill|aids|add"
    r"|pad|mad|not|out"
)
"""Words that are options only in the same case: "US", "IT", "PET"."""
_WEAK = re.compile(r"\W*(?:\d+(?:[.,/]\d+)*|\w|yes|no|none|true|false|other|others|unknown|both|neither)\W*")
"""Options that occur in any text with another meaning: these are read only where they stand by themselves."""
_UNIT = r"(?!\s?(?:%|°)|[\s-]?(?:[cm]?m|mm[23]?|cm[23]?|m[lgs]|kg|g|days?|weeks?|months?|years?|hours?|T|Hz|kVp?|HU)\b)"
KIND = (
    r"(?:(?:scans?|images?|imag(?:ery|ing)|slices?|views?|stud(?:y|ies)|sequences?|modality|exam(?:ination)?s?|films?"
    r"|radiographs?|radiography|photographs?|photography|pictures?|scanner|disease|infection|syndrome|diagnosis"
    r"|pattern"
    r"|pneumonia|planes?|projections?|type|findings?|options?|answer|technique|technology|category|class|changes|disorder|condition"
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
_WEAK_END = re.compile(rf"[\s)\]']*(?:\Z|[.,;:!—\n]|-\s|[{_CJK}])")


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A place in a text that names options: one, or several as in `A and B`, or as in `A) MRI` where B is MRI.

    Attributes:
        start, end: the place.
        options: their indexes.
        labelled: has a letter and the option's own text, as in `B) MRI`.
        weak: nothing but a text such as "No" or "2".
        letters: places of letters, for each its option.
        name: place of the option's own text.
    """

    start: int
    end: int
    options: frozenset[int]
    labelled: bool = False
    weak: bool = False
    letters: tuple[tuple[int, int], ...] = ()
    name: tuple[int, int] | None = None


class Names:
    """The options of a question, as they are looked for in texts.

    Attributes:
        same: the options by their text without case and marks; texts that differ in no more stand for several.
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
        """The option of a letter; None beyond the last one."""
        index = ord(letter.upper()) - ord("A")
        return index if 0 <= index < min(len(self.options), 26) else None

    def of_letter(self, letter: str) -> int | None:
        """The option that a letter by itself stands for: by its place or by its text, None where these differ."""
        index, same = self.index(letter), self.same.get(letter.casefold(), [])
        if index is None:
            return same[0] if len(same) == 1 else None
        return index if same in ([], [index]) else None

    def name_at(self, view: str, place: int) -> re.Match[str] | None:
        """The name of an option that begins here and ends as one."""
        found = self._name.match(view, place)
        if found is None or not self.named(found[0]):
            return None
        ends = _WEAK_END if _WEAK.fullmatch(found[0].casefold()) else NAME_END
        return found if ends.match(view, found.end()) else None

    def named(self, name: str) -> list[int]:
        """The options with this name, as it was found in a text."""
        return self._keys.get(_key(name), [])

    def mentions(self, view: str) -> list[Mention]:
        """All places that name options, a letter and the text beside it as one; lists of all options left out."""
        found = self.places(view)
        return _coordinated(view, _without_lists(view, _merged(view, found))) if found else found

    def places(self, view: str) -> list[Mention]:
        """Each letter and each name that stands for an option, one by one."""
        found: list[Mention] = []
        matches = [*self._name.finditer(view), *_LABELS.finditer(view)]
        for match in sorted(matches, key=lambda one: (one.start(), one.re is _LABELS)):
            one = self._labelled(match) if match.re is _LABELS else self._called(match)
            if one is not None and (not found or found[-1].end <= one.start):
                found.append(one)
        return found

    def _called(self, match: re.Match[str]) -> Mention | None:
        """An option's own text; None where it has another meaning here."""
        name = match[0]
        if not self.named(name):
            return None  # small and large letters that only regular expressions take for the same
        weak = bool(_WEAK.fullmatch(name.casefold()))
        if len(name) == 1 and name.isalpha():
            return None  # an option that is a letter is read by its place, or as a whole
        if weak and not name[0].isdigit() and not _WEAK_END.match(match.string, match.end()):
            return None  # "No" in "no fracture"
        return Mention(
            start=match.start(), end=match.end(), options=frozenset(self.named(name)), weak=weak, name=match.span()
        )

    def _labelled(self, match: re.Match[str]) -> Mention | None:
        """Letters of options, as in `option B`, `(B)`, `B is`; None where they have another meaning here."""
        group, view = str(match.lastgroup), match.string
        if group == "subject" and not begins(view, match.start()):
            return None
        if group == "listed" and not (_CLOSES.match(view, match.end()) or self._name.match(view, match.end() + 2)):
            return None  # "grade B. The..."
        places = [match.start(group) + one.start() for one in re.finditer(r"(?<!\w)[A-Z](?!\w)", match[group])]
        letters = tuple((at, index) for at in places if (index := self.index(view[at])) is not None)
        if not letters:
            return None
        return Mention(
            start=match.start(), end=match.end(), options=frozenset(index for _, index in letters), letters=letters
        )


@lru_cache(maxsize=2**12)
def names_of(options: tuple[str, ...]) -> Names:
    """The options of a question, compiled once."""
    return Names(options)


_BEGINS = re.compile(
    r"(?:\A|[.!?;:,\n(]|\b(?:so|therefore|thus|hence|that|but|and|or|nor|both|neither|either|think|believe"
    r"|conclude|clearly))[\s'>-]*\Z",
    re.IGNORECASE,
)


def begins(view: str, place: int) -> bool:
    """Whether a clause may begin here: `B is correct`, but not `hepatitis B is correct`."""
    return _BEGINS.search(view[max(0, place - 40) : place]) is not None


def _key(name: str) -> str:
    """The same for "X-Ray", "X ray" and "xray"."""
    return re.sub(r"[-\s]+", "", name).casefold()


def _pattern(word: str, written: str) -> str:
    """A name in a text, not part of a number ("2.5"), a number without a unit."""
    found = re.escape(written if len(word) == len(written) else word)
    found = re.sub(r"(?:\\ )+", r"[-\\s]+", found)
    found = re.sub(r"(?<=[^\]])\\-", r"[-\\s]?", found)
    if not (_ENGLISH.fullmatch(word) or (len(word) == 1 and word.isalpha())):
        found = rf"(?i:{found})"
    number = r"(?![.,]\d)(?!\s?%)" if word[-1].isdigit() else ""
    unit = _UNIT if _WEAK.fullmatch(word) and word[-1].isdigit() else ""
    before = r"(?<!\d[.,])(?<![-+])" if word[0].isdigit() else ""
    return f"{before}{found}{number}{unit}"


_LABEL_TO_NAME = re.compile(r"[\s,.:;)\]=(-]*(?:(?:an?|the)\s+)?")
_TO_BRACKET = re.compile(r"\s*")
_BETWEEN_LISTED = re.compile(r"[\s,;.)-]*(?:(?:and|or)\s+)?")
_AND = re.compile(
    r"\)?\s*(?:,\s*(?:(?:and|or|nor)\b)?|(?:and|or|nor|versus|vs\.?|plus|with)\b|&|/|\+)\s*(?:(?:an?|the|any)\s+)?"
)


def _merged(view: str, found: list[Mention]) -> list[Mention]:
    """`B) MRI`, `Option B, MRI,` and `MRI (B)` as one mention each."""
    merged: list[Mention] = []
    for one in found:
        last = merged[-1] if merged else None
        if last is not None:
            named = (
                last.letters and one.name and not one.letters and _LABEL_TO_NAME.fullmatch(view, last.end, one.start)
            )
            called = last.name and not last.letters and one.letters and view[one.start] in "(["
            if named or (called and _TO_BRACKET.fullmatch(view, last.end, one.start)):
                both = last.options | one.options
                own = bool(last.options & one.options) and len(last.letters or one.letters) == 1
                merged[-1] = Mention(
                    start=last.start,
                    end=one.end,
                    options=last.options & one.options if own else both,
                    labelled=own,
                    letters=last.letters or one.letters,
                    name=last.name or one.name,
                )
                continue
        merged.append(one)
    return merged


def _without_lists(view: str, found: list[Mention]) -> list[Mention]:
    """Without options that are listed one after another with their letters, as the prompt lists them."""
    kept: list[Mention] = []
    listed = False
    for one, following in zip(found, [*found[1:], None], strict=True):
        joined = (
            following is not None
            and one.labelled
            and following.labelled
            and one.options != following.options
            and _BETWEEN_LISTED.fullmatch(view, one.end, following.start)
        )
        if not (joined or listed):
            kept.append(one)
        listed = bool(joined)
    return kept


def _coordinated(view: str, found: list[Mention]) -> list[Mention]:
    """`CT and MRI`, `CT, MRI or X-Ray` as one mention of all."""
    joined: list[Mention] = []
    for one in found:
        last = joined[-1] if joined else None
        if last is not None and _AND.fullmatch(view, last.end, one.start):
            joined[-1] = Mention(
                start=last.start,
                end=one.end,
                options=last.options | one.options,
                weak=last.weak and one.weak,
                letters=last.letters + one.letters,
            )
        else:
            joined.append(one)
    return joined
