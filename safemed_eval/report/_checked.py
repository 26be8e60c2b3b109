"""Whether a run folder holds what a command writes: reports and the gate believe nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safemed_eval.core import OFFICIAL, Record
from safemed_eval.errors import RunError
from safemed_eval.smoothing import Smoothing

Kinds = dict[str, tuple[type, ...]]

_TEXT, _MAYBE_TEXT = (str,), (str, type(None))
_OF_META: Kinds = {"spec": (dict,), "names": (dict,), "items": (int,), "conditions": (list,), "sessions": (list,)}
_OF_META |= {"skipped": (list,), "model": (dict,), "sampled": _MAYBE_TEXT, "image_notes": (dict,)}
_OF_SPEC: Kinds = {"command": _TEXT, "model": (dict,), "load": (dict,), "canvas": _TEXT, "seed": (int,), "data": _TEXT}
_OF_COMMAND: dict[str, Kinds] = {
    "evaluate": {"attacks": (dict,), "quantize": (bool,)},
    "certify": {"smoothing": (dict,)},
}
_OF_RECORD: Kinds = {
    "item": _TEXT,
    "question": _TEXT,
    "options": (list,),
    "label": (int,),
    "image": _TEXT,
    "correct": (bool,),
}
_OF_RECORD |= dict.fromkeys(("modality", "question_type", "patient_id", "image_sha256", "error"), _MAYBE_TEXT)
_OF_RECORD["prediction"] = (int, type(None))


def check_meta(out: Path, meta: Mapping[str, Any]) -> Smoothing | None:
    """Raise RunError unless run.json is that of an evaluate or certify run; returns what a certify run asked for."""
    spec = meta["spec"]
    command = spec.get("command") if isinstance(spec, dict) else None
    if command not in _OF_COMMAND:
        raise RunError(f"{out}: a run of '{command}'; name one of evaluate or certify")
    where = f"{out}: run.json"
    _check(where, meta, _OF_META)
    _check(where, spec, _OF_SPEC | _OF_COMMAND[command])
    _check(where, {"denoiser": None} | meta["names"], {"model": _TEXT, "denoiser": _MAYBE_TEXT, "data": _TEXT})
    if not all(isinstance(start, dict) for start in meta["sessions"]):
        raise RunError(f"{where}: a session is no object; was it edited?")
    asked = [*spec["attacks"], *[OFFICIAL] * bool(spec.get("official"))] if command == "evaluate" else []
    if meta["conditions"] != asked:
        raise RunError(f"{where}: its conditions are not the attacks of its spec; was it edited?")
    if command == "evaluate":
        return None
    try:
        return Smoothing(**spec["smoothing"])
    except (TypeError, ValueError) as error:
        raise RunError(f"{where}: smoothing: {error}; was it edited?") from None


def check_records(out: Path, meta: Mapping[str, Any], records: Sequence[Record], smoothing: Smoothing | None) -> None:
    """Raise RunError where a record contradicts itself or what was asked."""
    for record in records:
        where = f"{out}: the record of item {record['item']!r}"
        _check(where, record, _OF_RECORD)
        right = record["error"] is None and record["prediction"] == record["label"]
        if record["correct"] != right:
            raise RunError(
                f"{where} says correct={record['correct']}, but its prediction says otherwise; was it edited?"
            )
        if smoothing is None:
            if record.get("attack") not in meta["conditions"]:
                raise RunError(
                    f"{where} is of attack {record.get('attack')!r}, which was not asked for; was it edited?"
                )
        elif record["error"] is None:
            _check_votes(where, record, smoothing)


def _check_votes(where: str, record: Record, smoothing: Smoothing) -> None:
    for name in ("sigma", "alpha", "n0", "n"):
        if record.get(name) != getattr(smoothing, name):
            raise RunError(f"{where} was made with {name}={record.get(name)}, the run with another; was it edited?")
    for name, draws in (("votes0", smoothing.n0), ("votes", smoothing.n)):
        votes: Any = record.get(name)
        whole = isinstance(votes, list) and all(type(vote) is int and vote >= 0 for vote in votes)
        if not whole or len(votes) != len(record["options"]) + 1 or sum(votes) != draws:
            raise RunError(f"{where}: {name} are not {draws} votes for its options or no answer; was it edited?")


def _check(where: str, values: Mapping[str, Any], kinds: Kinds) -> None:
    for name, kind in kinds.items():
        if name not in values:
            raise RunError(f"{where} has no {name}; was it edited?")
        if type(values[name]) not in kind:
            raise RunError(f"{where}: {name} cannot be {values[name]!r:.60}; was it edited?")
