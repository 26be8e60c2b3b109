"""Whether a run folder holds what a command writes: reports and the gate believe nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from safemed_eval.core import CIRCULAR, OFFICIAL, Record
from safemed_eval.errors import RunError
from safemed_eval.report._fields import check_meta_fields, check_record_fields
from safemed_eval.smoothing import Budget, Falsification, Smoothing, Voting, budget_of, read_prediction, read_wrong

T = TypeVar("T")
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


def check_meta(out: Path, meta: Mapping[str, Any]) -> Budget | None:
    """Raise RunError unless run.json is that of an evaluate or certify run; returns what a certify run asked for."""
    spec = meta["spec"]
    command = spec.get("command") if isinstance(spec, dict) else None
    if not isinstance(command, str) or command not in _OF_COMMAND:
        raise RunError(f"{out}: a run of '{command}'; name one of evaluate or certify")
    where = f"{out}: run.json"
    _check(where, meta, _OF_META)
    _check(where, spec, _OF_SPEC | _OF_COMMAND[command])
    _check(where, {"denoiser": None} | meta["names"], {"model": _TEXT, "denoiser": _MAYBE_TEXT, "data": _TEXT})
    check_meta_fields(where, meta)
    _check_overlap(where, meta.get("overlap"))
    if type(spec.get("shuffle_options")) not in (int, type(None)):
        raise RunError(f"{where}: shuffle_options cannot be {spec['shuffle_options']!r:.60}; was it edited?")
    extra = [name for name in (OFFICIAL, CIRCULAR) if spec.get(name)]
    asked = [*spec["attacks"], *extra] if command == "evaluate" else []
    if meta["conditions"] != asked:
        raise RunError(f"{where}: its conditions are not the attacks of its spec; was it edited?")
    if command == "evaluate":
        return None
    if type(spec.get("stop_when_wrong")) not in (bool, type(None)):
        raise RunError(f"{where}: stop_when_wrong cannot be {spec['stop_when_wrong']!r:.60}; was it edited?")
    try:
        return budget_of(spec)
    except (AttributeError, TypeError, ValueError) as error:
        raise RunError(f"{where}: smoothing: {error}; was it edited?") from None


def _check_overlap(where: str, found: Any) -> None:
    """What was tested and trained on: counts that fit, and names."""
    if found is None:
        return
    kinds: Kinds = {"images": (int,), "of": (int,), "items": (int,), "unknown": (list,)}
    fits = isinstance(found, dict) and all(type(found.get(key)) in kind for key, kind in kinds.items())
    fits = fits and 0 <= found["images"] <= min(found["of"], found["items"])
    if not fits or not all(isinstance(name, str) for name in found["unknown"]):
        raise RunError(f"{where}: overlap cannot be {found!r:.60}; was it edited?")


def check_records(out: Path, meta: Mapping[str, Any], records: Sequence[Record], budget: Budget | None) -> None:
    """Raise RunError where a record contradicts itself or what was asked."""
    voting = _asked_for(out, meta["spec"], "smooth", Voting)
    falsification = _asked_for(out, meta["spec"], "falsify", Falsification)
    for record in records:
        where = f"{out}: the record of item {record['item']!r}"
        _check(where, record, _OF_RECORD)
        check_record_fields(where, record)
        right = record["error"] is None and record["prediction"] == record["label"]
        if record["correct"] != right:
            raise RunError(
                f"{where} says correct={record['correct']}, but its prediction says otherwise; was it edited?"
            )
        if budget is None:
            if record.get("attack") not in meta["conditions"]:
                raise RunError(
                    f"{where} is of attack {record.get('attack')!r}, which was not asked for; was it edited?"
                )
            if voting and record["error"] is None:
                _check_prediction(where, record, voting)
            if record["attack"] == CIRCULAR and record["error"] is None:
                _check_rotations(where, record)
        elif record["error"] is None:
            _check_budget(where, record, budget)
            if isinstance(budget, Smoothing):
                _check_votes(where, record, budget, stop_when_wrong=bool(meta["spec"].get("stop_when_wrong")))
            if falsification:
                _check_falsified(where, record, falsification)


def _asked_for(out: Path, spec: Mapping[str, Any], key: str, kind: type[T]) -> T | None:
    """An optional part of the spec; None where it was not asked for."""
    try:
        return kind(**spec[key]) if spec.get(key) else None
    except (TypeError, ValueError) as error:
        raise RunError(f"{out}: run.json: {key}: {error}; was it edited?") from None


def _check_prediction(where: str, record: Record, voting: Voting) -> None:
    _check_counts(where, record, "votes", voting.n)
    found = read_prediction(tuple(record["votes"]), voting.alpha)
    if (record["prediction"], record.get("abstained")) != (found.prediction, found.abstained):
        raise RunError(f"{where}: its answer does not follow from its votes; was it edited?")


def _check_falsified(where: str, record: Record, spec: Falsification) -> None:
    """Each certificate was attacked at every share of its radius, and an abstention at none."""
    found = record.get("falsified")
    shares = None if found is None else [_share(one, spec) for one in found]
    if shares != (None if record["radius"] is None else list(spec.shares)):
        raise RunError(f"{where}: falsified does not fit its certificate; was it edited?")


def _share(found: Any, spec: Falsification) -> float | None:
    if not isinstance(found, dict) or {*found} != {"share", "length", "votes"}:
        return None
    whole = type(found["votes"]) is int and 0 <= found["votes"] <= spec.n
    return found["share"] if whole and isinstance(found["length"], (int, float)) and found["length"] >= 0 else None


def _check_rotations(where: str, record: Record) -> None:
    answers: Any = record.get("rotations")
    places = (*range(len(record["options"])), None)
    if not isinstance(answers, list) or len(answers) != len(places) - 1 or any(one not in places for one in answers):
        raise RunError(f"{where}: rotations are not one answer for each of its options; was it edited?")
    if record["prediction"] != next((one for one in answers if one != record["label"]), record["label"]):
        raise RunError(f"{where}: its prediction does not follow from its rotations; was it edited?")


def _check_budget(where: str, record: Record, budget: Budget) -> None:
    for name, asked in {"sampling": budget.sampling, **asdict(budget)}.items():
        if record.get(name) != asked:
            raise RunError(f"{where} was made with {name}={record.get(name)}, the run with another; was it edited?")


def _check_votes(where: str, record: Record, smoothing: Smoothing, *, stop_when_wrong: bool) -> None:
    """All votes are there, but for those that were not drawn since the selected answer is wrong."""
    _check_counts(where, record, "votes0", smoothing.n0)
    if not (stop_when_wrong and record.get("votes") is None and read_wrong(tuple(record["votes0"]), record["label"])):
        _check_counts(where, record, "votes", smoothing.n)


def _check_counts(where: str, record: Record, name: str, draws: int) -> None:
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
