"""Edit a written answer so that it gives another option, for attacks on models that reason."""

from __future__ import annotations

from collections.abc import Iterator

from safemed_eval.core import Question
from safemed_eval.models.answers._cues import MARKED
from safemed_eval.models.answers._names import Names, flat, names_of
from safemed_eval.models.answers._stated import TAGGED, statements
from safemed_eval.models.answers.reading import Reading, answer_part, first_answer, parse, read_option, thought_end
from safemed_eval.models.checkpoints.thoughts import CLOSE, OPEN, canonical

OPENING_TAG, CLOSING_TAG = "<answer>", "</answer>"
"""The tags that a model that was trained here puts around its answer."""


def retell(text: str, question: Question, option: int, *, bent: bool = True) -> str:
    """Edit a text so that it concludes with this option: the text that an attacker wants the model to write.

    The rationale stays, except that the given option replaces the one that the text answers with wherever it is named,
    in words or as `the answer is C`. The answer follows in the tags or the box of the original text. `parse` reads the
    given option from the result. The marks of a thought become `<think>` and `</think>`.

    Args:
        bent: False leaves the rationale as it is, and changes only the answer.
    """
    names, letter = names_of(question.options), question.letters[option]
    text = canonical(text)
    if (first := first_answer(text)) is not None:
        return _retold_first(text, first, question, option, bent=bent)
    start = thought_end(text)
    rest = answer_part(text)
    body = text[start:] if rest is None else rest
    view = flat(body)
    read = Reading() if rest is None else read_option(body, view, names)
    said = read.option

    def bend(words: str) -> str:
        if not bent or said is None or said == option:
            return words
        return _renamed(words, flat(words), names, said, question.options[option], letter)

    thought = text[:start]
    for prefix, answer in _retold(thought, body, read, letter, question.options[option]):
        told = bend(prefix) + answer
        if parse(told, question) == option:
            return told
    return _bare(question, option)


def _retold_first(text: str, first: str, question: Question, option: int, *, bent: bool) -> str:
    """The same for a text whose answer, `first`, comes before its thought: that stays behind it."""
    names, said = names_of(question.options), parse(first, question)
    answer, behind = retell(first, question, option, bent=bent), text[text.index(OPEN) :]
    if bent and said is not None and said != option:
        behind = _renamed(behind, flat(behind), names, said, question.options[option], question.letters[option])
    told = answer + behind
    return told if parse(told, question) == option else answer


def curtail(text: str, question: Question, option: int) -> str:
    """Return this option as an answer without a rationale; if the text has a thought before its answer, an empty one
    comes first."""
    text = canonical(text)
    thought = f"{OPEN}{CLOSE}" if thought_end(text) and first_answer(text) is None else ""
    answer = _bare(question, option)
    return f"{thought}{OPENING_TAG}{answer} {CLOSING_TAG}" if OPENING_TAG in text.lower() else thought + answer


def _bare(question: Question, option: int) -> str:
    """The letter of an option, with its text if the letter alone would be read as another option."""
    letter = question.letters[option]
    return f" {letter}" if parse(letter, question) == option else f" {letter}) {question.options[option]}"


def _retold(thought: str, body: str, read: Reading, letter: str, words: str) -> Iterator[tuple[str, str]]:
    """Yield candidates, each as the part of the text that is kept and the answer that follows it."""
    tags = [*TAGGED.finditer(body)]
    closing = CLOSE if OPEN in body else ""
    if tags:
        tag = tags[-1]["tag"] or tags[-1]["bracket"]
        opens, closes = ("<", ">") if tags[-1]["tag"] else ("[", "]")
        kept = f"{thought}{body[: tags[-1].start()]}{closing}"
        yield kept, f"{opens}{tag}{closes} {letter} {opens}/{tag}{closes}"
        yield thought, f"{OPENING_TAG} {letter} {CLOSING_TAG}"
    elif closing:
        yield f"{thought}{body}{closing}", f" {letter}"
    elif read.stated:
        last = read.stated[-1]
        kept, said = thought + body[: last.place[0]], letter if last.lettered or last.rank == MARKED else words
        ends = body[last.place[1] : last.end] if last.rank == MARKED else ""
        yield kept, f"{said}{ends}" + ("}" if body[last.end :].lstrip().startswith("}") else "")
    elif read.named:
        yield thought + body, ""
    yield thought, f" {letter}"
    yield thought, f" {letter}) {words}"


def _renamed(words: str, view: str, names: Names, said: int, option: str, letter: str) -> str:
    """Replace every name and letter of one option in a text by those of another."""
    places = {}
    for mention in names.places(view):
        if mention.name and mention.options == {said}:
            places[mention.name] = option
        places |= {(at, at + 1): letter for at, index in mention.letters if index == said}
    for statement in statements(words, view, names):
        if statement.lettered and statement.option == said:
            places[statement.place] = letter
    for (start, end), new in sorted(places.items(), reverse=True):
        words = words[:start] + new + words[end:]
    return words
