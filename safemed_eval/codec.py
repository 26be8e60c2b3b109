"""JSON to typed values and back; parsing validates.

The type of a field decides what is accepted: a dataclass, a tuple, a mapping, a Literal, `| None`. Nothing is
converted: `true` is no int, "3" no number, NaN no float. A dataclass's `__post_init__` may raise ValueError to refuse
more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar

from safemed_eval.errors import RunError

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")
Json = dict[str, Any]
"""A JSON object."""


def decode(kind: type[T], value: object, where: str) -> T:
    """Build a value of this type from plain JSON values.

    Args:
        where: names the file and the place in it, for the error message.
    Raises:
        RunError: a field is missing, has the wrong type, or contradicts another field.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        faults = [_fault(detail, value) for detail in error.errors(include_url=False)]
        raise RunError(f"{where}{'; '.join(dict.fromkeys(faults[:_SHOWN]))}") from None


_SHOWN = 3
"""Number of errors that one message names at most."""


def _fault(error: ErrorDetails, value: object) -> str:
    """Return the end of an error message, such as ": seed cannot be 'x'"."""
    path = [str(part) for part in takewhile(lambda part: isinstance(part, str), error["loc"])]
    if error["type"] == "missing" and len(path) == len(error["loc"]):
        return f"{''.join(f': {part}' for part in path[:-1])} has no {path[-1]}"
    if error["type"] == "value_error":
        return joined("".join(f": {part}" for part in path), str(error["ctx"]["error"]))
    for part in path:
        value = value[part] if isinstance(value, Mapping) and part in value else value
    return f": {': '.join(path) or 'it'} cannot be {value!r:.60}"


def joined(where: str, reason: str) -> str:
    """Join a place and what is wrong there: "the record of item 'x' says ...", or "run.json: ..."."""
    return f"{where}{'' if reason.startswith(_VERBS) else ':'} {reason}"


_VERBS = ("says ", "is of ", "was made ")
"""Reasons that begin with a verb follow the place without a colon."""


def decode_line(kind: type[T], line: bytes) -> T:
    """Build a value of this type from a line of JSON; raise ValueError where it does not fit."""
    return _adapter(kind).validate_json(line, strict=True)


def encode(value: object) -> Any:
    """Convert a dataclass, and everything in it, to plain JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: encode(part) for key, part in value.items()}
    return [encode(part) for part in value] if isinstance(value, list | tuple) else value


_adapters: dict[type[object], TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    from pydantic import TypeAdapter

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]
