"""The builder of a data set, which checks each item that a format reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from safemed_eval.core import Item, item_fields
from safemed_eval.data.dataset import Bad, DataSet
from safemed_eval.errors import DataError, shortened

MAX_TEXT = 100_000
"""Characters of one text of an item. No question is longer; a file that holds a longer text is broken."""
_LONGEST_REASON = 600
"""Characters of a reason, which may quote the file."""


class Builder:
    """Collects a format's records: each becomes an item, or is listed as bad with the reason."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._bad: list[Bad] = []
        self._seen: set[str] = set()

    def add(
        self,
        id: str,
        make: Callable[[], Item],
        *,
        modality: str | None = None,
        question_type: str | None = None,
    ) -> None:
        """Add the item that `make` returns; if it raises DataError, list the record as bad."""
        try:
            if id in self._seen:
                raise DataError("the id occurs twice; only the first of them is used")
            self._seen.add(id)
            item = make()
            fields = item_fields(item)
            json.dumps(fields, ensure_ascii=False).encode()
            _refuse_endless(fields)
            self._items.append(item)
        except UnicodeEncodeError:
            name = shortened(repr(id)[1:-1])
            self._bad.append(Bad(id=name, reason="its text holds half a character (a lone surrogate)"))
        except DataError as error:
            about = {"id": shortened(id), "reason": shortened(str(error), _LONGEST_REASON)}
            self._bad.append(Bad(**about, modality=_not_endless(modality), question_type=_not_endless(question_type)))

    def done(self) -> DataSet:
        """The data set of all records that were added."""
        return DataSet(items=tuple(self._items), bad=tuple(self._bad))


def _refuse_endless(fields: dict[str, Any]) -> None:
    """Raise DataError where a field is, or holds, a text over MAX_TEXT characters."""
    for name, value in fields.items():
        texts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
        if longest > MAX_TEXT:
            raise DataError(f"the {name.replace('_', ' ')} has {longest:,} characters, over the limit of {MAX_TEXT:,}")


def _not_endless(name: str | None) -> str | None:
    return None if name is None or len(name) > MAX_TEXT else name
