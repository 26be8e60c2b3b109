"""Reading records from JSON, JSONL and CSV files with errors that name the file and the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from safemed_eval.errors import DataError

Row = dict[str, Any]


def read_json_records(file: Path) -> list[Row]:
    """The list of objects in a JSON file."""
    try:
        records = json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: broken JSON at line {error.lineno}: {error.msg}") from None
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise DataError(f"{file}: expected a list of objects")
    return records


def read_table(file: Path) -> list[Row]:
    """The rows of a CSV file, or the objects of a JSONL file; column names in lower case."""
    if file.suffix.lower() == ".csv":
        reader = csv.DictReader(_text(file).splitlines(keepends=True), strict=True)
        try:
            rows: list[Row] = list(reader)
        except csv.Error as error:
            raise DataError(f"{file}: broken CSV at line {reader.line_num}: {error}") from None
        for line, row in enumerate(rows, start=2):
            if None in row or None in row.values():
                raise DataError(f"{file}: row {line - 1} has not as many cells as the header ({len(row)} columns)")
    elif file.suffix.lower() == ".jsonl":
        rows = []
        for line, text in enumerate(_text(file).splitlines(), start=1):
            if text.strip():
                try:
                    row = json.loads(text)
                except json.JSONDecodeError as error:
                    raise DataError(f"{file}: broken JSON at line {line}: {error.msg}") from None
                if not isinstance(row, dict):
                    raise DataError(f"{file}: line {line} is not an object")
                rows.append(row)
    else:
        raise DataError(f"{file}: a table is a .csv or .jsonl file")
    return [{str(key).strip().lower(): value for key, value in row.items()} for row in rows]


def lettered_options(record: Mapping[str, Any], prefix: str) -> list[Any]:
    """option_A, option_B, ... in order. Empty ones at the end are absent; an empty one in between stays, as bad."""
    options = [record.get(prefix + letter, record.get(prefix + letter.lower())) for letter in ascii_uppercase]
    while options and (options[-1] is None or not str(options[-1]).strip()):
        options.pop()
    return options


def fields_text(record: Mapping[str, Any], names: Iterable[str]) -> dict[str, str | None]:
    """These fields as text, stripped; missing and empty ones are None."""
    values = {name: record.get(name) for name in names}
    return {name: None if v is None else str(v).strip() or None for name, v in values.items()}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
