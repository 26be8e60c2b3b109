"""Whether the fields of a run folder hold what commands write: reports compute with them, and believe nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from safemed_eval.core import MAX_OPTIONS, Record
from safemed_eval.errors import RunError

Fits = Callable[[Any], bool]

_CANVAS = re.compile(r"native|[0-9]{1,5}x[0-9]{1,5} (stretch|pad)")


def _is(*kinds: type) -> Fits:
    return lambda value: type(value) in kinds


def _maybe(fits: Fits) -> Fits:
    return lambda value: value is None or fits(value)


def _each(fits: Fits) -> Fits:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _named(fits: Fits) -> Fits:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _holding(fields: Mapping[str, Fits]) -> Fits:
    """An object whose fields fit, as far as it has them."""
    return lambda value: (
        isinstance(value, dict) and all(fits(value[name]) for name, fits in fields.items() if name in value)
    )


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _from_0(value: Any) -> bool:
    return _number(value) and value >= 0


_text, _flag, _whole = _is(str), _is(bool), _is(int)
_count: Fits = lambda value: _whole(value) and value >= 0  # noqa: E731
_object: Fits = _is(dict)

_TOLD = {"words": _count, "rationale": _maybe(_text), "conclusion": _maybe(_count)}
_OF_RECORD: dict[str, Fits] = {
    "options": lambda value: _each(_text)(value) and 2 <= len(value) <= MAX_OPTIONS,
    "source": _maybe(_text),
    "extra": _named(_text),
    "text": _maybe(_text),
    "told": _maybe(lambda value: isinstance(value, dict) and {*value} == {*_TOLD} and _holding(_TOLD)(value)),
    "linf": _maybe(_from_0),
    "l2": _maybe(_from_0),
    "steps": _maybe(_count),
    "climb": _maybe(lambda value: _each(_number)(value) and len(value) == 5),
    "dead": _maybe(_from_0),
    "parts": _maybe(_named(_flag)),
    "seconds": _maybe(_from_0),
    "batch": _maybe(_count),
    "p_lower": _maybe(_from_0),
    "radius": _maybe(_from_0),
    "abstained": _maybe(_text),
    "falsified": _maybe(_is(list)),
}
_OPTIONS = ("label", "prediction", "target", "rounded")
"""Fields that hold the place of an option; all but the first may be null."""

_TRAINED = {"method": _maybe(_text), "data": _maybe(_text), "modality": _each(_text), "question_type": _each(_text)}
_SKIPPED = {"item": _text, "reason": _text}
_OF_META: dict[str, Fits] = {
    "items": _count,
    "sessions": _each(
        _holding({"argv": _each(_text), "versions": _named(_maybe(_text)), "device": _maybe(_text), "started": _text})
    ),
    "skipped": _each(lambda value: _holding(_SKIPPED)(value) and {*_SKIPPED} <= {*value}),
    "names": _holding({"commits": _named(_text), "trained": _maybe(_holding(_TRAINED))}),
    "image_notes": _named(_count),
}
_ATTACK = {
    **{"attack": _text, "eps": _maybe(_from_0), "norm": _text, "needs_gradients": _flag},
    **{"kind": _text, "severity": _count},
}


def _is_whole_corruption(attack: Mapping[str, Any]) -> bool:
    return attack["attack"] != "corrupt" or {"kind", "severity"} <= {*attack}


_FALSIFY = {"shares": _each(_number), "steps": _whole, "m": _whole, "n": _whole, "alpha": _number}
"""What they are; `Falsification` says how large they may be."""
_OF_SPEC: dict[str, Fits] = {
    "canvas": lambda value: bool(_CANVAS.fullmatch(value)),
    "asking": _maybe(_holding({"readout": _text, "temperature": _from_0})),
    "attacks": _named(lambda value: _holding(_ATTACK)(value) and "attack" in value and _is_whole_corruption(value)),
    "smooth": _maybe(_object),
    "falsify": _maybe(_holding(_FALSIFY)),
}


def check_meta_fields(where: str, meta: Mapping[str, Any]) -> None:
    """Raise RunError where a field of run.json is not what commands write."""
    _check(where, meta, _OF_META)
    _check(where, meta["spec"], _OF_SPEC)


def check_record_fields(where: str, record: Record) -> None:
    """Raise RunError where a field of a record is not what commands write, or does not fit its options."""
    _check(where, record, _OF_RECORD)
    for name in _OPTIONS:
        value: Any = record.get(name)
        if not (value is None and name != "label") and not (_count(value) and value < len(record["options"])):
            raise RunError(f"{where}: {name} {value!r:.60} is none of its options; was it edited?")
    if (told := record.get("told")) and told["conclusion"] not in (None, *range(len(record["options"]))):
        raise RunError(f"{where}: told {told['conclusion']!r:.60} is none of its options; was it edited?")
    scores = record.get("log_probs")
    if scores is not None and not (_each(_number)(scores) and len(scores) == len(record["options"])):
        raise RunError(f"{where}: log_probs are not one number for each of its options; was it edited?")


def _check(where: str, values: Mapping[str, Any], kinds: Mapping[str, Fits]) -> None:
    for name, fits in kinds.items():
        if name in values and not fits(values[name]):
            raise RunError(f"{where}: {name} cannot be {values[name]!r:.60}; was it edited?")
