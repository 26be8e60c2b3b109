"""From a run folder to its numbers, in all and by slice. Items that failed stay in every denominator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from safemed_eval import attacks, stats
from safemed_eval.runs.store import read_meta, read_records

UNKNOWN = "unknown"
HUGE_EPS = 0.5
"""From this L-infinity eps on all balls share the mid-grey image: who still tells items apart was not attacked."""

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The numbers of a run, ready for JSON; shares are in [0, 1], unknown is None.

    `overall` and each entry of `by_modality` and `by_question_type` hold, for `evaluate`, {attack: {accuracy, lower,
    upper, n, correct, failed}} and for `certify`, {"certified": {radius: ...}, "abstained", "average_radius",
    "median_radius", ...}.
    """

    kind: str
    items: int
    expected: int
    failed: int
    skipped: int
    sampled: str | None
    overall: Json
    by_modality: dict[str, Json]
    by_question_type: dict[str, Json]
    notes: Json
    out: str

    def to_json(self) -> Json:
        return asdict(self)


def summarize(out: Path, radii: Mapping[str, float] | None = None) -> Summary:
    """Read a run folder and break it down.

    Args:
        radii: for `certify`: where certified accuracy is read, by name; by default 0 to 2 sigma in steps of half a
        sigma.
    Raises:
        RunError: not a run folder.
    """
    meta = read_meta(out)
    frame = pd.DataFrame(read_records(out))
    kind = meta["spec"]["command"]
    measure: Callable[[pd.DataFrame], Json]
    if kind == "certify":
        sigma = float(meta["spec"]["smoothing"]["sigma"])
        points = radii or {f"{k / 2:g}s": k / 2 * sigma for k in range(5)}
        ceiling = stats.radius_ceiling(sigma, meta["spec"]["smoothing"]["n"], meta["spec"]["smoothing"]["alpha"])
        measure, notes = lambda part: _certified(part, points, ceiling), _certify_notes(meta, frame, ceiling)
    else:
        names = meta["conditions"]
        measure, notes = lambda part: {name: _accuracy(part, name) for name in names}, _attack_notes(frame, names)
    return Summary(
        kind=kind,
        items=0 if frame.empty else int(frame["item"].nunique()),
        expected=meta["items"],
        failed=0 if frame.empty else int(frame.loc[frame["error"].notna(), "item"].nunique()),
        skipped=len(meta["skipped"]),
        sampled=meta["sampled"],
        overall=measure(frame),
        by_modality=_by(frame, "modality", measure),
        by_question_type=_by(frame, "question_type", measure),
        notes=notes,
        out=str(out),
    )


def _by(frame: pd.DataFrame, column: str, measure: Callable[[pd.DataFrame], Json]) -> dict[str, Json]:
    if frame.empty:
        return {}
    slices = frame[column].fillna(UNKNOWN)
    return {str(name): measure(frame[slices == name]) for name in sorted(slices.unique())}


def _accuracy(frame: pd.DataFrame, condition: str) -> Json:
    part = frame if frame.empty else frame[frame["attack"] == condition]
    correct = [] if part.empty else part["correct"].tolist()
    share = stats.clustered_proportion(correct, _clusters(part))
    return {
        "accuracy": share.estimate,
        "lower": share.lower,
        "upper": share.upper,
        "correct": share.count,
        "n": share.n,
        "clusters": share.clusters,
        "failed": 0 if part.empty else int(part["error"].notna().sum()),
    }


def _certified(part: pd.DataFrame, points: Mapping[str, float], ceiling: float | None) -> Json:
    n = len(part)
    right = part["correct"] & part["radius"].notna() if n else pd.Series(dtype=bool)
    radius = part["radius"].where(right).astype(float) if n else pd.Series(dtype=float)
    curve = {}
    for name, value in points.items():
        share = stats.clustered_proportion((radius >= value).tolist(), _clusters(part))
        beyond = ceiling is not None and value > ceiling
        curve[name] = {
            "radius": value,
            "certified_accuracy": None if beyond else share.estimate,
            "lower": None if beyond else share.lower,
            "upper": None if beyond else share.upper,
            "certified": None if beyond else share.count,
            "above_ceiling": beyond,
        }
    failed = int(part["error"].notna().sum()) if n else 0
    abstained = int(part["abstained"].notna().sum()) if n else 0
    half = radius.fillna(-1.0).median() if n else -1.0
    return {
        "certified": curve,
        "n": n,
        "clusters": len(set(_clusters(part))),
        "abstained": abstained,
        "abstention": abstained / n if n else None,
        "no_answer": int((part["abstained"] == "no answer won").sum()) if n else 0,
        "wrong": int((part["radius"].notna() & ~right).sum()) if n else 0,
        "average_radius": float(radius.fillna(0.0).mean()) if n else None,
        "median_radius": float(half) if half >= 0 else None,
        "failed": failed,
    }


def _certify_notes(meta: Json, frame: pd.DataFrame, ceiling: float | None) -> Json:
    attempted = len(frame)
    alpha = meta["spec"]["smoothing"]["alpha"]
    return {
        "ceiling": ceiling,
        "false_certificates_expected_at_most": attempted * alpha,
        "false_certificates_at_most_95": stats.false_certificates_at_most(attempted, alpha) if attempted else 0,
    }


def _attack_notes(frame: pd.DataFrame, names: Sequence[str]) -> Json:
    """Items that a huge untargeted attack could not move: their answers do not hang on the image."""
    blind = {}
    for name in names:
        if name == "official" or frame.empty:
            continue
        attack = attacks.parse(name)
        huge = attack.threat.norm == "linf" and attack.threat.eps >= HUGE_EPS
        if huge and attack.name != "noise" and getattr(attack, "target", "none") == "none":
            part = frame[frame["attack"] == name]
            blind[name] = int(part["correct"].sum())
    return {"image_blind": blind}


def _clusters(frame: pd.DataFrame) -> list[str]:
    if frame.empty:
        return []
    return frame["patient_id"].fillna(frame["image_sha256"]).fillna(frame["image"]).tolist()
