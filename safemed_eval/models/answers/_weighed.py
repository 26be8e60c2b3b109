"""Find the options that a text names, in words or as `option B`, and decide whether it affirms or denies them.

The rules are for prose as vision-language models write it. If two rules disagree, nothing is decided: a mention that is
denied twice, hedged ("could be"), generic ("CT usually shows") or part of a question affirms no option.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise

from safemed_eval.models.answers._names import KIND, NAME_END, Mention, Names
from safemed_eval.models.answers._verdicts import WRONG, denied

HIDDEN = "\ue000"
"""Replaces, in a text, each mention of an option."""
LONGEST = 600
"""The longest sentence that is read, in characters; longer ones are of models that repeat themselves."""
_M = f"{HIDDEN}+"
_SENTENCE = re.compile(r"[^\n]*?(?:(?<![\s(][A-Z])(?<!\bvs)[.!?…]+(?=[\s)'\ue000]|\Z)|[?]|\n|\Z)")
_CHUNK = re.compile(
    rf";|—|\s-+\s|,(?!\s*(?:which|can|could|is|are|was|were|has|does|should|would|cannot|being)\b)"
    r"(?<!\ue000,)|,(?!\s*(?:(?:and|or|nor)\s+)?(?:(?:an?|the|any)\s+)?\ue000)"
    r"(?!\s*(?:which|can|could|is|are|was|were|has|does|should|would|cannot|being)\b)"
    r"|\b(?:(?<!anything )(?<!everything )(?<!all )but|however|while|whereas|although|though|because|since|so"
    r"|therefore|thus|hence|yet)\b"
    rf"|\band\s+(?=(?:(?:an?|the)\s+)?{_M}\s+(?:is|was|does|isn't|doesn't)\b)|\band\s+(?=(?:it|this|there|that|we"
    rf"|I)\b)",
    re.IGNORECASE,
)
SET_ASIDE = re.compile(
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
    r"|dismiss\w*|discard\w*|rather\s+than|instead\s+of|(?:any|every)thing\s+but|all\s+but|other\s+than|except"
    r"|opposed\s+to|than|absence\s+of"
    r"|lack(?:s|ing)?|negative\s+for|free\s+of|against|differ\w*\s+from|contrary\s+to|contradict\w*"
    r"|in(?:compatible|consistent)\s+with|unlikely|less\s+likely|un(?:related|suggestive)|least|hardly|versus|vs"
    r"|misread|doubt\w*|disagree\w*|nicht|kein\w*|pas|non|não|нет|не)\b|n't\b|不|没有|沒有|無い|ない|无|無|未见|非|排除|아니|아닙|없",
    re.IGNORECASE,
)
_LACK = re.compile(
    r"(?:(?:absence|lack)\s+of|without)\b[^,;]*?\b(?:indicates?|confirms?|suggests?|means?|supports?|favou?rs?|makes?"
    r"|points?\s+to|is\s+(?:\w+\s+)?(?:of|with))\b",
    re.IGNORECASE,
)
"""A lack that is the subject of its clause and denies nothing: `the absence of lung markings indicates...`."""
DENIED_AFTER = re.compile(
    rf"\b(?:{WRONG}|absent|least|not|never|cannot|false|out|(?<=:\s)(?:no|none"
    rf"|negative))\b(?!\s+only\b)(?!\s+(?:(?:an?|the"
    rf"|of|option)\s+)?(?:{HIDDEN}|[(\[]?(?-i:[A-Z]\b|[A-Z]{{2}})))"
    rf"|n't\b(?!\s+(?:(?:an?|the)\s+)?{HIDDEN})|[不✗]|排除|아니|아닙",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"\b(?:could|might|may|possib\w+|perhaps|maybe|if|whether|suspicious|either|questionable|consider\w*|unclear"
    r"|uncertain|differential|would|should|typically|usually|generally|often|commonly|sometimes|frequently"
    r"|for\s+example"
    r"|e\.g|such\s+as|like|similar|resembl\w+|mimic\w*|confus\w+|mistak\w+|compar\w+|history|prior|previous\w*|asks?"
    r"|asked|asking|options?\s+(?:are|include)|choices\s+are|better|superior|inferior|preferred|useful"
    r"|used\s+(?:for|to)"
    r"|needed|required|recommended|follow-?up|correlat\w+|treat\w*|looks?\s+for|check\w*|distinguish\w*"
    r"|differentiat\w*"
    r"|in\s+general|in\s+(?:patients|adults|children|people|cases|smokers)|suppose|assum\w+|unless|until|let\s+me"
    r"|let's"
    r"|first\s+(?:thought|guess|glance)|initial\w*|risk|rule\s+out)\b|考虑|可能|也许|或",
    re.IGNORECASE,
)
_NEVER_SURE = re.compile(r"\b(?:if|whether|either|unless|could|might|may|possib\w+|perhaps|maybe)\b", re.IGNORECASE)
_DECIDES = re.compile(
    r"\b(?:most\s+(?:likely|probable|consistent|compatible)|more\s+(?:likely|consistent)|correct|best|answer"
    r"|conclu\w+"
    r"|final)\b",
    re.IGNORECASE,
)
_ACTS = re.compile(
    r"\W*(?:show\w*|demonstrat\w+|depict\w+|reveal\w+|display\w+|indicat\w+|appears?|explains?|describes?"
    r"|provides?|uses?"
    r"|has|have|had|do|does|did|can|will)\b",
    re.IGNORECASE,
)
_SAYS = (
    r"(?:\b(?:is|are|was|be|appears?|seems?|est|es|ist|shows?|showing|demonstrat(?:es?|ing)|reveals?|revealing"
    r"|depicts?|depicting"
    r"|displays?|exhibits?|presents?|represents?|indicates?|indicating|suggests?|suggesting|(?:suggestive|indicative"
    r"|characteristic|typical|diagnostic|diagnosis|pathognomonic|evidence|signs?|features|presence|that|case|example"
    r"|kind|form)\s+of|of\s+(?:grade|stage|type|class|category)|(?:consistent|compatible|keeping|diagnosed"
    r"|line)\s+with|(?:diagnosed|identified|classified"
    r"|recogni[sz]ed|described)\s+as|(?:corresponds?|points?|due|leads?)\s+to|corresponding\s+to|(?:caused"
    r"|affected)\s+by|(?:lies|located|situated|found|arises|originat(?:es|ing))\s+(?:with)?(?:in|at|on|from)"
    r"|involv(?:es|ing)|affect(?:s|ing)"
    r"|(?:obtained|acquired|produced|taken|generated|made|captured|performed|created)\s+(?:by|with|using|from"
    r"|through|via)"
    r"|mark(?:s|ing)|labels|denotes|pointing\s+to|looking\s+at|highlights|matches|fits|favou?rs?|supports?|confirms?"
    r"|see|has"
    r"|have|contains?|choose|select|pick|go\s+with|conclude|answer|leaves|leaving"
    r"|likely|namely|(?:patient|man|woman|child|case)\s+with|identify|diagnose)\b|'s\b|[:=]|[-=]>|→|⇒|是|为|為|显示|提示"
    r"|符合|は)"
)
_BETWEEN = (
    r"\W*(?:(?!(?:in|on|with|to|from|by|for|at|of|than|as|under|using|seen|what|how|that|when|where|and)\b)"
    r"[\w'-]+\W+){0,5}\Z"
)
_AFFIRMED_BEFORE = re.compile(_SAYS + _BETWEEN, re.IGNORECASE)
_PLACE = re.compile(
    r"\b(?:left|right|upper|lower|lobe|anterior|posterior|medial|lateral|central|peripheral|quadrant|bilateral|axial"
    r"|coronal|sagittal|oblique"
    r"|both)\b",
    re.IGNORECASE,
)
_PLACED_BEFORE = re.compile(
    rf"(?:{_SAYS}|\b(?:lies?|located|situated|found|seen|visible|involv\w+|affect\w+"
    rf"|arise?\w+)\b)\W*(?:[\w'-]+\W+){{0,8}}?"
    r"(?:with)?(?:in|at|on|of|from)\s+(?:(?:the|a|his|her)\s+)?\Z",
    re.IGNORECASE,
)
_COUNTED_BEFORE = re.compile(
    r"(?:\b(?:is|are|were|was|has|have|shows?|see|count(?:ed)?|total\s+of|contains?|identify|identified|depicts?"
    r"|reveals?|grade|type|group|stage|score)|[:=])\s*(?:(?:exactly|only|a\s+total\s+of|precisely|about)\s+)?\Z",
    re.IGNORECASE,
)
_AFFIRMED_AFTER = re.compile(
    rf"[)'\s]*(?:{KIND}\s*)?(?:\([^()]*\)\s*)?[,:]?\s*(?:(?:is|are|was|were|appears?|seems?|remains|can\s+be"
    rf"|must\s+be"
    r"|to\s+be|clearly|also|thus|the|an?|most|more|highly|very|single|only|definitely|indeed|our|my|final|-)\s+)*"
    r"(?:likely|probable|correct|right|best(?!\s+(?:for|at|seen|used|suited|known))|present|seen|visible"
    r"|visuali[sz]ed"
    r"|evident|identified|noted|observed|shown|depicted|detected|confirmed|diagnosed|favou?red|supported|suggested"
    r"|answer|true|demonstrated|affected|involved|appropriate\s+(?:answer|option|choice)|accurate)\b"
    r"|[)'\s]*(?:best\s+(?:fits|matches|explains|describes|accounts)"
    r"|(?:fits?|match(?:es)?|explains?|describes?)\s+(?:best|the\s+(?:image|findings?|picture|appearance|features))"
    r"|:\s*(?:yes|positive)\b|(?:is\s+)?(?:입니다|です))",
    re.IGNORECASE,
)
_LEADING = (
    r"\W*(?:(?:and|but|so|therefore|thus|hence|rather|clearly|definitely|probably|likely|most|final|answer|option"
    r"|yes|instead|indeed|certainly|then"
    r"|it|it's|is|this|an?|the|again|ok|okay)\W+){0,8}"
)
_ALONE = re.compile(rf"{_LEADING}{_M}\W*(?:(?:scans?|images?)\W*)?", re.IGNORECASE)
_AFTERTHOUGHT = re.compile(
    r"\W*(?:I\s+(?:think|believe|guess)|clearly|as|not|rather|given|based|due|in\s+my|without|probably|most\s+likely"
    r"|definitely|certainly|of\s+course|for\s+sure|obviously)\b|\W*\Z",
    re.IGNORECASE,
)
_BOUNDED = re.compile(
    r"\b(?:beyond|past|above|below|over|under|exceed\w*|up\s+to|at\s+most|at\s+least)\s+(?:the\s+)?\Z", re.IGNORECASE
)
"""Words before a mention that name only a bound, as in `beyond stage 2`."""
_LAST_LETTER = re.compile(r"[\s.,;:!-]+[(\[]?([A-Z])[)\].]*\s*\Z")
_CLAIM_IS = re.compile(
    r"\b(?:(?:statement|claim|assertion|proposition|sentence|it|this|that)\s+is|is\s+therefore|is\s+thus)\s+(?:true"
    r"|false)\b",
    re.IGNORECASE,
)
_BESIDES = re.compile(
    r"\A\W*or\b|\b(?:and|or|plus|with|as\s+well\s+as|possibly|perhaps|maybe)\s+(?:[\w-]+\s+){0,2}\Z", re.IGNORECASE
)
_ACRONYM = re.compile(r"(?<!\w)[A-Z]{2,}\s+\Z")


@dataclass
class Weighed:
    """The options that a text affirms, and those that it leaves open.

    Attributes:
        affirmed: the options that it affirms, each with the places.
        doubtful: those that it hedges or leaves open.
        decided: the affirmed options that it prefers over others ("most likely", "correct").
    """

    affirmed: dict[int, list[Mention]] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)
    decided: set[int] = field(default_factory=set)

    @property
    def only(self) -> int | None:
        """The only option that is affirmed; None if there is none, or others are affirmed or left open, too."""
        if len(self.affirmed) != 1:
            return None
        (option,) = self.affirmed
        return None if self.doubtful - {option} and option not in self.decided else option


def weigh(view: str, names: Names, *, given: bool = False) -> Weighed:
    """Decide which options a flat text affirms.

    Args:
        given: an option that is merely named counts as affirmed, as after `the answer is`.
    """
    weighed, mentions = Weighed(), names.mentions(view)
    if not mentions:
        return weighed
    hidden = [*view]
    for mention in mentions:
        hidden[mention.start : mention.end] = HIDDEN * (mention.end - mention.start)
    masked = "".join(hidden)
    place = 0
    for sentence in _SENTENCE.finditer(masked):
        start, end = sentence.span()
        here = []
        while place < len(mentions) and mentions[place].start < end:
            here.append(mentions[place])
            place += 1
        if here and end - start > LONGEST:
            weighed.doubtful.update(*(mention.options for mention in here))
        elif here and "?" not in sentence[0][-2:]:
            _weigh_sentence(weighed, view, masked, (start, end), here, given)
    return weighed


def _weigh_sentence(
    weighed: Weighed, view: str, masked: str, span: tuple[int, int], mentions: list[Mention], given: bool
) -> None:
    start, end = span
    cuts = [start, *(cut.start() for cut in _CHUNK.finditer(masked, start, end)), end]
    denying = False
    for at, until in pairwise(cuts):
        by_comma = masked[at : at + 1] == ","
        chunk = masked[at:until]
        chunk = SET_ASIDE.sub(lambda match: " " * len(match[0]), chunk)
        open_ = _NOT_EXCLUDED.search(chunk) is not None
        nots = [denial.start() for denial in _NOT.finditer(chunk) if not _LACK.match(chunk, denial.start())]
        if re.fullmatch(rf"[^\w{HIDDEN}]*no[^\w{HIDDEN}]*", chunk, re.IGNORECASE):
            nots = []  # "No, ..." denies a question
        denying = denying and by_comma
        for mention in mentions:
            if not at <= mention.start < until:
                continue
            status = _status(
                chunk, mention.start - at, min(mention.end, until) - at, nots, mention, view, masked, given
            )
            if status == "alone":
                following = masked[until:end]
                plain_end = until == end or (masked[until] in ",;" and _AFTERTHOUGHT.match(following[1:]))
                plain_end = plain_end or re.match(r"because|since|so\b|but", following, re.IGNORECASE) is not None
                status = "doubtful" if denying else "affirmed" if plain_end else "named"
            if open_ or (status == "affirmed" and _hedged(chunk)):
                status = "doubtful" if status != "denied" or open_ else status
            if status == "affirmed":
                for option in mention.options:
                    weighed.affirmed.setdefault(option, []).append(mention)
                if _DECIDES.search(chunk):
                    weighed.decided |= mention.options
            elif status == "doubtful" or (status == "named" and _HEDGED.search(chunk) and _NEVER_SURE.search(chunk)):
                weighed.doubtful |= mention.options
        denying = denying or bool(nots)


def _hedged(chunk: str) -> bool:
    if _NEVER_SURE.search(chunk):
        return True
    return bool(_HEDGED.search(chunk)) and not _DECIDES.search(chunk)


def _status(
    chunk: str, start: int, end: int, nots: list[int], mention: Mention, view: str, masked: str, given: bool
) -> str:
    """Classify a mention as `affirmed`, `denied`, `doubtful`, `alone` (it is the whole chunk), or `named`."""
    before = sum(place < start for place in nots)
    after = DENIED_AFTER.search(chunk, end) is not None or (not mention.weak and denied(masked, mention.end))
    if (before and after) or before > 1:
        return "doubtful"
    if nots and _NOT.match(view, mention.start):
        return "doubtful"  # "no finding" is an option
    if before or after:
        return "denied"
    ahead = chunk[:start]
    if _BOUNDED.search(ahead):
        return "named"
    if mention.weak:
        if view[mention.start].isdigit():
            counted = _COUNTED_BEFORE.search(ahead) is not None
            return "affirmed" if counted else "alone" if _ALONE.fullmatch(chunk) else "doubtful"
        if (letter := _LAST_LETTER.match(view, mention.end)) and ord(letter[1]) - ord("A") not in mention.options:
            return "doubtful"  # "No, A."
        return "affirmed" if not ahead.strip(" \n-(") or _CLAIM_IS.search(ahead + view[mention.start :]) else "named"
    if not mention.letters or mention.name:
        if not NAME_END.match(chunk, end):
            return "named"
        if view[mention.start : mention.end].isupper() and _ACRONYM.search(ahead):
            return "named"
    if _AFFIRMED_AFTER.match(chunk, end) or _AFFIRMED_BEFORE.search(ahead):
        return "affirmed"
    if mention.name and _PLACE.search(view, *mention.name) and _PLACED_BEFORE.search(ahead):
        return "affirmed"
    if _ALONE.fullmatch(chunk):
        return "alone"
    if given and not _ACTS.match(chunk, end):
        return "affirmed"
    return "doubtful" if _BESIDES.search(ahead) else "named"
