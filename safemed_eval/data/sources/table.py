"""table:FILE.csv, .tsv or .jsonl: your own data.

Columns: image (below the table's folder, or below --data-root; `scan.dcm#7` is the seventh frame of a file), question,
option_a, option_b, ... (or in JSONL `options`, a list, or an object of letters), answer (an option's letter or its
text), and as far as you have them id, modality, question_type, source, patient_id. Any further column is kept with the
item, but one that looks like one of these misspelt is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

from safemed_eval.core import MAX_OPTIONS, Item
from safemed_eval.data.dataset import DataSet
from safemed_eval.data.records import (
    Builder,
    Row,
    canonical_modality,
    canonical_question_type,
    fields_text,
    gold_index,
    image_path,
    is_empty,
    lettered_options,
    make_question,
    read_table,
    same_text,
    sole,
    unlettered,
    without_empty_end,
)
from safemed_eval.errors import DataError, shortened

_NEEDED = ("image", "question", "answer")
_KNOWN = ("id", "modality", "question_type", "source", "patient_id")
_OPTION = re.compile("option_[a-z]")
_OTHER_OPTION = re.compile(r"(?!options?$|choices?$)(?!option_[a-z]$)(?:option|choice)s?[\W_]*([a-z]|[0-9]{1,2})")
_OPTION_ALIKE = re.compile(r"([a-z]{3,9})[\W_]+([a-h]|[0-9])")
_ALIKE = 0.65
"""Similarity from which the word before a letter is taken for `option` misspelt: `optoin` is, `operator` is not."""
_PATIENT = ("patient", "subject", "subject_id", "pid")
"""Columns that seem to name a patient."""
_MISSPELT = 0.88
"""Similarity from which a further column is taken for a known one misspelt: `modalty` is, `mortality` is not."""


def load(place: Path, root: Path | None) -> DataSet:
    """Read every row of the table."""
    rows = read_table(place)
    columns = {name for row in rows for name in row}
    if rows and (fault := _missing(columns) or _misspelt(columns)):
        raise DataError(f"{place}: {fault}")
    builder = Builder()
    for number, row in enumerate(rows, start=1):
        text = fields_text(row, _KNOWN)
        slices = {
            "modality": canonical_modality(text["modality"]),
            "question_type": canonical_question_type(text["question_type"]),
        }
        key = text["id"] or f"row {number}"
        builder.add(key, partial(_item, key, row, root or place.parent, text["source"] or place.stem, slices), **slices)
    return builder.done()


def _missing(columns: Set[str]) -> str | None:
    """Name the missing columns, each with a column that may be meant by it; None if all are there."""
    missing = [name for name in _NEEDED if name not in columns]
    odd = _other_options(columns)
    missing += sorted(odd)
    if "option_a" not in missing and not any(name == "options" or _OPTION.fullmatch(name) for name in columns):
        missing.append("option_a")
    if not missing:
        return None
    free = sorted(columns - {*_NEEDED, *_KNOWN})
    close = {
        name: odd.get(name) or get_close_matches(name, free, n=1) or [column for column in free if name in column]
        for name in missing
    }
    guesses = [f"'{guess[0]}' for {name}" for name, guess in close.items() if guess]
    meant = f"; did you mean {', '.join(guesses)}?" if guesses else ";"
    return f"no column {', '.join(missing)}{meant} it has {', '.join(sorted(columns))}"


def _other_options(columns: Set[str]) -> dict[str, list[str]]:
    """The missing option columns that have another spelling: `option_b` for `Option B`, `choice_2` or `B`."""
    alone = not any(name == "options" or _OPTION.fullmatch(name) for name in columns)
    spelt = dict[str, str]()
    for name in sorted(columns):
        alike = _OPTION_ALIKE.fullmatch(name)
        if match := _OTHER_OPTION.fullmatch(name) or (re.fullmatch("([a-z])", name) if alone else None):
            spelt[name] = match[1]
        elif alike and get_close_matches(alike[1], ("option", "choice"), n=1, cutoff=_ALIKE):
            spelt[name] = alike[2]
    from_zero = "0" in spelt.values()
    odd = dict[str, list[str]]()
    for name, letter in spelt.items():
        place = int(letter) - (not from_zero) if letter.isdecimal() else ascii_lowercase.index(letter)
        if place < MAX_OPTIONS and (meant := f"option_{ascii_lowercase[place]}") not in columns:
            odd.setdefault(meant, []).append(name)
    return odd


def _misspelt(columns: Set[str]) -> str | None:
    """Name a column that seems to be a known one misspelt, which would silently go unused; None if there is none."""
    free = sorted(columns - {*_NEEDED, *_KNOWN})
    for name in _KNOWN:
        close = [column for column in _PATIENT if column in free] if name == "patient_id" else []
        close = close or get_close_matches(name, free, n=1, cutoff=_MISSPELT)
        if close and name not in columns:
            return (
                f"the column '{close[0]}' would not be read as {name}; rename it, or call it something less like that"
            )
    return None


def _item(key: str, row: Row, root: Path, source: str, slices: dict[str, str | None]) -> Item:
    options = _options(row)
    extra = {
        name: str(value)
        for name, value in row.items()
        if name not in (*_NEEDED, *_KNOWN, "options") and not _OPTION.fullmatch(name)
    }
    return Item(
        id=key,
        question=make_question(row.get("question"), options),
        label=_gold(row.get("answer"), options),
        image=image_path(row.get("image"), root),
        root=root,
        source=source,
        patient_id=fields_text(row, ("patient_id",))["patient_id"],
        extra=extra,
        modality=slices["modality"],
        question_type=slices["question_type"],
    )


def _options(row: Row) -> list[object]:
    """Read `options`, a list, or an object {"A": ..., "B": ...}, or option_a, option_b, ...

    Raises:
        DataError: `options` is something else, or both are given.
    """
    given, options = row.get("options"), lettered_options(row, "option_")
    if options and not is_empty(given):
        raise DataError(f"has both options, {shortened(str(given), 80)}, and option_a, ...; leave one of them out")
    if isinstance(given, list):
        return without_empty_end(given)
    if isinstance(given, dict):
        by_letter = {str(key).strip().upper(): option for key, option in given.items()}
        if len(by_letter) < len(given) or sorted(by_letter) != list(ascii_uppercase[: len(given)]):
            raise DataError(f"the keys of options are {list(given)}; they must be the letters A, B, ... without a gap")
        return without_empty_end(by_letter[letter] for letter in sorted(by_letter))
    if not is_empty(given):
        raise DataError(
            f"options is {given!r}, not a list; write one in JSONL, or columns option_a, option_b, ... in CSV"
        )
    return options


def _gold(answer: object, options: Sequence[object]) -> int:
    """Find the gold option by its letter or its text; refuse an answer whose two readings differ."""
    if not isinstance(answer, str):
        raise DataError(f"answer {answer!r} is not text; write an option's letter, such as B, or its text")
    letter = answer.strip().upper()
    by_letter = ascii_uppercase.find(letter) if len(letter) == 1 else -1
    if not 0 <= by_letter < len(options):
        return gold_index(answer, options)
    options = unlettered(options)
    by_text = [i for i, option in enumerate(options) if same_text(option, answer)]
    if by_text not in ([], [by_letter]):
        raise DataError(f"answer '{answer}' is the letter of one option and the text of another")
    return sole(by_letter, options)
