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
from string import ascii_uppercase

from safemed_eval.core import Item
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
    sole,
    unlettered,
    without_empty_end,
)
from safemed_eval.errors import DataError

_NEEDED = ("image", "question", "answer")
_KNOWN = ("id", "modality", "question_type", "source", "patient_id")
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
    spelt = [name for name in columns if re.fullmatch(r"(?i)option([ -][a-z]|[a-rt-z])", name)]
    odd = {f"option_{name[-1].lower()}": [name] for name in spelt if f"option_{name[-1].lower()}" not in columns}
    missing += sorted(odd)
    if "option_a" not in missing and not any(name == "options" or name.startswith("option_") for name in columns):
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


def _misspelt(columns: Set[str]) -> str | None:
    """Name a column that seems to be a known one misspelt, which would silently go unused; None if there is none."""
    free = sorted(columns - {*_NEEDED, *_KNOWN})
    for name in _KNOWN:
        if name not in columns and (close := get_close_matches(name, free, n=1, cutoff=_MISSPELT)):
            return (
                f"the column '{close[0]}' would not be read as {name}; rename it, or call it something less like that"
            )
    return None


def _item(key: str, row: Row, root: Path, source: str, slices: dict[str, str | None]) -> Item:
    options = _options(row)
    extra = {
        name: str(value)
        for name, value in row.items()
        if name not in (*_NEEDED, *_KNOWN, "options") and not name.startswith("option_")
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
    """Read `options` if it is a list, or an object {"A": ..., "B": ...}; otherwise option_a, option_b, ..."""
    given = row.get("options")
    if isinstance(given, list):
        return without_empty_end(given)
    if isinstance(given, dict):
        by_letter = {str(key).strip().upper(): option for key, option in given.items()}
        if len(by_letter) < len(given) or sorted(by_letter) != list(ascii_uppercase[: len(given)]):
            raise DataError(f"the keys of options are {list(given)}; they must be the letters A, B, ... without a gap")
        return without_empty_end(by_letter[letter] for letter in sorted(by_letter))
    options = lettered_options(row, "option_")
    if not options and not is_empty(given):
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
    same_text = [i for i, option in enumerate(options) if str(option).strip() == answer.strip()]
    if same_text not in ([], [by_letter]):
        raise DataError(f"answer '{answer}' is the letter of one option and the text of another")
    return sole(by_letter, options)
