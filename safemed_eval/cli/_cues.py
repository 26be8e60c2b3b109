"""Output of the cues that give answers away without the image, as a table and in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.markup import escape

from safemed_eval import data as datasets
from safemed_eval.cli._show import as_json, name_cell, print_table, say
from safemed_eval.data import Cue, DataSet
from safemed_eval.progress import status
from safemed_eval.rounding import percent
from safemed_eval.text import on_one_line

_ODD = {
    "lower case": "one option alone begins with a small letter",
    "period": "one option alone ends with a period",
    "longest": "one option alone is the longest",
    "in the question": "the words of one option alone stand in the question",
}


def show_cues(spec: str, data: DataSet, *, json: bool) -> None:
    """Count and print every cue of these data, with the count expected by chance."""
    with status("counting"):
        cues = datasets.cues(data.items)
    if json:
        counts = {"a": spec, "questions": len(data.items), "bad": len(data.bad)}
        typer.echo(as_json({**counts, "cues": [cue.to_json() for cue in cues]}))
        return
    rows: dict[str, dict[str, str]] = {}
    for cue in cues:
        rows.setdefault(cue.question_type or "all", {"n": str(cue.questions)})[cue.name] = _cell(cue)
    longest = max(len(name) for name in ("question type", *map(name_cell, rows)))
    print_table(f"{'question type':<{longest}}", list(rows.items()))
    say(
        escape(
            "x/n [c %]: n questions have the cue, in x of them it points to the gold answer, and in c % it would by "
            "chance. This does not show whether a model uses a cue. No image was opened."
        )
    )
    if data.bad:
        say(f"{len(data.bad)} more questions cannot be read, and are not counted.")
    _say_notable(cues, by_type=len(rows) > 1)


def _say_notable(cues: Sequence[Cue], *, by_type: bool) -> None:
    notable = [cue for cue in cues if cue.notable and bool(cue.question_type) == by_type]
    for cue in notable:
        where = f"{cue.question_type}: " if cue.question_type else ""
        say(escape(on_one_line(f"{where}{_sentence(cue)}")))
    if not notable:
        say("No cue is further from chance than 10 points, and than chance explains.")


def _cell(cue: Cue) -> str:
    if not cue.marked:
        return "-"
    letter = f"{cue.value} " if cue.name == "letter" else ""
    chance = "" if cue.expected is None else f" [{100 * cue.expected / cue.marked:.0f} %]"
    return escape(f"{letter}{cue.gold:.0f}/{cue.marked}{chance}")


def _sentence(cue: Cue) -> str:
    gold, share = f"{cue.gold:.0f}", f"{percent(cue.share)} %"
    if cue.expected is None:
        return (
            f"in {cue.marked} of {cue.questions} questions two options say the same; in {gold} the gold one is of them."
        )
    chance = f"by chance in {percent(cue.expected / cue.marked)} %"
    if cue.name == "one answer":
        return f"one answer, '{cue.value}', is gold in {gold} of {cue.marked} questions ({share}), {chance}."
    if cue.name == "letter":
        return f"{cue.value} is gold in {gold} of {cue.marked} questions ({share}), {chance}."
    if cue.name == "text alone":
        return (
            "a reader of the text alone, who picks the option that is most often gold in the other questions, is right "
            f"in {share}, {chance}."
        )
    return (
        f"in {cue.marked} of {cue.questions} questions {_ODD[cue.name]}; it is gold in {gold} of them ({share}), "
        f"{chance}."
    )
