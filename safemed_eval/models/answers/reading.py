"""Parse a written answer: the option that it gives, its rationale, and the option that the rationale leads to.

An answer is never guessed: a text that can be read in two ways gives no answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from safemed_eval.core import Question
from safemed_eval.models.answers._cues import Statement
from safemed_eval.models.answers._names import Mention, Names, flat, names_of
from safemed_eval.models.answers._stated import BOX, TAGGED, settled, statements
from safemed_eval.models.answers._verdicts import TAKEN_BACK, judged
from safemed_eval.models.answers._weighed import weigh
from safemed_eval.models.answers._whole import opening, whole
from safemed_eval.models.checkpoints.thoughts import CLOSE, OPEN, canonical

_TAGS = re.compile(
    r"</?(?:think|answer|conclusion|summary|caption|final|output|result|response|choice)>|<\|(?:begin|end)_of_box\|>",
    re.IGNORECASE,
)
_PARTS = re.compile(r"</?(?:think|summary|caption)>", re.IGNORECASE)
_HEAD = re.compile(
    r"\s*(?:<s>|<bos>|\[/INST\]|<\|im_start\|>assistant|<start_of_turn>model|<\|turn>model|<\|assistant\|>|ASSISTANT:"
    r"|<\|start_header_id\|>assistant<\|end_header_id\|>|<\|START_RESPONSE\|>|<\|begin_of_solution\|>"
    r"|<\uff5cAssistant\uff5c>"
    r"|<\|start_of_role\|>assistant<\|end_of_role\|>)\s*"
)
_END = re.compile(
    r"</s>|<eos>|<pad>|<end_of_turn>|<turn\|>|<end_of_utterance>|<\uff5c[^\uff5c]{1,40}\uff5c>|<\|(?:im_end"
    r"|im_start|eot_id|eom_id|endoftext"
    r"|end_of_text|end|return|eos|end_of_sentence|end_of_turn|END_OF_TURN_TOKEN|END_RESPONSE|end_of_solution|user"
    r"|system"
    r"|observation|start_of_role|end_of_role|assistant_end|eoa|endofturn|diff_marker)\|>"
)
"""Tokens that end a turn, or begin another speaker's."""
_RUN_ON = re.compile(r"\n[\s#]*(?:(?:next|new)\s+)?(?:Question|Q|Human|User|Instruction)\s*\d{0,3}\s*:", re.IGNORECASE)
"""A further turn that a base model writes after its answer."""
_CLOSED = re.compile(TAGGED.pattern + r"(?:<\s{0,3}/|\[/)[^<>\[\]]*[>\]]\s*\Z", TAGGED.flags)
"""An answer in tags, closed, at the end."""
_DANGLING = re.compile(r"(?:\A|(?<=[.!?\n]))\W*(?:(?:so|therefore|thus|hence)\W+)?the\W*\Z|[\s*#$_`]+\Z", re.IGNORECASE)
"""The remains of `The correct answer is C` and its marks where the statement is cut off."""
_REFUSED = re.compile(
    r"\b(?:cannot|can't|can\s+not|could\s+not|couldn't|unable\s+to|not\s+(?:able|possible|enough|sufficient)"
    r"|impossible\s+to"
    r"|difficult\s+to|hard\s+to|insufficient|don't\s+know|do\s+not\s+know|not\s+sure|not\s+certain|I'm\s+sorry"
    r"|I\s+am\s+sorry"
    r"|need\s+more|inconclusive|indeterminate|depends\s+on|no\s+way\s+to|not\s+clear|unclear)\b"
    r"(?:\s+(?:be\s+|to\s+|definitively\s+|reliably\s+)*(?:determin|tell|say|identif|provid|assist|help|answer"
    r"|decid|know"
    r"|interpret|diagnos|assess|conclu|analy|distinguish|differentiat|information|evidence|from|whether|which"
    r"|what|if|on)"
    r"|\s*[.,;]|\s+but)",
    re.IGNORECASE,
)


