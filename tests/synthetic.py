"""Run folders with known outcomes, written without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from safemed_eval import attacks
from safemed_eval.core import Item, Question, item_fields
from safemed_eval.report import Run
from safemed_eval.report.summary import summarize
from safemed_eval.smoothing import Budget, Ladder, Sequential, Smoothing, read_votes

Json = dict[str, Any]
SMOOTHING = Smoothing(noise="float32", sigma=0.25)
SEQUENTIAL = Sequential(noise="float32", sigma=0.25, radii={"0": 0.0, "1s": 0.25, "2s": 0.5}, n=500)
_LADDER = Ladder(SEQUENTIAL)
ATTACKS = ("clean", "fgsm:eps=4/255", "pgd:eps=4/255,steps=10")


def item(number: int, **changes: Any) -> Json:
    """The item fields of a record of item i: its own image and no patient; modality CT unless changed."""
    made = Item(
        id=f"i{number}",
        question=Question(text=f"What is shown in image {number}?", options=("lung", "liver", "eye")),
        label=1,
        image=f"{number}.png",
        root=Path(),
        modality="CT",
        image_sha256=f"hash {number}",
    )
    return item_fields(made) | changes


def evaluated(number: int, attack: str, correct: bool, **changes: Any) -> Json:
    values = {
        "prediction": 1 if correct else 0,
        "correct": correct,
        "log_probs": [-2.5, -0.2, -2.5] if correct else [-0.2, -2.5, -2.5],
        "text": None,
        "linf": 0.0 if attack == "clean" else 4 / 255,
        "l2": 0.0 if attack == "clean" else 1.5,
        "steps": 0 if attack == "clean" else 3,
        "target": None,
        "batch": 16,
        "seconds": 0.1,
        "error": None,
    }
    return {"kind": "evaluate", "attack": attack, **item(number)} | values | changes


def certified(number: int, k: int, *, chosen: int = 1, smoothing: Smoothing = SMOOTHING, **changes: Any) -> Json:
    """A certificate from k of n votes for `chosen`, the others for the next class; 3 is "no answer", 1 is right."""
    votes0, votes = [0] * 4, [0] * 4
    votes0[chosen], votes[chosen], votes[(chosen + 1) % 4] = smoothing.n0, k, smoothing.n - k
    found = read_votes(tuple(votes0), tuple(votes), smoothing)
    values = {
        "sampling": "fixed",
        **asdict(smoothing),
        "votes0": votes0,
        "votes": votes,
        "prediction": found.prediction,
        "correct": found.prediction == 1,
        "p_lower": found.p_lower,
        "radius": found.radius,
        "abstained": found.abstained,
        "batch": 16,
        "seconds": 0.1,
        "error": None,
    }
    return {"kind": "certify", **item(number)} | values | changes


def sequenced(number: int, every: int | None, *, budget: Sequential = SEQUENTIAL, **changes: Any) -> Json:
    """A sequential certificate where each `every`-th vote is for option 2, all others for 1, the usual gold."""
    draws = np.ones(budget.n, dtype=int)
    if every:
        draws[every - 1 :: every] = 2
    ladder, gold = _LADDER if budget is SEQUENTIAL else Ladder(budget), int(changes.get("label", 1))
    found = vars(ladder.follow([draws], gold=gold, classes=4))
    values = {"sampling": "sequential", **asdict(budget), **found, "correct": found["prediction"] == gold}
    values |= {"batch": 16, "seconds": 0.1, "error": None}
    return {"kind": "certify", **item(number)} | values | changes


def failed(number: int, **changes: Any) -> Json:
    """A certificate that could not be made."""
    lost = dict.fromkeys(("votes0", "votes", "prediction", "p_lower", "radius", "abstained"))
    return certified(number, 0) | lost | {"correct": False, "error": "broken"} | changes


def write_run(
    out: Path,
    records: Sequence[Json],
    command: str,
    *,
    conditions: Sequence[str] = ATTACKS,
    smoothing: Budget = SMOOTHING,
    spec: Json | None = None,
    weights: str = "w",
    **meta: Any,
) -> Path:
    """A folder as `safemed-eval COMMAND` leaves it."""
    out.mkdir(parents=True)
    chosen = [attacks.parse(name) for name in conditions if name not in ("official", "circular")]
    own: Json = {"smoothing": asdict(smoothing), "sampling": smoothing.sampling}
    if command == "evaluate":
        own = {"attacks": {str(a): a.described for a in chosen}, "quantize": False}
        own |= {"official": "official" in conditions, "keep_images": 0}
        own |= {"circular": True} if "circular" in conditions else {}
    whole = {
        "schema": 1,
        "spec": {
            "command": command,
            "model": {"weights_sha256": weights, "settings_sha256": "s"},
            "load": {"dtype": "auto", "attn": None, "device_map": None},
            "asking": {"readout": "choice", "template": {"user": "{question}\n{options}", "cue": "<answer>"}},
            "select": {"modality": [], "question_type": [], "per_group": None, "limit": None},
            "skipped": 0,
            "data": "d",
            "canvas": "384x384 stretch",
            "seed": 0,
            "batch_size": None,
            **own,
            **(spec or {}),
        },
        "model": {"device": "cpu", "dtype": "float32"},
        "sessions": [],
        "names": {"model": "toy", "commits": {}, "data": "table:x", "trained": None} | meta.pop("names", {}),
        "items": len({record["item"] for record in records}),
        "skipped": [],
        "sampled": None,
        "conditions": list(conditions) if command == "evaluate" else [],
        "image_notes": {},
    } | meta
    (out / "run.json").write_text(json.dumps(whole))
    (out / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return out


def numbers(run: Path | Run, radii: dict[str, float] | None = None) -> SimpleNamespace:
    """The numbers of a run as --json has them, with the names of the first level as attributes."""
    return SimpleNamespace(**summarize(run if isinstance(run, Run) else Run.read(run), radii).to_json())
