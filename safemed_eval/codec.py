"""JSON to typed values and back, and arguments of the Python API: both are checked against the types that are declared.

The type of a field decides what is accepted: a dataclass, a tuple, a mapping, a Literal, `| None`. Nothing is
converted: `true` is no int, "3" no number, NaN no float. A dataclass's `__post_init__` may raise ValueError to refuse
more.

A command line's options are text, and its parser refuses what is of another kind. A caller in Python may pass anything:
`n="1000"` would otherwise fail deep inside, or, worse, not at all; see `typed`.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import takewhile
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from safemed_eval.errors import RunError, SpecError, did_you_mean, shortened

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")
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
    """Convert a dataclass, and everything in it, to plain JSON values; a field that is `LATER` only if it is set."""
    if is_dataclass(value) and not isinstance(value, type):
        every = [(field, getattr(value, field.name)) for field in fields(value)]
        return {f.name: encode(part) for f, part in every if not (f.metadata.get("later") and part == f.default)}
    if isinstance(value, Mapping):
        return {key: encode(part) for key, part in value.items()}
    return [encode(part) for part in value] if isinstance(value, list | tuple) else value


_adapters: dict[type[object], TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    from pydantic import TypeAdapter

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


# ----------------------------------------------------------------------------------------------------------- arguments

_LONGEST_PATH = 4096
"""Characters of a path: longer ones no system takes, and an error message would repeat them."""
_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    NoneType: "None",
}


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function: it raises SpecError for an argument of another type than its annotation says.

    Whole and real numbers of NumPy count as those of Python, and become them. Annotations that cannot be evaluated at
    run time, and those of keyword dictionaries, are not checked.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def with_checks(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise SpecError(
                f"{function.__name__}: {error}; help(safemed_eval.{function.__name__}) lists them"
            ) from None
        hints = _hints_of(function)
        for name, value in given.arguments.items():
            if name in hints:
                given.arguments[name] = fitted(value, hints[name], name)
        return function(*given.args, **given.kwargs)

    return with_checks


@functools.cache
def _hints_of(function: Callable[..., object]) -> dict[str, object]:
    """Return the types of the parameters, but for `**options` and those whose names exist for type checkers only."""
    hints: dict[str, object] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if isinstance(parameter.annotation, str) and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            try:
                hints[name] = eval(parameter.annotation, function.__globals__)
            except NameError:
                continue
    return hints


def fitted(value: object, hint: object, where: str) -> object:
    """Return the value, a number of NumPy as one of Python; raise SpecError if it is of no such type."""
    for kind in _alternatives(hint):
        if kind in (int, float):
            if isinstance(value, bool):
                continue
            if isinstance(value, Integral):
                return int(value)
            if kind is float and isinstance(value, Real):
                return float(value)
        elif get_origin(kind) is Literal:
            if value in get_args(kind):
                return value
            if isinstance(value, str) and hint is kind:
                raise SpecError(
                    f"{where}: {shortened(repr(value), 80)} is not a choice; {did_you_mean(value, get_args(kind))}"
                )
        elif kind is object or isinstance(value, _class_of(kind)):
            named = isinstance(value, str | Path) and Path in _alternatives(hint)
            if named and ("\0" in str(value) or len(str(value)) > _LONGEST_PATH):
                raise SpecError(
                    f"{where}: a path has at most {_LONGEST_PATH:,} characters, and NUL is none of them, got "
                    f"{shortened(repr(value), 80)}"
                )
            if get_origin(kind) not in (Sequence, Iterable):
                return value
            if not isinstance(value, str):
                return [fitted(part, get_args(kind)[0], f"an element of {where}") for part in value]  # type: ignore[attr-defined]
    raise SpecError(f"{where} must be {_words(hint)}, got {shortened(repr(value), 80)}")


def _alternatives(hint: object) -> tuple[object, ...]:
    if get_origin(hint) in (Union, UnionType):
        return tuple(kind for part in get_args(hint) for kind in _alternatives(part))
    return (NoneType,) if hint is None else (hint,)


def _class_of(kind: object) -> type:
    """Return the class of a type such as Sequence[str]; of a type variable its bound."""
    found = get_origin(kind) or getattr(kind, "__bound__", None) or kind
    return found if isinstance(found, type) else object


def _words(hint: object) -> str:
    words = [word for kind in _alternatives(hint) for word in _words_of(kind)]
    return ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else words[0]


def _words_of(kind: object) -> Sequence[str]:
    if get_origin(kind) is Literal:
        return [repr(choice) for choice in get_args(kind)]
    if get_origin(kind) in (Sequence, Iterable):
        return [f"a list (each element {_words(get_args(kind)[0])})"]
    if isinstance(kind, type):
        return [_WORDS.get(kind, f"an instance of {kind.__name__}")]
    return ["a function" if get_origin(kind) is Callable else str(kind)]
