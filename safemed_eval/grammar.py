"""Parser and writer of spec strings: `name:key=value,key=value`, with fractions such as `eps=4/255`.

A spec string fills the fields of a frozen dataclass; the type of a field decides how its value is read. Keys and
choices are matched case-insensitively. The first part may have no key, as in `art:SquareAttack,eps=4/255`, if the
dataclass has a field for it.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from safemed_eval.errors import SpecError, canonical, did_you_mean

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")

ALWAYS = {"always": True}
"""Metadata of a field that the canonical string always includes."""
LATER = {"later": True}
"""Metadata of a field that was added later: what a run stores of a spec leaves it out at its default."""
FIRST = {"first": True}
"""Metadata of the text field that is written first, without its key."""
REST = {"rest": True}
"""Metadata of the mapping field that takes all other keys, with their values as unparsed text."""

RADII = "0,0.5s,1s,1.5s,2s"
"""Default radii at which certified accuracy is shown; see `radii`."""
COMPARED_RADII = "0,0.5s,1s"
"""Default radii that `compare` tests: fewer, since each is one more test."""

_BOOLS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


def number(text: str, where: str) -> float:
    """Parse a finite float from "0.25", "1e-3" or a fraction such as "4/255".

    Raises:
        SpecError: the text is nothing of the kind; `where` names the option in the message.
    """
    top, slash, bottom = text.partition("/")
    try:
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise SpecError(f"{where}: '{text}' is not a number; write one like 0.25 or 4/255")
    return value


def whole(text: str, where: str) -> int:
    """Parse a whole number, or raise SpecError."""
    try:
        return int(text)
    except ValueError:
        raise SpecError(f"{where}: '{text}' is not a whole number") from None


def radii(text: str, sigma: float | None) -> dict[str, float]:
    """Parse radii: `"0,0.5s"` -> `{"0": 0.0, "0.5s": 0.5 * sigma}`; the suffix s means a multiple of sigma.

    Raises:
        SpecError: the text is not a list of radii at or above 0, or counts in sigma where there is none.
    """
    points = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        value = number(part.removesuffix("s"), "--radii")
        if value < 0:
            raise SpecError(f"--radii: a radius cannot be negative, got {part}")
        if part.endswith("s") and sigma is None:
            raise SpecError(
                f"--radii {part}: patches have no sigma to count in; write sizes in pixels, such as 0,16,32"
            )
        points[part] = value * (sigma if sigma is not None and part.endswith("s") else 1)
    if not points:
        raise SpecError("--radii: name at least one radius, such as 0,0.5s,1s")
    return points


def split(text: str) -> tuple[str, dict[str, str]]:
    """Split a spec string: `"pgd:eps=4/255,steps=10"` -> `("pgd", {"eps": "4/255", "steps": "10"})`.

    A first part without a key has the key "".
    """
    name, _, tail = text.strip().partition(":")
    pairs: dict[str, str] = {}
    for place, part in enumerate(filter(None, (piece.strip() for piece in tail.split(",")))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals or place):
            pairs[""] = key
            continue
        if not (key and equals and value):
            raise SpecError(f"'{text}': '{part}' is not key=value")
        if key in pairs:
            raise SpecError(f"'{text}': '{key}' is given twice")
        pairs[key] = value
    return name.strip(), pairs


def parts(pairs: Mapping[str, str]) -> list[str]:
    """Write the pairs that `split` returns as they were: `["SquareAttack", "eps=4/255"]`."""
    return [f"{key}={value}" if key else value for key, value in pairs.items()]


def build(cls: type[T], pairs: Mapping[str, str], where: str) -> T:
    """Build the dataclass `cls` from strings; its `__post_init__` may raise ValueError for values out of range.

    Raises:
        SpecError: a key is unknown or missing, or a value does not fit its field.
    """
    hints, pairs = get_type_hints(cls), spelled(cls, pairs, where)
    first, rest, known = _fields(cls)
    further = {key: value for key, value in pairs.items() if key and key not in known}
    if "" in pairs and not first:
        raise SpecError(f"{where}: '{pairs['']}' is not key=value")
    if first and "" not in pairs:
        raise SpecError(f"{where}: needs a {first} first, before any key=value")
    if further and not rest:
        key = next(iter(further))
        guess = did_you_mean(key, known) if known else "it takes no options"
        raise SpecError(f"{where}: unknown option '{key}'; {guess}")
    for name, f in known.items():
        if f.default is MISSING and name not in pairs:
            raise SpecError(f"{where}: needs {name}=...")
    values: dict[str, Any] = {
        known[key].name: read(hints[known[key].name], value, f"{where}: {key}")
        for key, value in pairs.items()
        if key in known
    }
    values |= {first: pairs[""]} if first else {}
    values |= {rest: further} if rest else {}
    try:
        return cls(**values)
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from None


def spelled(cls: type[Any], pairs: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the pairs with the keys of `cls` in their canonical spelling; unknown keys stay as they are.

    Raises:
        SpecError: a key is given in two spellings.
    """
    *_, known = _fields(cls)
    renamed = {canonical(key, known) or key: value for key, value in pairs.items()}
    if len(renamed) < len(pairs):
        raise SpecError(f"{where}: an option is given twice: {', '.join(pairs)}")
    return renamed