def parse(text: str, question: Question) -> int | None:
    """Return the option that a text answers with, as an index, or None for no answer.

    The text up to the end of the last thought does not count (`thoughts` knows the marks), nor does anything after the
    end of the turn. A thought that was cut off is no answer. But an answer in closed tags before the first thought is
    the answer (see `first_answer`), unless other tags after the last thought differ from it: then there is none. The
    rest is read by the first of these rules that applies:

    1. Explicit statements. If several differ, the last one counts if it ranks higher than the others: answer tags
       (`<answer>`, `<CONCLUSION>`) rank above `\\boxed{}`, GLM's box tokens and the value of a JSON key such as
       "answer"; these rank above a cue with "final" in it, and that above any other cue (`Answer: C`, `the correct
       option is C`, `I choose C`, `C is correct`). Among equals, the last one counts if words between them take the
       earlier ones back ("wait", "actually"). Otherwise there is no answer. The same rules hold inside tags and boxes.
    2. The whole text is a letter, `C`, `(C)`, `C.`, a letter with its own option's text, `C) an eye`, or that text.
    3. It judges the options one by one, `A: no`, `C: yes`, or marks one in a list of them; see `_verdicts.judged`.
    4. It begins with a marked letter: `C) an eye, because...`, `C. The image shows...`.
    5. It names a single option in words or as `option C`, in a sentence that affirms it; see `_weighed.weigh`.

    A further question behind the answer does not count. Nothing is stated by a letter beyond the options or next to the
    text of another option, by two options at once, by a question, a condition or a denial.
    """
    names, text = names_of(question.options), canonical(text)
    first, rest = first_answer(text), answer_part(text)
    if first is not None:
        option = read_option(first, flat(first), names).option
        again = rest is not None and any(tag["said"].strip() for tag in TAGGED.finditer(rest))
        return None if again and parse(rest or "", question) != option else option
    return None if rest is None else read_option(rest, flat(rest), names).option


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The option that a text answers with, and the place where it begins to say so."""

    option: int | None = None
    start: int = 0
    stated: tuple[Statement, ...] = ()
    named: tuple[Mention, ...] = ()


def first_answer(text: str) -> str | None:
    """The text before its first thought, if that ends with an answer in closed tags; None if it does not.

    Models that answer first and explain afterwards write so. Thoughts are marked by `<think>` and `</think>`.
    """
    before, thought, _ = text.partition(OPEN)
    if not thought or CLOSE in before:
        return None
    turn = _within_turn(before)
    tag = _CLOSED.search(turn)
    return turn if tag and tag["said"].strip() else None


def answer_part(text: str) -> str | None:
    """The text after the last thought, up to the end of the turn; None if the thought is still open."""
    rest = text[thought_end(text) :]
    if OPEN in rest:
        return None
    return _within_turn(rest)


def thought_end(text: str) -> int:
    place = text.rfind(CLOSE)
    return place + len(CLOSE) if place >= 0 else 0


def _within_turn(rest: str) -> str:
    head = _HEAD.match(rest)
    start = head.end() if head else 0
    for end in _END.finditer(rest, start):
        if rest[start : end.start()].strip():
            return rest[start : end.start()]
        start = end.end()
    return rest[start:]


def read_option(rest: str, view: str, names: Names) -> Reading:
    run_on = _RUN_ON.search(view)
    if run_on and (read := read_option(rest[: run_on.start()], view[: run_on.start()], names)).option is not None:
        return read
    if not BOX.search(rest) and (option := whole(view, names)) is not None:
        return Reading(option=option)
    if stated := statements(rest, view, names):
        option = settled(stated, view)
        right = [] if option is not None else judged(rest, view, names)
        return Reading(
            option=right[0] if len(right) == 1 else option,
            start=min(statement.start for statement in stated),
            stated=tuple(stated),
        )
    if right := judged(rest, view, names):
        return Reading(option=right[0] if len(right) == 1 else None)
    if (begins := opening(view, names)) is not None:
        return Reading(option=begins.option)
    if _REFUSED.search(view):
        return Reading()
    weighed = weigh(view, names)
    if (option := weighed.only) is None:
        return Reading()
    places = weighed.affirmed[option]
    if TAKEN_BACK.search(view, places[-1].end):
        return Reading()
    return Reading(option=option, start=_sentence_start(view, places[0].start), named=tuple(places))


def _sentence_start(view: str, place: int) -> int:
    return max((sentence.end() for sentence in re.finditer(r"[.!?]\s+|\n+", view[:place])), default=0)


def rationale(text: str, question: Question) -> str | None:
    """Return the text before an answer, without think tags, or None if there is none.

    Of a text that answers before its first thought, it is the thought behind the answer. Otherwise it is the text up to
    the end of the last thought. Without a thought, it is the text before the first answer tag, or all of a thought that
    was cut off. In a text without tags that gives an answer, it is the text before the first statement of it, `answer
    is C` or `\\boxed{C}`, or before the first sentence that names it.
    """
    text = canonical(text)
    if first_answer(text) is not None:
        said = _PARTS.sub("", _within_turn(text[text.index(OPEN) : thought_end(text) or None])).strip()
        return said or None
    end = thought_end(text)
    for part in (text[:end], _before_answer(text[end:], question)):
        if said := _PARTS.sub("", part).strip():
            return said
    return None


def _before_answer(rest: str, question: Question) -> str:
    if tag := TAGGED.search(rest):
        return rest[: tag.start()]
    if OPEN in rest:
        return rest
    rest = _within_turn(rest)
    read = read_option(rest, flat(rest), names_of(question.options))
    return "" if read.option is None else _DANGLING.sub("", rest[: read.start])


@dataclass(frozen=True, kw_only=True)
class Told:
    """Facts about a written answer.

    Attributes:
        words: its number of words, without tags.
        rationale: the text before its answer, in lower case with single blanks; None if there is none.
        conclusion: the option that the rationale leads to; None if it leads to none.
    """

    words: int
    rationale: str | None
    conclusion: int | None


@lru_cache(maxsize=2**16)
def told(text: str, question: Question) -> Told:
    """Read a written answer. Results are cached: tables and page of a report read the same texts."""
    said = rationale(text, question)
    return Told(
        words=len(_TAGS.sub(" ", _END.sub(" ", canonical(text))).split()),
        rationale=None if said is None else " ".join(said.casefold().split()),
        conclusion=None if said is None else conclusion(said, question),
    )


def conclusion(rationale: str, question: Question) -> int | None:
    """Return the option that a rationale leads to, as an index, or None if it concludes nothing.

    `parse` reads it from the rationale alone: the option that it states, or else the only one that it affirms.
    """
    return parse(rationale, question)
