"""The one grammar of spec strings: `name:key=value,key=value`, with fractions such as `eps=4/255`.

A spec string fills the fields of a frozen dataclass; the field's type says how its value is read. Keys and choices are
matched without regard to case. The first part may stand without a key, as in `art:SquareAttack,eps=4/255`, where the
dataclass has a field for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from safemed_eval.errors import SpecError, canonical, did_you_mean

T = TypeVar("T")

ALWAYS = {"always": True}
"""Metadata of a field that the canonical string never leaves out."""
FIRST = {"first": True}
"""Metadata of the field, a text, that is written first and without its key."""
REST = {"rest": True}
"""Metadata of the field, a mapping, that takes all further keys; their values are texts, for the class to read."""

RADII = "0,0.5s,1s,1.5s,2s"
"""Where certified accuracy is shown by default; see `radii`."""
COMPARED_RADII = "0,0.5s,1s"
"""Where the gate compares it by default: fewer, since each is one more test."""

_BOOLS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


def number(text: str, where: str) -> float:
    """A finite float from "0.25", "1e-3" or a fraction such as "4/255".

    Raises:
        SpecError: anything else; `where` names the option in the message.
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
    """A whole number, or SpecError."""
    try:
        return int(text)
    except ValueError:
        raise SpecError(f"{where}: '{text}' is not a whole number") from None


def radii(text: str, sigma: float) -> dict[str, float]:
    """`"0,0.5s"` -> `{"0": 0.0, "0.5s": 0.5 * sigma}`: a radius is a number, or a multiple of sigma with the suffix s.

    Raises:
        SpecError: not a list of radii at or above 0.
    """
    points = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        value = number(part.removesuffix("s"), "--radii")
        if value < 0:
            raise SpecError(f"--radii: a radius cannot be negative, got {part}")
        points[part] = value * (sigma if part.endswith("s") else 1)
    if not points:
        raise SpecError("--radii: name at least one radius, such as 0,0.5s,1s")
    return points


def split(text: str) -> tuple[str, dict[str, str]]:
    """`"pgd:eps=4/255,steps=10"` -> `("pgd", {"eps": "4/255", "steps": "10"})`.

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
    """What `split` has cut, as it was written: `["SquareAttack", "eps=4/255"]`."""
    return [f"{key}={value}" if key else value for key, value in pairs.items()]


def build(cls: type[T], pairs: Mapping[str, str], where: str) -> T:
    """Fill the dataclass `cls` from strings; its `__post_init__` may raise ValueError for values out of range.

    Raises:
        SpecError: unknown or missing key, or a value that does not fit its field.
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
    """The same pairs with the keys of `cls` in their own spelling; keys that it does not know stay as they are.

    Raises:
        SpecError: two spellings of one key.
    """
    *_, known = _fields(cls)
    found = {canonical(key, known) or key: value for key, value in pairs.items()}
    if len(found) < len(pairs):
        raise SpecError(f"{where}: an option is given twice: {', '.join(pairs)}")
    return found


def _fields(cls: type[Any]) -> tuple[str | None, str | None, dict[str, Field[Any]]]:
    """The names of the fields marked FIRST and REST, and the others by their keys."""
    every = fields(cls)
    first, rest = (next((f.name for f in every if f.metadata.get(mark)), None) for mark in ("first", "rest"))
    return first, rest, {_key(f): f for f in every if f.name not in (first, rest)}


def read(hint: Any, text: str, where: str) -> Any:
    """A value of this type from its text.

    Args:
        hint: bool, int, float, str, a Literal, or one of them or None.
    Raises:
        SpecError: it is none; `where` names the option in the message.
    """
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        choice = canonical(text, choices)
        if choice is None:
            raise SpecError(f"{where}: '{text}' is not a choice; {did_you_mean(text, choices)}")
        return choice
    if type(None) in get_args(hint):
        (hint,) = (arg for arg in get_args(hint) if arg is not type(None))
    if hint is str:
        return text
    if hint is bool:
        if text.lower() not in _BOOLS:
            raise SpecError(f"{where}: '{text}' is neither yes nor no")
        return _BOOLS[text.lower()]
    return whole(text, where) if hint is int else number(text, where)


def write(name: str, spec: Any) -> str:
    """The canonical spec string: required fields, those marked `ALWAYS`, and those that differ from their defaults."""
    pairs: dict[str, str] = {}
    for f in fields(spec):
        value = getattr(spec, f.name)
        if f.metadata.get("first"):
            pairs = {"": value} | pairs
        elif f.metadata.get("rest"):
            pairs |= {key: _show(key, one) for key, one in value.items()}
        elif f.default is MISSING or value != f.default or f.metadata.get("always"):
            pairs[_key(f)] = _show(f.name, value)
    return f"{name}:{','.join(parts(pairs))}" if pairs else name


def _key(f: Field[Any]) -> str:
    """What a field is called in a spec string, where that is no name in Python."""
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