def _fields(cls: type[Any]) -> tuple[str | None, str | None, dict[str, Field[Any]]]:
    """Return the names of the fields marked FIRST and REST, and the other fields by key."""
    every = fields(cls)
    first, rest = (next((f.name for f in every if f.metadata.get(mark)), None) for mark in ("first", "rest"))
    return first, rest, {_key(f): f for f in every if f.name not in (first, rest)}


def read(hint: Any, text: str, where: str) -> Any:
    """Parse a value of this type from its text.

    Args:
        hint: bool, int, float, str, a Literal, or one of these or None.
    Raises:
        SpecError: the text is no such value; `where` names the option in the message.
    """
    if type(None) in get_args(hint):
        (hint,) = (arg for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        choice = canonical(text, choices)
        if choice is None:
            raise SpecError(f"{where}: '{text}' is not a choice; {did_you_mean(text, choices)}")
        return choice
    if hint is str:
        return text
    if hint is bool:
        if text.lower() not in _BOOLS:
            raise SpecError(f"{where}: '{text}' is neither yes nor no")
        return _BOOLS[text.lower()]
    return whole(text, where) if hint is int else number(text, where)


def write(name: str, spec: Any) -> str:
    """Write the canonical spec string: required fields, those marked `ALWAYS`, and those not at their default."""
    pairs: dict[str, str] = {}
    for f in fields(spec):
        value = getattr(spec, f.name)
        if f.metadata.get("first"):
            pairs = {"": value} | pairs
        elif f.metadata.get("rest"):
            pairs |= {key: _show(key, part) for key, part in value.items()}
        elif f.default is MISSING or value != f.default or f.metadata.get("always"):
            pairs[_key(f)] = _show(f.name, value)
    return f"{name}:{','.join(parts(pairs))}" if pairs else name


def _key(f: Field[Any]) -> str:
    """Return the key of a field; metadata has it where it is not a valid name in Python."""
    return str(f.metadata.get("key", f.name))


def _show(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        levels = round(value * 255)
        if name == "eps" and value == levels / 255 and len(repr(value)) > len(f"{levels}/255"):
            return f"{levels}/255"
        return repr(int(value)) if value.is_integer() else repr(value)
    return str(value)


def after(first: Callable[P, T]) -> Callable[[Callable[[T], R]], Callable[P, R]]:
    """Decorate a function of the result of `first`: it takes the arguments of `first` instead."""

    def decorate(then: Callable[[T], R]) -> Callable[P, R]:
        @functools.wraps(then)
        def both(*args: P.args, **options: P.kwargs) -> R:
            return then(first(*args, **options))

        both.__annotations__ = {**first.__annotations__, "return": then.__annotations__["return"]}
        signature = inspect.signature(first).replace(return_annotation=both.__annotations__["return"])
        both.__signature__ = signature  # type: ignore[attr-defined]
        return both

    return decorate
