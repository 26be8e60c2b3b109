"""Reads records from JSON, JSONL and CSV files, with errors that name the file and the line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase

from safemed_eval.errors import DataError

Row = dict[str, object]


def read_json_records(file: Path) -> list[Row]:
    """Read a JSON file that holds a list of objects."""
    records = _json(_text(file), file, 0)
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise DataError(f"{file}: expected a list of objects")
    return records


def read_table(file: Path) -> list[Row]:
    """Read the rows of a CSV file (delimited by comma, semicolon or tab), or the objects of a JSONL file.

    Column names are turned to lower case.
    """
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _jsonl_rows}
    if file.suffix.lower() not in readers:
        raise DataError(f"{file}: a table is a .csv, .tsv or .jsonl file")
    rows = []
    for line, row in readers[file.suffix.lower()](file):
        lowered = {str(key).strip().lower(): value for key, value in row.items()}
        if len(lowered) < len(row):
            raise DataError(f"{file}: line {line}: two columns have the same name: {', '.join(map(str, row))}")
        rows.append(lowered)
    return rows


def _csv_rows(file: Path) -> Iterator[tuple[int, Row]]:
    text = _text(file)
    first = text.partition("\n")[0]
    if re.fullmatch(r"sep=.\s*", first):
        raise DataError(f"{file}: line 1 is '{first.strip()}', which only Excel reads; delete it")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise DataError(f"{file}: two columns have the same name: {', '.join(header)}")
        for cells in filter(None, reader):
            if len(cells) != len(header):
                raise DataError(
                    f"{file}: line {reader.line_num} has {len(cells)} cells, the header has {len(header)}; "
                    f"a cell that holds '{delimiter}' must be in double quotes"
                )
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{file}: broken CSV at line {reader.line_num}: {error}") from None


def _jsonl_rows(file: Path) -> Iterator[tuple[int, Row]]:
    for line, text in enumerate(_text(file).split("\n"), start=1):
        if not text.strip():
            continue
        row = _json(text, file, line - 1)
        if not isinstance(row, dict):
            raise DataError(f"{file}: line {line} is not an object")
        yield line, row


def lettered_options(record: Mapping[str, object], prefix: str) -> list[object]:
    """Collect option_A, option_B, ... in order, without empty ones at the end."""
    return without_empty_end(
        [record.get(prefix + letter, record.get(prefix + letter.lower())) for letter in ascii_uppercase]
    )


def without_empty_end(options: Iterable[object]) -> list[object]:
    """Drop empty options at the end; an empty one in between stays, and makes the item bad."""
    kept = list(options)
    while kept and is_empty(kept[-1]):
        kept.pop()
    return kept


def is_empty(value: object) -> bool:
    """True for a field without content: null, no text, or NaN, which Python may write for null in JSON."""
    return value is None or value != value or not str(value).strip()


def fields_text(record: Mapping[str, object], names: Iterable[str]) -> dict[str, str | None]:
    """Return these fields as text, stripped; missing and empty ones are None."""
    values = {name: record.get(name) for name in names}
    return {name: None if is_empty(value) else str(value).strip() for name, value in values.items()}


def _json(text: str, file: Path, lines_before: int) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: broken JSON at line {lines_before + error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # digits without end, brackets without end
        raise DataError(f"{file}: JSON that cannot be read, after line {lines_before}: {error}") from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
