"""Which options a text names, in words or as `option B`, and whether it affirms or denies them.

The rules are for prose as vision-language models write it. They decide for nothing where two rules disagree: a mention
that is denied twice, hedged ("could be"), generic ("CT usually shows") or part of a question affirms no option.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

_CJK = "\u2e80-\u9fff\uac00-\ud7af"
WORD = rf"[^\W{_CJK}]"
"""A character of a word in a script that puts blanks between words."""

_FLAT = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width forms of ASCII
_FLAT |= dict.fromkeys(map(ord, '*`"“”„«»#_$~|「」\u3000\u00a0\t✅☑✔'), ord(" "))
_FLAT |= {ord(a): ord(b) for a, b in ("【(", "】)", "『(", "』)", "。\n", "、,", "\r\n", "’'", "‘'", "‐-", "‑-", "–-")}
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


# ------------------------------------------------------------------------------------------------- where options stand

_LETTERS = rf"[A-Z](?:\s*(?:,\s*(?:and\b|or\b)?|and\b|or\b|&|/)\s*[(\[]?[A-Z][)\]]?(?!{WORD}|['-]))*"
_LABEL = (
    rf"\b(?i:options?|choices?|answers?|letter)\s+[(\[]?(?P<option>{_LETTERS})[)\]]?(?!{WORD}|['-])"
    rf"|[(\[](?P<bracket>{_LETTERS})[)\]](?!{WORD})"
    r"|(?:\A|(?<=\n))[ >•+-]*(?:\d+[.)]\s*)?(?P<line>[A-Z])[).:](?=\s)"
    rf"|(?<!{WORD})(?P<subject>{_LETTERS})"
    r"(?=\s+(?:is|was|are|were|can|cannot|would|does|fits|matches|seems|appears|best)\b)"
)
_ENGLISH = frozenset(
    [
        "it",
        "us",
        "an",
        "a",
        "i",
        "in",
        "is",
        "as",
        "at",
        "be",
        "am",
        "on",
        "to",
        "of",
        "or",
        "he",
        "me",
        "we",
        "so",
        "do",
        "if",
        "up",
        "by",
        "pet",
        "all",
        "can",
        "are",
        "has",
        "her",
        "his",
        "was",
        "she",
        "ill",
        "aids",
        "add",
        "pad",
        "mad",
        "not",
        "out",
    ]
)
_WEAK = re.compile(r"\W*(?:\d+(?:[.,/]\d+)*|\w|yes|no|none|true|false|other|others|unknown|both|neither)\W*")
"""Options that occur in any text with another meaning: these are read only where they stand by themselves."""
_UNIT = r"(?!\s?(?:%|°)|[\s-]?(?:[cm]?m|mm[23]?|cm[23]?|m[lgs]|kg|g|days?|weeks?|months?|years?|hours?|T|Hz|kVp?|HU)\b)"
_HIDDEN = "\ue000"


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


@dataclass(frozen=True)
class Names:
    """The options of a question, as they are looked for in texts."""

    options: tuple[str, ...]
    same: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, option in enumerate(self.options):
            self.same.setdefault(plain(option), []).append(index)
        words = sorted(filter(None, self.same), key=len, reverse=True)
        names = "|".join(_pattern(word, self._case(word)) for word in words) or r"(?!)"
        listed = rf"|(?<=[\s,;])(?P<listed>[A-Z])(?:\)(?=\s)|[.:]\s+(?={names}))"
        object.__setattr__(self, "_find", re.compile(rf"(?P<name>{names})|{_LABEL}{listed}"))
        object.__setattr__(self, "_name", re.compile(names))

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
        found: re.Match[str] | None = self._name.match(view, place)  # type: ignore[attr-defined]
        if found is None:
            return None
        ends = _WEAK_END if _WEAK.fullmatch(found[0].casefold()) else _NAME_END
        return found if ends.match(view, found.end()) else None

    def named(self, name: str) -> list[int]:
        """The options with this name, as it was found in a text."""
        return self.same.get(_key(name)) or next(
            places for word, places in self.same.items() if _key(word) == _key(name)
        )

    def mentions(self, view: str) -> list[Mention]:
        """All places that name options, a letter and the text beside it as one; lists of all options left out."""
        found = self.places(view)
        return _coordinated(view, _without_lists(view, _merged(view, found))) if found else found

    def places(self, view: str) -> list[Mention]:
        """Each letter and each name that stands for an option, one by one."""
        matches = self._find.finditer(view)  # type: ignore[attr-defined]
        return [one for one in map(self._mention, matches) if one is not None]

    def _mention(self, match: re.Match[str]) -> Mention | None:
        if match["name"] is not None:
            options = frozenset(self.named(match["name"]))
            weak = bool(_WEAK.fullmatch(match["name"].casefold()))
            if len(match["name"]) == 1 and match["name"].isalpha():
                return None  # an option that is a letter is read by its place, or as a whole
            if weak and not match["name"][0].isdigit() and not _WEAK_END.match(match.string, match.end()):
                return None  # "No" in "no fracture", "I" in "I see"
            return Mention(start=match.start(), end=match.end(), options=options, weak=weak, name=match.span())
        if match["subject"] is not None and not begins(match.string, match.start()):
            return None
        group = next(name for name in ("option", "bracket", "line", "subject", "listed") if match[name] is not None)
        places = [match.start(group) + one.start() for one in re.finditer(r"(?<!\w)[A-Z](?!\w)", match[group])]
        letters = tuple((at, index) for at in places if (index := self.index(match.string[at])) is not None)
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
    r"(?:\A|[.!?;:,\n(]|\b(?:so|therefore|thus|hence|that|but|and|or|nor|both|neither|either|think|believe|conclude|clearly))[\s'>-]*\Z",
    re.IGNORECASE,
)


def begins(view: str, place: int) -> bool:
    """Whether a clause may begin here: `B is correct`, but not `hepatitis B is correct`."""
    return _BEGINS.search(view[max(0, place - 40) : place]) is not None


def _key(name: str) -> str:
    return re.sub(r"[-\s]+", " ", name).casefold()


def _pattern(word: str, written: str) -> str:
    """A name in a text: whole words, not part of a compound ("PET-CT") or of a number ("2.5")."""
    found = re.escape(written if len(word) == len(written) else word)
    found = re.sub(r"(?:\\ )+", r"[-\\s]+", found)
    found = re.sub(r"(?<=[^\]])\\-", r"[-\\s]?", found)
    if not (word in _ENGLISH or (len(word) == 1 and word.isalpha())):
        found = rf"(?i:{found})"
    number = r"(?![.,]\d)(?!\s?%)" if word[-1].isdigit() else ""
    unit = _UNIT if _WEAK.fullmatch(word) and word[-1].isdigit() else ""
    before = r"(?<!\d[.,])(?<![-+])" if word[0].isdigit() else ""
    last = rf"(?!{WORD})" if word[-1].isalnum() else ""
    joined = rf"(?![/-](?!weighted|scan|image|imaging|based|type){WORD})(?!'(?!s\b){WORD})"
    return rf"(?<!{WORD})(?<!{WORD}[-/]){before}{found}{last}{joined}{number}{unit}"


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


# ------------------------------------------------------------------------------------------------- what is said of them

_M = f"{_HIDDEN}+"
_SENTENCE = re.compile(r"[^\n]*?(?:(?<![\s(][A-Z])(?<!\bvs)[.!?…]+(?=[\s)'\ue000]|\Z)|[?]|\n|\Z)")
_CHUNK = re.compile(
    rf";|—|\s-+\s|,(?!\s*(?:which|can|could|is|are|was|were|has|does|should|would|cannot|being)\b)"
    r"(?<!\ue000,)|,(?!\s*(?:(?:and|or|nor)\s+)?(?:(?:an?|the|any)\s+)?\ue000)"
    r"(?!\s*(?:which|can|could|is|are|was|were|has|does|should|would|cannot|being)\b)"
    r"|\b(?:(?<!anything )(?<!everything )(?<!all )but|however|while|whereas|although|though|because|since|so|therefore|thus|hence|yet)\b"
    rf"|\band\s+(?=(?:(?:an?|the)\s+)?{_M}\s+(?:is|was|does|isn't|doesn't)\b)|\band\s+(?=(?:it|this|there|that|we|I)\b)",
    re.IGNORECASE,
)
_SET_ASIDE = re.compile(
    r"\bno\s+(?:doubt|question)\b|\bwithout\s+(?:an?y?\s+)?doubt\b|\bnot\s+only\b|\bno\s+longer\b|\bno\s+other\b"
    r"|\bthat(?:'s|\s+is)\s+right\b|\bright\s+(?:answer|option|choice)\b|\bin\s+fact\b",
    re.IGNORECASE,
)
_NOT_EXCLUDED = re.compile(
    r"\b(?:cannot|can\s*not|can't|not|could\s+not|couldn't)\s+(?:be\s+)?(?:entirely\s+|completely\s+|fully\s+)?"
    r"(?:(?:ruled?|rule)\s+out|exclude[ds]?|eliminated?|rejected|discard(?:ed)?)",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"\b(?:no|not|never|neither|nor|without|cannot|unlike|exclud\w+|rul(?:e|es|ed|ing)\s+out|eliminat\w+|reject\w*"
    r"|dismiss\w*|discard\w*|rather\s+than|instead\s+of|(?:any|every)thing\s+but|all\s+but|other\s+than|except|opposed\s+to|than|absence\s+of"
    r"|lack(?:s|ing)?|negative\s+for|free\s+of|against|differ\w*\s+from|contrary\s+to|contradict\w*"
    r"|in(?:compatible|consistent)\s+with|unlikely|less\s+likely|un(?:related|suggestive)|least|hardly|versus|vs"
    r"|misread|nicht|kein\w*|pas|non|não|нет|не)\b|n't\b|不|没有|沒有|無い|ない|无|無|未见|非|排除|아니|아닙|없",
    re.IGNORECASE,
)
_LACK = re.compile(
    r"(?:(?:absence|lack)\s+of|without)\b[^,;]*?\b(?:indicates?|confirms?|suggests?|means?|supports?|favou?rs?|makes?"
    r"|points?\s+to|is\s+(?:\w+\s+)?(?:of|with))\b",
    re.IGNORECASE,
)
"""What is lacking, where the lack is the subject: `the absence of lung markings indicates...`."""
_DENIED_AFTER = re.compile(
    r"\b(?:unlikely|incorrect|wrong|excluded|ruled\s+out|eliminated|rejected|dismissed|discarded|absent|improbable"
    r"|inappropriate|implausible|less\s+(?:likely|probable|consistent)|least|not|never|cannot|unsupported|inconsistent"
    rf"|incompatible|false|mistaken|misleading|out|(?<=:\s)(?:no|none|negative))\b(?!\s+only\b)(?!\s+(?:(?:an?|the|of)\s+)?{_HIDDEN})"
    rf"|n't\b(?!\s+(?:(?:an?|the)\s+)?{_HIDDEN})|不|排除|아니|아닙",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"\b(?:could|might|may|possib\w+|perhaps|maybe|if|whether|suspicious|either|questionable|consider\w*|unclear"
    r"|uncertain|differential|would|should|typically|usually|generally|often|commonly|sometimes|frequently|for\s+example"
    r"|e\.g|such\s+as|like|similar|resembl\w+|mimic\w*|confus\w+|mistak\w+|compar\w+|history|prior|previous\w*|asks?"
    r"|asked|asking|options?\s+(?:are|include)|choices\s+are|better|superior|inferior|preferred|useful|used\s+(?:for|to)"
    r"|needed|required|recommended|follow-?up|correlat\w+|treat\w*|looks?\s+for|check\w*|distinguish\w*|differentiat\w*"
    r"|in\s+general|in\s+(?:patients|adults|children|people|cases|smokers)|suppose|assum\w+|unless|until|let\s+me|let's"
    r"|first\s+(?:thought|guess|glance)|initial\w*|risk|rule\s+out)\b|考虑|可能|也许|或",
    re.IGNORECASE,
)
_NEVER_SURE = re.compile(r"\b(?:if|whether|either|unless|could|might|may|possib\w+|perhaps|maybe)\b", re.IGNORECASE)
_DECIDES = re.compile(
    r"\b(?:most\s+(?:likely|probable|consistent|compatible)|more\s+(?:likely|consistent)|correct|best|answer|conclu\w+"
    r"|final)\b",
    re.IGNORECASE,
)
_KIND = (
    r"(?:(?:scans?|images?|imag(?:ery|ing)|slices?|views?|stud(?:y|ies)|sequences?|modality|exam(?:ination)?s?|films?"
    r"|radiographs?|radiography|photographs?|photography|pictures?|scanner|disease|infection|syndrome|diagnosis|pattern"
    r"|pneumonia|type|findings?|options?|answer|technique|technology|category|class|changes|disorder|condition|process)\b)"
)
_NAME_END = re.compile(
    rf"\s*(?:\Z|\n|[^\w\s]|[{_CJK}]|(?-i:[A-Z][).:])|{_KIND}|(?:of|in|on|at|by|with|without|within|from|for|to|as|is|are|was|were|has"
    r"|have|had|can|could|may|might|will|would|should|does|do|did|because|since|due|given|which|that|and|or|but|than"
    r"|over|rather|not|likely|based|here|if|when|while|though|cannot|nor|show\w*|demonstrat\w+|depict\w+|reveal\w+"
    r"|display\w+|indicat\w+|obtained|taken|acquired|performed|seen|located|involving|affecting|measuring|caused"
    r"|characteri[sz]ed|visible|present|identified|appears?|seems?|fits?|best|match\w+|explains?|describes?|provides?"
    r"|uses?|remains?|the\s+(?:best|correct|right|most)|alone|instead|typically|usually|often|generally|commonly|also|y|et|und|oder|por|porque|car|weil)\b)",
    re.IGNORECASE,
)
_ACTS = re.compile(
    r"\W*(?:show\w*|demonstrat\w+|depict\w+|reveal\w+|display\w+|indicat\w+|appears?|explains?|describes?|provides?|uses?"
    r"|has|have|had|do|does|did|can|will)\b",
    re.IGNORECASE,
)
_WEAK_END = re.compile(rf"[\s)\]']*(?:\Z|[.,;:!—\n]|-\s|[{_CJK}])")
_SAYS = (
    r"(?:\b(?:is|are|was|be|appears?|seems?|est|es|ist|shows?|showing|demonstrat(?:es?|ing)|reveals?|revealing|depicts?|depicting"
    r"|displays?|exhibits?|presents?|represents?|indicates?|indicating|suggests?|suggesting|(?:suggestive|indicative"
    r"|characteristic|typical|diagnostic|diagnosis|pathognomonic|evidence|signs?|features|presence|that|case|example"
    r"|kind|form)\s+of|of\s+(?:grade|stage|type|class|category)|(?:consistent|compatible|keeping|diagnosed|line)\s+with|(?:diagnosed|identified|classified"
    r"|recogni[sz]ed|described)\s+as|(?:corresponds?|points?|due|leads?)\s+to|corresponding\s+to|(?:caused|affected)\s+by|(?:lies|located|situated|found|arises|originat(?:es|ing))\s+(?:with)?(?:in|at|on|from)"
    r"|involv(?:es|ing)|affect(?:s|ing)"
    r"|(?:obtained|acquired|produced|taken|generated|made|captured|performed|created)\s+(?:by|with|using|from|through|via)"
    r"|mark(?:s|ing)|labels|denotes|pointing\s+to|highlights|matches|fits|favou?rs?|supports?|confirms?|see|has|have|contains?|choose|select|pick|go\s+with|conclude|answer"
    r"|likely|namely|(?:patient|man|woman|child|case)\s+with|identify|diagnose)\b|'s\b|[:=]|[-=]>|→|⇒|是|为|為|显示|提示|符合|は)"
)
_BETWEEN = (
    r"\W*(?:(?!(?:in|on|with|to|from|by|for|at|of|than|as|under|using|seen|what|how|that|when|where|and)\b)"
    r"[\w'-]+\W+){0,5}\Z"
)
_AFFIRMED_BEFORE = re.compile(_SAYS + _BETWEEN, re.IGNORECASE)
_PLACE = re.compile(
    r"\b(?:left|right|upper|lower|lobe|anterior|posterior|medial|lateral|central|peripheral|quadrant|bilateral|both)\b",
    re.IGNORECASE,
)
_PLACED_BEFORE = re.compile(
    rf"(?:{_SAYS}|\b(?:lies?|located|situated|found|seen|visible|involv\w+|affect\w+|arise?\w+)\b)\W*(?:[\w'-]+\W+){{0,8}}?"
    r"(?:with)?(?:in|at|on|of|from)\s+(?:(?:the|a|his|her)\s+)?\Z",
    re.IGNORECASE,
)
_COUNTED_BEFORE = re.compile(
    r"(?:\b(?:is|are|were|was|has|have|shows?|see|count(?:ed)?|total\s+of|contains?|identify|identified|depicts?"
    r"|reveals?|grade|type|group|stage|score)|[:=])\s*(?:(?:exactly|only|a\s+total\s+of|precisely|about)\s+)?\Z",
    re.IGNORECASE,
)
_AFFIRMED_AFTER = re.compile(
    rf"[)'\s]*(?:{_KIND}\s*)?(?:\([^()]*\)\s*)?[,:]?\s*(?:(?:is|are|was|were|appears?|seems?|remains|can\s+be|must\s+be"
    r"|to\s+be|clearly|also|thus|the|an?|most|more|highly|very|single|only|definitely|indeed|our|my|final|-)\s+)*"
    r"(?:likely|probable|correct|right|best(?!\s+(?:for|at|seen|used|suited|known))|present|seen|visible|visuali[sz]ed"
    r"|evident|identified|noted|observed|shown|depicted|detected|confirmed|diagnosed|favou?red|supported|suggested"
    r"|answer|true|demonstrated|affected|involved|appropriate\s+(?:answer|option|choice)|accurate)\b"
    r"|[)'\s]*(?:best\s+(?:fits|matches|explains|describes|accounts)"
    r"|(?:fits?|match(?:es)?|explains?|describes?)\s+(?:best|the\s+(?:image|findings?|picture|appearance|features))"
    r"|:\s*(?:yes|positive)\b|(?:is\s+)?(?:입니다|です))",
    re.IGNORECASE,
)
_LEADING = (
    r"\W*(?:(?:and|but|so|therefore|thus|hence|rather|clearly|definitely|probably|likely|most|final|answer|option|yes|instead|indeed|certainly|then"
    r"|it|it's|is|this|an?|the|again|ok|okay)\W+)*"
)
_ALONE = re.compile(rf"{_LEADING}{_M}\W*(?:(?:scans?|images?)\W*)?", re.IGNORECASE)
_AFTERTHOUGHT = re.compile(
    r"\W*(?:I\s+(?:think|believe|guess)|clearly|as|not|rather|given|based|due|in\s+my|without|probably|most\s+likely"
    r"|definitely|certainly|of\s+course|for\s+sure|obviously)\b|\W*\Z",
    re.IGNORECASE,
)
_BESIDES = re.compile(
    r"\A\W*or\b|\b(?:and|or|plus|with|as\s+well\s+as|possibly|perhaps|maybe)\s+(?:[\w-]+\s+){0,2}\Z", re.IGNORECASE
)
_ACRONYM = re.compile(r"(?<!\w)[A-Z]{2,}\s+\Z")


@dataclass
class Weighed:
    """What a text says of the options.

    Attributes:
        affirmed: the options that it affirms, each with the places.
        doubtful: those that it hedges or leaves open.
        decided: those of the affirmed that it prefers over others ("most likely", "correct").
    """

    affirmed: dict[int, list[Mention]] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)
    decided: set[int] = field(default_factory=set)

    @property
    def only(self) -> int | None:
        """The one option that is affirmed, None where there is none, or others are affirmed or left open besides."""
        if len(self.affirmed) != 1:
            return None
        (option,) = self.affirmed
        return None if self.doubtful - {option} and option not in self.decided else option


def weigh(view: str, names: Names, *, given: bool = False) -> Weighed:
    """Read what a flat text says of the options.

    Args:
        given: what is merely named counts as affirmed: for words behind `the answer is`.
    """
    found, mentions = Weighed(), names.mentions(view)
    if not mentions:
        return found
    hidden = [*view]
    for one in mentions:
        hidden[one.start : one.end] = _HIDDEN * (one.end - one.start)
    masked = "".join(hidden)
    place = 0
    for sentence in _SENTENCE.finditer(masked):
        start, end = sentence.span()
        here = []
        while place < len(mentions) and mentions[place].start < end:
            here.append(mentions[place])
            place += 1
        if here and "?" not in sentence[0][-2:]:
            _weigh_sentence(found, view, masked, (start, end), here, given)
    return found


def _weigh_sentence(
    found: Weighed, view: str, masked: str, span: tuple[int, int], mentions: list[Mention], given: bool
) -> None:
    start, end = span
    cuts = [start, *(cut.start() for cut in _CHUNK.finditer(masked, start, end)), end]
    denying = False
    for at, until in zip(cuts, cuts[1:], strict=False):
        by_comma = masked[at : at + 1] == ","
        chunk = masked[at:until]
        chunk = _SET_ASIDE.sub(lambda one: " " * len(one[0]), chunk)
        open_ = _NOT_EXCLUDED.search(chunk) is not None
        nots = [one.start() for one in _NOT.finditer(chunk) if not _LACK.match(chunk, one.start())]
        if re.fullmatch(rf"[^\w{_HIDDEN}]*no[^\w{_HIDDEN}]*", chunk, re.IGNORECASE):
            nots = []  # "No, ..." denies a question
        denying = (denying and by_comma) or False
        for one in mentions:
            if not at <= one.start < until:
                continue
            status = _status(chunk, one.start - at, min(one.end, until) - at, nots, one, view, given)
            if status == "alone":
                following = masked[until:end]
                plain_end = until == end or (masked[until] in ",;" and _AFTERTHOUGHT.match(following[1:]))
                plain_end = plain_end or re.match(r"because|since|so\b|but", following, re.IGNORECASE) is not None
                status = "doubtful" if denying else "affirmed" if plain_end else "named"
            if open_ or (status == "affirmed" and _hedged(chunk)):
                status = "doubtful" if status != "denied" or open_ else status
            if status == "affirmed":
                for option in one.options:
                    found.affirmed.setdefault(option, []).append(one)
                if _DECIDES.search(chunk):
                    found.decided |= one.options
            elif status == "doubtful" or (status == "named" and _HEDGED.search(chunk) and _NEVER_SURE.search(chunk)):
                found.doubtful |= one.options
        denying = denying or bool(nots)


def _hedged(chunk: str) -> bool:
    if _NEVER_SURE.search(chunk):
        return True
    return bool(_HEDGED.search(chunk)) and not _DECIDES.search(chunk)


def _status(chunk: str, start: int, end: int, nots: list[int], one: Mention, view: str, given: bool) -> str:
    """`affirmed`, `denied`, `doubtful`, `alone` for a chunk that is nothing else, or `named`."""
    before = sum(place < start for place in nots)
    after = _DENIED_AFTER.search(chunk, end) is not None
    if (before and after) or before > 1:
        return "doubtful"
    if nots and _NOT.match(view, one.start):
        return "doubtful"  # "no finding" is an option
    if before or after:
        return "denied"
    ahead = chunk[:start]
    if one.weak:
        if view[one.start].isdigit():
            counted = _COUNTED_BEFORE.search(ahead) is not None
            return "affirmed" if counted else "alone" if _ALONE.fullmatch(chunk) else "doubtful"
        return "affirmed" if not ahead.strip(" \n-(") else "named"
    if not one.letters or one.name:
        if not _NAME_END.match(chunk, end):
            return "named"
        if view[one.start : one.end].isupper() and _ACRONYM.search(ahead):
            return "named"
    if _AFFIRMED_AFTER.match(chunk, end) or _AFFIRMED_BEFORE.search(ahead):
        return "affirmed"
    if one.name and _PLACE.search(view, *one.name) and _PLACED_BEFORE.search(ahead):
        return "affirmed"
    if _ALONE.fullmatch(chunk):
        return "alone"
    if given and not _ACTS.match(chunk, end):
        return "affirmed"
    return "doubtful" if _BESIDES.search(ahead) else "named"
