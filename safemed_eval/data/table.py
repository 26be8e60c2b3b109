"""table:FILE.csv or table:FILE.jsonl: your own data.

Columns: image (relative to the table's folder, or to --data-root), question, option_a, option_b, ... (or `options`, a
list, in JSONL), answer (an option's letter or its text), and as far as you have them id, modality, question_type,
source, patient_id. Any further column is kept with the item.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from safemed_eval.data import _names
from safemed_eval.data._dataset import Builder, DataSet, gold_index
from safemed_eval.data._reading import fields_text, lettered_options, read_table
from safemed_eval.errors import DataError

_NEEDED = ("image", "question", "answer")
_KNOWN = ("id", "modality", "question_type", "source", "patient_id")


def load(place: Path, root: Path | None) -> DataSet:
    """Read every row of the table."""
    rows = read_table(place)
    columns = {name for row in rows for name in row}
    missing = [name for name in _NEEDED if name not in columns]
    if rows and missing:
        raise DataError(f"{place}: no column {', '.join(missing)}; it has {', '.join(sorted(columns))}")
    builder = Builder()
    for number, row in enumerate(rows, start=1):
        text = fields_text(row, _KNOWN)
        options = row["options"] if isinstance(row.get("options"), list) else lettered_options(row, "option_")
        extra = {
            name: str(value)
            for name, value in row.items()
            if name not in (*_NEEDED, *_KNOWN, "options") and not name.startswith("option_")
        }
        builder.add(
            text["id"] or f"row {number}",
            text=row.get("question"),
            options=options,
            label=_gold(row.get("answer"), options),
            image=row.get("image"),
            root=root or place.parent,
            modality=_names.modality(text["modality"]),
            question_type=_names.question_type(text["question_type"]),
            source=text["source"] or place.stem,
            patient_id=text["patient_id"],
            extra=extra,
        )
    return builder.done()


def _gold(answer: Any, options: Sequence[Any]) -> int | str:
    by_text = gold_index(answer, options)
    letter = str(answer).strip().upper()
    by_letter = ascii_uppercase.find(letter) if len(letter) == 1 else -1
    if not 0 <= by_letter < len(options):
        return by_text
    if isinstance(by_text, int) and by_text != by_letter:
        return f"answer '{answer}' is the letter of one option and the text of another"
    return by_letter
