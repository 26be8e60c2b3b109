"""Cues that announce an answer, such as `the answer is C`, and the statements that follow them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest

from safemed_eval.models.answers._names import WORD, Names, begins
from safemed_eval.models.answers._verdicts import BACK, CERTAIN, denied, verdict
from safemed_eval.models.answers._weighed import DENIED_AFTER, LONGEST, SET_ASIDE, weigh

MARK = "\ue001"
"""Replaces, in a text, each passage that is marked as an answer."""
CUED, FINAL, MARKED, TAG = range(4)
"""Ranks of statements: the higher, the more explicitly a statement claims to be final."""
_QUALITY = (
    r"(?:(?:final|correct|best|right|most\s+(?:likely|appropriate|accurate|suitable|plausible|probable)|my|predicted"
    r"|chosen|selected|revised|corrected|updated)\s+){0,4}"
)
_FILL = (
    rf"(?:(?:{CERTAIN}|hence|then|none\s+other\s+than|(?:the\s+)?(?:correct\s+)?(?:option|choice|letter|answer)"
    r"|as\s+follows|indicated\s+by|given\s+by|I\s+(?:think|believe|guess)|:)[\s:,]+){0,6}"
)
_ABOUT = (
    r"(?:\s+(?:that|which)\s+(?:best\s+)?(?:fits|matches|describes|applies|is\s+correct)(?:\s+best)?)?"
    r"(?:\s+(?:among|amongst|from|of|out\s+of)\s+(?:the\s+|these\s+)?(?:\w+\s+)?(?:options|choices))?"
    r"(?:\s+(?:to|for)\s+(?:this|the|your|that)\s+(?:(?!previous|last|next|other)\w+\s+)?(?:question|image|case))?"
    r"(?:\s*\([^()\n]{0,30}\))?"
)
_IS = (
    r"(?:\s*(?:[:=—]|-+>|→|⇒)\s*|\s+(?:is|was|(?:would|should|must|will|can\s+only|has\s+to)\s+be|remains"
    r"|to)\b\s*:?\s*"
    r"|'s\s+|\s*\n\s*|\s+-\s+)"
)
_FOREIGN = (
    r"(?:respuesta|option|opci[oó]n|opção|opzione|alternativa|réponse|reponse|antwort|resposta|risposta|antwoord"
    r"|lösung|soluzione|ответ"
    r"|вариант|jawaban|cevap|odpowiedź|svar|odpověď|đáp\s+án)"
)
"""Words for an answer or an option in other languages."""
_CUE = re.compile(
    rf"\b(?P<english>{_QUALITY}(?:answer|ans\.?|(?:correct|right|best)\s+one|option|choice|response|prediction"
    rf"|selection|conclusion|diagnosis|verdict|letter"
    rf"|solution)(?:\s+(?:choice|option|letter|key|code))?{_ABOUT}){_IS}{_FILL}"
    rf"|\b{_FOREIGN}(?:\s+(?:correcta|correcte|corretta|correta|final\w*|правильный))?"
    r"(?:\s*[:=—]|\s+(?:es|est|ist|é|è|is|är|là)\b)\s*(?:(?:la|el|die|le|l'|opci[oó]n|opção|option|lettre|letra"
    r"|lettera"
    r"|a|o)\s+)*"
    r"|\bQ\s*:[^\n]*\n+\s*A\s*:\s*"
    r"|(?:答案|选项)(?:应该|应当|应|就|选项)?(?:是|为|為|选|選|:)+\s*(?:选项)?|答\s*:\s*|(?:故|应|因此|所以|我|应该)?(?:选择|選擇|选|選)(?!项)"
    r"(?:选项)?(?:的?是|为)?\s*:?\s*|(?:正解|答え|回答|解答)(?:は|:)\s*:?\s*|(?:정답|답변|답)(?:은|는|:)?\s*:?\s*"
    r"|(?:الإجابة|الجواب)(?:\s+(?:الصحيحة|الصحيح|النهائية))?\s*(?::|هي|هو)\s*|उत्तर\s*:?\s*",
    re.IGNORECASE,
)
"""Cues that an answer follows, as a letter or in the option's own words."""
_POINTER = re.compile(
    rf"\b(?:{CERTAIN}|by\s+(?:process\s+of\s+)?(?:elimination|exclusion)|leav(?:es|ing)|left\s+with|I(?:'d"
    rf"|\s+would)\s+say"
    r"|(?:has|have)\s+to\s+be|I\s+(?:think|believe|guess)|guess\s+is|leaning\s+towards?|looks?\s+like"
    r"|seems\s+to\s+be|ans\."
    r"|(?:correct|right|final|result|output|decision|label|pick|chosen|selected|assistant|AI|model)\s*:)[\s,:]+"
    r"(?:(?:us|only|with|just|option)\s+){0,3}|∴\s*|(?:答案|选项|選項|正确的?是)[)\]]?\s*:?\s*|"
    r"\b(?:(?:choos(?:e|ing)|chose|select(?:ed|ing)?|pick(?:ed|ing)?|go(?:ing)?\s+(?:with|for)|went\s+with"
    r"|opt(?:ing)?\s+for"
    r"|settle\s+on|answer(?:\s+with)?|respond\s+with|(?:match(?:es)?|corresponds?\s+to|points?\s+to|support(?:s|ing)?"
    r"|speaks?\s+for|consistent\s+with|fits|favou?rs?|indicat(?:es?|ing)|suggests?|leads?\s+to|conclude|is|be|so"
    r"|therefore"
    r"|thus|hence)\s*,?\s+(?:the\s+)?(?:correct\s+)?(?:option|choice|answer))\s*:?\s+"
    r"(?:the\s+)?(?:correct\s+)?(?:(?:option|choice|answer|letter)\s+)*"
    r"|(?:so|therefore|thus|hence|ergo)\s*[,:]?\s*(?:(?:it\s+is|it's|it\s+must\s+be)\s+)?"
    r"|(?:it|this)(?:\s+is|'s|\s+must\s+be)\s+)"
    r"|(?:→|⇒|[=-]>)\s*",
    re.IGNORECASE,
)
"""Cues that announce an answer only if a letter follows."""
_PRAISED = re.compile(
    rf"(?<!{WORD})(?:(?P<noun>(?i:option|choice|answer|letter"
    rf"|{_FOREIGN})\s+)?[(\[]?(?P<letter>[A-Z])[)\]]?)(?!{WORD}|'\w|,\s+[A-Z](?!\w))"
    r"(?P<text>[^.\n]{0,80}?)(?:[\s,)]*\b(?i:is|seems|looks|appears\s+to\s+be|would\s+be|must\s+be)\s+"
    rf"(?:(?i:the|a|an|most|single|our|my|{CERTAIN})\s+)*(?i:correct|right|answer|best\s+(?:answer|option|choice"
    rf"|match|fit)"
    r"|(?:likely|appropriate|accurate|suitable)\s+(?:answer|option|choice|diagnosis)|final\s+answer"
    r"|(?:better|more\s+(?:likely|plausible|probable|suitable|appropriate))(?=\s+than\b|\s*(?:[.,;\n]|\Z)))\b"
    r"|\s+(?i:it\s+is|remains|fits(?:\s+best)?)(?=\s*(?:[.,;\n]|\Z))"
    r"|\s+(?i:(?:ist|est|es|è|é|está)\s+(?:la\s+|le\s+|die\s+)?(?:richtig|korrekt|correct|corretta|correta|bonne)"
    r"|верн"
    r"|правильн)\w*"
    r"|\s*(?:选项|選項|项|項)?\s*(?:是|は|が|는|가)?\s*(?:正确|正確|正解|正しい|정답|对|對))"
)
"""`Option B (MRI) is correct`."""
_LETTER = re.compile(rf"[\s(\[{{<'.]*([A-Za-z])(?!{WORD}|'\w)[\])}}>'\"]*")
_CLOSED = re.compile(
    r"\s*(?:\Z|\n|\([^()\n]{0,80}\)\s*(?:\Z|[.\n])|[.,:;!)—]|-\s|입니다|이다|です|だ|है|项|选项|因为|因為)"
)
_GENUS = re.compile(r"\.\s+(?!because|since|given|based|here)[a-z]{5,}")
"""What follows the first letter of a genus: `C. difficile`."""
_REASON = re.compile(
    r"\s+(?:because|since|as|due|given|based|for|with|which|where|not|rather|instead|in|and\s+not|on|from"
    r"|corresponding"
    r"|porque|porque|weil|car|according|considering|here|over|indicating|representing|meaning|i\.e)\b",
    re.IGNORECASE,
)
_SEPARATES = re.compile(r"[\s)\].:;,=(—-]*(?:(?:the|an?|is)\s+)?", re.IGNORECASE)
ALSO = re.compile(
    r"[\s)\].]*(?:,|/|&|\+|;|\b(?:and|or|und|oder|y|o|et|ou|as\s+well\s+as)\b|和|或|及|,)?\s*"
    rf"(?:also\s+|maybe\s+|possibly\s+|perhaps\s+|or\s+|and\s+|option\s+)*[(\[]?([A-Z])(?!{WORD}"
    rf"|['-])(?P<tail>[)\].,:;\s]*)"
)
_JOINED = re.compile(
    r"[\s)\].]*(?:,\s*(?:and|or)\b|/|&|\+|\b(?:and|or|und|oder|y|o|et|ou)\b|和|或|及)\s*(?:also\s+|maybe\s+|an?\s+"
    r"|the\s+)*",
    re.IGNORECASE,
)
_OTHER_LETTER = re.compile(
    rf"(?:\b(?:of|or|and|to|also|maybe|possibly|perhaps|is|be)|[,/&])\s+[(\[]?([A-Z])(?!{WORD}|['-])(?!\s+[a-z])"
)
_SENTENCE_END = re.compile(r"(?<![\s(][A-Za-z])[.!?](?=\s|\Z)|[?]|\n|\Z")
_CLAUSE_START = re.compile(r"[.!?;\n,:]|\b(?:so|therefore|thus|hence|but|because|and)\b", re.IGNORECASE)
_TURNED = re.compile(
    rf"(?:{BACK}[ ,.:;!—…-]*)+(?:(?:but|that|it|it's|is|the|my|answer|final|correct|should\s+be|was|option)[\s:,]+)*"
    r"|(?:\b(?:not|never|no|pas)|n't)\b(?!\s+only)[^.;\n]{0,60}?\b(?:but|mais)\s+"
    r"(?:rather\s+|it(?:'s|\s+is)\s+|option\s+){0,3}"
    r"|\b(?:sondern|sino)\s+|而是\s*|ではなく[,\s]*|아니라\s*",
    re.IGNORECASE,
)
"""Words that turn from one option to the letter that follows: `A. No, wait: B`, `not A but B`."""
_CONDITION = re.compile(
    r"(?:\b(?:if(?!\s+(?:I|forced|pressed|asked|you)\b)|unless|suppos(?:e|ing)|assum(?:e|ing)|provided)\b"
    r"|\A\W*(?:had|were|should|in\s+case)\b)(?!.*\b(?:so|therefore|thus|hence|but|however)\b)",
    re.IGNORECASE | re.DOTALL,
)
"""A condition without a conclusion from it, in the part of a sentence before a cue."""
_SPOILT = re.compile(
    r"\b(?:not|never|if|whether|unless|cannot|neither|nor|doubt|unlikely|incorrect|wrong|hardly|no|least|less"
    r"|worst|false"
    r"|alternative|second|other|another|initial|initially|first|previous|thought|believed|assumed|possible"
    r"|potential|might|may|could|were|suppose|disagree|mistake|reject(?:ed)?|discard(?:ed)?|excluded?|nobody|few|fool"
    r"|novice|layperson|everyone|anyone|claims?|bad|error|trap|ignore|dismissed|some\s+(?:say|think|choose)"
    r"|inexperienced|students?(?:'s?)?|user(?:'s)?|example|sample|old|avoid|refuse|nicht|ne"
    r"|non|não|не)\b|n't\b|不|未|非|可能",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"\s*(?:not|never|(?:anything|everything|all)\s+(?:but|except)|either|neither|might|may|could|possibly|perhaps"
    r"|maybe|nicht|pas|no(?=\s+\w))\b|\s*(?:不|可能|或)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A place where a text states its answer.

    Attributes:
        start, end: the place, which includes its cue.
        option: the stated option; None if it cannot be read as exactly one option.
        rank: one of CUED, FINAL, MARKED, TAG.
        place: of what it states, letter or words.
    """

    start: int
    end: int
    option: int | None
    rank: int
    place: tuple[int, int]
    lettered: bool = False


SUPPOSED = re.compile(
    r"[\s:,)-]*(?:(?!is\b)\w+\s)?(?:could|might|may|would|should|possibly|perhaps|maybe|if)\b", re.IGNORECASE
)


def cued(view: str, names: Names) -> Iterator[Statement]:
    """Find the statements that follow cues in a flat text, one kind of cue after the other."""
    cues = [*_CUE.finditer(view)]
    for cue, following in zip_longest(cues, cues[1:]):
        if _spoilt(view, cue.start()):
            continue
        sure = bool(re.search(r"[:=>\n]\s*\Z", cue[0])) or not cue["english"]
        until = following.start() if following else len(view)
        claimed = claim(view, cue.end(), names, strict=False, sure=sure, copula=True, until=until)
        if claimed is not None:
            rank = FINAL if re.search(r"\bfinal|最终|최종", cue[0], re.IGNORECASE) else CUED
            yield replace(claimed, start=cue.start(), rank=rank)
    for cue in (*_POINTER.finditer(view), *_TURNED.finditer(view)):
        if cue.re is _TURNED or not _spoilt(view, cue.start()):
            claimed = claim(
                view, cue.end(), names, strict=True, sure=False, copula=not cue[0].lower().startswith("answer")
            )
            if claimed is not None:
                yield replace(claimed, start=cue.start())
    for praise in _PRAISED.finditer(view):
        option = names.of_letter(praise["letter"])
        between = praise["text"].strip()
        if _spoilt(view, praise.start()) or _UNSURE.match(view, praise.end()) or is_asked(view, praise.end()):
            continue
        bare = not praise["noun"] and view[praise.start()] not in "(["
        if bare and not (begins(view, praise.start()) and re.match(r"[A-Z](?:\s+is|[^\w\s]|\Z)|[^A]", praise[0])):
            continue
        end = _SENTENCE_END.search(view, praise.end())
        assert end is not None
        if verdict(view, praise.end(), end.start()) is False:
            continue
        if _other_letters(view, praise.end(), end.start(), names) - {option}:
            option = None
        if between:
            attached = attached_name(view, praise.end("letter"), names)
            if attached is None:
                continue
            option = option if option in names.named(attached[0]) else None
        also = _ALSO_BEFORE.search(view[max(0, praise.start() - 30) : praise.start()])
        if also and also[1] != praise["letter"]:
            option = None
        yield Statement(
            start=praise.start(), end=praise.end(), option=option, rank=CUED, place=praise.span("letter"), lettered=True
        )


_ALSO_BEFORE = re.compile(
    rf"(?<!{WORD})(?<!unlike )([A-Z])[)\]]?\s*(?:,|,?\s*\b(?:and|or)\b|/|&)\s*(?:option\s+)?\Z", re.IGNORECASE
)


def _spoilt(view: str, start: int) -> bool:
    """True if the words before a cue, in the same clause, deny or suppose what follows."""
    before = SET_ASIDE.sub("", view[max(0, start - 120) : start])
    cut = max((clause.end() for clause in _CLAUSE_START.finditer(before)), default=0)
    sentence = max((end.end() for end in re.finditer(r"[.!?;\n]", before)), default=0)
    return bool(_SPOILT.search(before, cut) or _CONDITION.search(before[sentence:]))


def is_asked(view: str, place: int) -> bool:
    """True if the sentence that continues at this place is a question."""
    end = _SENTENCE_END.search(view, place)
    return end is not None and end[0] == "?"


_TO_MARK = re.compile(rf"[\s\\$(\[]*{MARK}")


def claim(
    view: str, place: int, names: Names, *, strict: bool, sure: bool, copula: bool, until: int | None = None
) -> Statement | None:
    """Read the statement that begins at this place; None if there is none.

    Args:
        strict: only a letter counts.
        sure: the cue ends in a colon or the like, so that even a lone small `a` is a letter.
        copula: the cue has a verb or a colon, so that a denial later in the sentence denies something else.
        until: where the next cue begins.
    """
    rest = view[place:]
    if not rest.strip(" .'()-:"):
        return (
            None if strict else Statement(start=place, end=len(view), option=None, rank=CUED, place=(place, len(view)))
        )
    marked = _TO_MARK.match(view, place)
    if marked is not None:
        at = marked.end() - 1
        return Statement(start=place, end=at, option=None, rank=CUED, place=(at, at + 1))
    letter = _LETTER.match(view, place)
    if letter is not None:
        stated = _lettered(view, letter, names, strict=strict, sure=sure, copula=copula)
        if stated is not None or strict:
            return stated
    if strict or (_UNSURE.match(view, place) and not re.search(r"\bbut\b|\bsondern\b|而是", rest[:120])):
        return None
    return _worded(view, place, len(view) if until is None else until, names)


def _lettered(
    view: str, letter: re.Match[str], names: Names, *, strict: bool, sure: bool, copula: bool
) -> Statement | None:
    said, at = letter[1], letter.start(1)
    if strict and _GENUS.match(view, letter.end()):
        return None
    closed = _CLOSED.match(view, letter.end()) is not None or view[letter.end() - 1] in ")]}>"
    if said.islower() and (not closed or (said in "ai" and letter.end() == len(view) and not sure)):
        return None
    option = names.of_letter(said)
    end = letter.end()
    sentence_end = _SENTENCE_END.search(view, end)
    assert sentence_end is not None
    if sentence_end[0] == "?":
        return None
    end_of = min(sentence_end.start(), end + LONGEST)
    attached = attached_name(view, end, names)
    if attached is not None:
        closed = closed or said.isupper()
        if option is not None and option in names.named(attached[0]):
            end = attached.end()
        elif not aside(view, attached):
            option = None
    also, joined = ALSO.match(view, end), _JOINED.match(view, end)
    more = also is not None and also[1] != said and alone_after(view, also)
    if joined is not None and (name := names.name_at(view, joined.end())):
        more = more or option not in names.named(name[0])
    if more:
        option = None
    if not (closed or (said.isupper() and (more or _REASON.match(view, end)))):
        return None
    if not copula and DENIED_AFTER.search(view, end, end_of):
        return None
    if _other_letters(view, end, end_of, names) - {names.index(said)}:
        option = None
    if option is not None and set(weigh(view[end:end_of], names).affirmed) - {option}:
        option = None
    return Statement(start=at, end=end, option=option, rank=CUED, place=(at, at + 1), lettered=True)


def _other_letters(view: str, place: int, end: int, names: Names) -> set[int | None]:
    """The options whose letters follow as further answers: `and C`, `possibly C`."""
    return {names.index(other[1]) for other in _OTHER_LETTER.finditer(view, place, end)} - {None}


def attached_name(view: str, end: int, names: Names) -> re.Match[str] | None:
    """Find an option's name next to a letter: `B. MRI`, or alone on the line below it."""
    gap = _SEPARATES.match(view, end)
    assert gap is not None
    name = names.name_at(view, gap.end())
    if name is not None and "\n" in gap[0] and view[name.end() :].partition("\n")[0].strip(" .)"):
        return None
    return name


def alone_after(view: str, also: re.Match[str]) -> bool:
    """True if the letter after a letter is a further answer, not an article or the next heading."""
    behind = view[also.end("tail") : also.end("tail") + 20]
    joined = view[also.start() : also.start(1)].strip(" \n([).")
    if denied(view, also.end(1)):
        return False
    if joined:
        return not (also[1] == "A" and re.match(r"[a-z]", behind) and not re.match(r"(?:is|are|and|or)\b", behind))
    return not behind or "\n" in also["tail"] or re.match(r"(?:and|or)\b|[A-Z](?![\w'])", behind) is not None


def aside(view: str, attached: re.Match[str]) -> bool:
    """True if an option's name after another option's letter is mentioned only to exclude it."""
    end = _SENTENCE_END.search(view, attached.end())
    assert end is not None
    after = view[attached.end() : min(end.start(), attached.end() + LONGEST)]
    return bool(DENIED_AFTER.search(after) or SUPPOSED.match(after))


def _worded(view: str, place: int, until: int, names: Names) -> Statement | None:
    """Read the option that the words after a cue name."""
    start = place + len(view[place:]) - len(view[place:].lstrip())
    end = _SENTENCE_END.search(view, start)
    assert end is not None
    if end[0] == "?":
        return None
    said = view[start : max(start, min(end.start(), until))]
    named = names.name_at(view, start)
    if named is not None and not said[named.end() - start :].strip(" .'"):
        same = names.named(named[0])
        return Statement(
            start=place, end=named.end(), option=same[0] if len(same) == 1 else None, rank=CUED, place=named.span()
        )
    weighed = weigh(said, names, given=True)
    if not weighed.affirmed:
        return None
    spot = next(iter(weighed.affirmed.values()))[0]
    span = spot.name or (spot.start, spot.end)
    return Statement(
        start=place, end=end.start(), option=weighed.only, rank=CUED, place=(start + span[0], start + span[1])
    )
