"""Reading records from JSON, JSONL and CSV files with errors that name the file and the line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase

from safemed_eval.errors import DataError

Row = dict[str, object]


def read_json_records(file: Path) -> list[Row]:
    """The list of objects in a JSON file."""
    records = _json(_text(file), file, 0)
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise DataError(f"{file}: expected a list of objects")
    return records


def read_table(file: Path) -> list[Row]:
    """The rows of a CSV file (delimited by comma, semicolon or tab), or the objects of a JSONL file.

    Column names come in lower case.
    """
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _jsonl_rows}
    if file.suffix.lower() not in readers:
        raise DataError(f"{file}: a table is a .csv or .jsonl file")
    rows = []
    for line, row in readers[file.suffix.lower()](file):
        lowered = {str(key).strip().lower(): value for key, value in row.items()}
        if len(lowered) < len(row):
            raise DataError(f"{file}: line {line}: two columns have the same name: {', '.join(map(str, row))}")
        rows.append(lowered)
    return rows


def _csv_rows(file: Path) -> Iterator[tuple[int, Row]]:
    text = _text(file)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
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
    """option_A, option_B, ... in order, as `without_empty_end` has them."""
    return without_empty_end(
        [record.get(prefix + letter, record.get(prefix + letter.lower())) for letter in ascii_uppercase]
    )


def without_empty_end(options: Iterable[object]) -> list[object]:
    """Options of which empty ones at the end are absent; an empty one in between stays, as bad."""
    kept = list(options)
    while kept and is_empty(kept[-1]):
        kept.pop()
    return kept


def is_empty(value: object) -> bool:
    """Whether a field says nothing: null, NaN, which JSON written by Python may hold for it, or no text."""
    return value is None or value != value or not str(value).strip()


def fields_text(record: Mapping[str, object], names: Iterable[str]) -> dict[str, str | None]:
    """These fields as text, stripped; missing and empty ones are None."""
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
