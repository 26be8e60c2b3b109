"""From a run folder to its numbers, in all and by slice. Items that failed stay in every denominator."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from safemed_eval import stats
from safemed_eval.core import CIRCULAR, OFFICIAL
from safemed_eval.report.findings.attack_pairs import should_flip
from safemed_eval.report.findings.attack_sizes import shots
from safemed_eval.report.findings.checklist import checklist
from safemed_eval.report.findings.degenerate import degenerate
from safemed_eval.report.findings.falsified import falsified_of
from safemed_eval.report.findings.order import order_notes
from safemed_eval.report.findings.sampling import draws_of, ended_wrong
from safemed_eval.report.findings.silence import silence
from safemed_eval.report.load import Json, LoadedRun, load, nothing_measured
from safemed_eval.smoothing import NO_ANSWER, WRONG, Budget, Sequential

CANVAS_COST = 0.02
"""The canvas's cost in accuracy against the official path that is worth a warning."""
LETTER_ONLY = (
    "the attacks aim at the option letter after the template's cue, not at the text before it: a model that writes "
    "more than the letter may be less robust than this; --attack adaptive, without --smooth, aims at both"
)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The numbers of a run, ready for JSON; shares are in [0, 1], unknown is None.

    `overall`, and each entry of `by_modality` and `by_question_type`, hold for `evaluate` {attack: {"accuracy",
    "lower", "upper", "correct", "n", "clusters", "few", "failed", "without_failed", "no_answer", "abstained",
    "median_steps", "image_blind", "parts"}}, for `certify` {"certified": {radius: {...}}, "n", "abstained",
    "average_radius", "median_radius", ...}. "parts", of an attack made of several, has {"accuracy", "lower", "upper",
    "correct", ...} of what each of them left right. Items that failed count as wrong, and where some of the items did,
    "without_failed" has the same share of the others, {"share", "lower", "upper", "count", "n"}. Where all did, or all
    that an attack could have flipped, "all_failed" is true and nothing is known: a failure is no success of an attack.
    Sequential certificates know nothing of radii that were not asked for ("asked" is false there), nor of wrong
    answers, and the average and the median count the largest certified radius that was asked for: lower bounds.
    """

    kind: str
    items: int
    """Items that have all their records."""
    expected: int
    failed: int
    all_failed: dict[str, str]
    """Conditions under which nothing was measured, see `LoadedRun.all_failed`, each with its first error."""
    skipped: int
    sampled: str | None
    asked: Json
    """Model, data, canvas, device and options of the run, in the words of the command."""
    overall: Json
    by_modality: dict[str, Json]
    by_question_type: dict[str, Json]
    notes: Json
    out: str

    def to_json(self) -> Json:
        return asdict(self)


def summarize(out: Path, radii: Mapping[str, float] | None = None) -> Summary:
    """Read a run folder and break it down; see `breakdown`.

    Raises:
        RunError: not a run folder.
    """
    return breakdown(load(out), radii)


def breakdown(run: LoadedRun, radii: Mapping[str, float] | None = None) -> Summary:
    """The numbers of a run, in all and by slice.

    Args:
        radii: for `certify`: where certified accuracy is read, by name; by default at 0, or at all that were asked for.
    """
    meta, frame, measure = run.meta, run.frame, measure_of(run, radii)
    names = meta["names"]
    overall, notes = measure(frame), {"images": meta["image_notes"], "overlap": meta.get("overlap")}
    if run.kind == "certify":
        notes |= {"ceiling": run.smoothing.ceiling, "grey_levels_per_radius": grey_levels(run.spec["canvas"])}
        notes |= _false_certificates(len(frame), run.smoothing.alpha) | {"falsified": falsified_of(run)}
        notes |= {"draws": draws_of(run), "ended_wrong": ended_wrong(run)}
    else:
        notes |= order_notes(run)
        if OFFICIAL in run.conditions and not names.get("denoiser"):  # which has its price, too
            notes["canvas_cost"] = _canvas_cost(run)
    notes["failures"] = run.failures
    notes["degenerate"] = degenerate(run)
    notes["silence"] = silence(run)
    notes["checklist"] = [asdict(one) for one in checklist(run)]
    notes["letter_only"] = aims_at_letters(run)
    each = max(1, len(run.conditions))
    return Summary(
        kind=run.kind,
        items=0 if frame.empty else int((frame["item"].value_counts() == each).sum()),
        expected=meta["items"],
        failed=run.failed,
        all_failed=run.all_failed,
        skipped=len(meta["skipped"]),
        sampled=meta["sampled"],
        asked=_asked(run),
        overall=overall,
        by_modality=_by(frame, "modality", measure),
        by_question_type=_by(frame, "question_type", measure),
        notes=notes,
        out=str(run.out),
    )


def aims_at_letters(run: LoadedRun) -> bool:
    """Whether a model that writes was attacked, but never through what it writes; see LETTER_ONLY."""
    writes = (run.spec["asking"] or {}).get("readout") in ("generate", "think-choice")
    kinds = {name.partition(":")[0] for name in run.conditions} - {"clean", OFFICIAL, CIRCULAR, "noise", "corrupt"}
    return writes and bool(kinds) and "adaptive" not in kinds


def measure_of(run: LoadedRun, radii: Mapping[str, float] | None = None) -> Callable[[pd.DataFrame], Json]:
    """The function from some of a run's rows to their numbers, as `Summary` lists them."""
    if run.kind == "certify":
        budget = run.smoothing
        own = budget.ladder if isinstance(budget, Sequential) else {"0": 0.0}
        return partial(_certified, points=radii or own, budget=budget)
    huge = {shot.condition for shot in shots(run) if shot.is_huge and should_flip(shot)}
    return partial(_attacked, conditions=run.conditions, huge=huge, parts=_parts_of(run))


def _parts_of(run: LoadedRun) -> dict[str, list[str]]:
    """The names of the parts of each condition that is an attack made of several."""
    if run.frame.empty or "parts" not in run.frame:
        return {}
    met = run.frame.dropna(subset="parts").groupby("attack")["parts"]
    return {str(name): list(dict.fromkeys(part for one in some for part in one)) for name, some in met}


def _asked(run: LoadedRun) -> Json:
    spec, model, names = run.spec, run.meta["model"], run.meta["names"]
    options: Json = {"quantize": spec.get("quantize"), "smooth": smooth_of(run)}
    if run.kind == "certify":
        options = {"sampling": run.smoothing.sampling, **asdict(run.smoothing)}
        options |= {"radii": ",".join(options["radii"])} if run.sequential else {}
        options |= {"stop_when_wrong": run.spec.get("stop_when_wrong")}
    return {
        "model": names["model"],
        "denoiser": names.get("denoiser"),
        "data": names["data"],
        "canvas": spec["canvas"],
        "readout": (spec["asking"] or {}).get("readout"),
        **options,
        "shuffle_options": spec.get("shuffle_options"),
        "seed": spec["seed"],
        "dtype": model.get("dtype"),
        "device": model.get("device"),
    }


def smooth_of(run: LoadedRun) -> str | None:
    """How the smoothed model of an evaluate run answers, as --smooth has it; None for a model without noise."""
    voting = run.spec.get("smooth")
    return ",".join(f"{key}={value:g}" for key, value in voting.items()) if voting else None


def _by(frame: pd.DataFrame, column: str, measure: Callable[[pd.DataFrame], Json]) -> dict[str, Json]:
    if frame.empty:
        return {}
    return {str(name): measure(frame[frame[column] == name]) for name in sorted(frame[column].unique())}


_MEASURED = ("attack", "correct", "at_stake", "cluster", "error", "prediction", "abstained", "steps", "parts")


def _attacked(
    part: pd.DataFrame, conditions: Sequence[str], huge: Set[str], parts: Mapping[str, Sequence[str]]
) -> Json:
    rows = part[[column for column in _MEASURED if column in part]]
    under = {} if rows.empty else dict(list(rows.groupby("attack")))
    return {name: _accuracy(under.get(name, rows[:0]), name in huge, parts.get(name, ())) for name in conditions}


def _accuracy(part: pd.DataFrame, huge: bool, parts: Sequence[str]) -> Json:
    share = _share([] if part.empty else part["correct"].tolist(), part)
    return {
        **share,
        **_outcomes(part),
        "image_blind": share["correct"] if huge else None,
        "parts": {name: _share(_left_by(name, part), part) for name in parts} or None,
    }


def _share(correct: Sequence[bool], part: pd.DataFrame) -> Json:
    found, failures = stats.clustered_proportion(correct, clusters_of(part)), _failures(correct, part)
    known = not failures["all_failed"]
    return {
        "accuracy": found.estimate if known else None,
        "lower": found.lower if known else None,
        "upper": found.upper if known else None,
        "correct": found.count if known else None,
        "n": found.n,
        "clusters": found.clusters,
        "few": known and found.few,
        **failures,
    }


def _failures(successes: Sequence[bool], part: pd.DataFrame) -> Json:
    """How many items failed, whether nothing else is there, and if it is the share of successes among the others."""
    failed = np.zeros(0, dtype=bool) if part.empty else part["error"].notna().to_numpy()
    count, rest, none = int(failed.sum()), None, nothing_measured(part)
    if count and not none:
        share = stats.clustered_proportion(np.asarray(successes)[~failed], clusters_of(part[~failed]))
        rest = {"share": share.estimate, **{key: getattr(share, key) for key in ("lower", "upper", "count", "n")}}
    return {"failed": count, "all_failed": none, "without_failed": rest}


def _left_by(name: str, part: pd.DataFrame) -> list[bool]:
    """Whether each item was right after this part of an attack; one that did not meet it was wrong before."""
    met = [] if part.empty else part["parts"].tolist()
    return [isinstance(one, dict) and one.get(name, False) for one in met]


def _outcomes(part: pd.DataFrame) -> Json:
    """Why answers are wrong, and how soon; abstentions are those of a smoothed model, on which no attack ends early."""
    if part.empty:
        return {"no_answer": 0, "abstained": None, "median_steps": None}
    voted = "abstained" in part
    silent = part["abstained"] == NO_ANSWER if voted else part["prediction"].isna() & part["error"].isna()
    flipped = part[~part["correct"] & (part["steps"] > 0)]
    return {
        "no_answer": int(silent.sum()),
        "abstained": int(part["abstained"].notna().sum()) if voted else None,
        "median_steps": None if voted or flipped.empty else float(flipped["steps"].median()),
    }


def _certified(part: pd.DataFrame, points: Mapping[str, float], budget: Budget) -> Json:
    n, ceiling = len(part), budget.ceiling
    right = part["correct"] & part["radius"].notna() if n else pd.Series(dtype=bool)
    radius = part["radius"].where(right).astype(float) if n else pd.Series(dtype=float)
    curve = {}
    for name, value in points.items():
        at = budget.asked(value) if isinstance(budget, Sequential) else value
        beyond = ceiling is not None and at is not None and at > ceiling
        reached = (radius >= (value if at is None else at)).tolist()
        share, failures = stats.clustered_proportion(reached, clusters_of(part)), _failures(reached, part)
        known = at is not None and not beyond and not failures["all_failed"]
        curve[name] = {
            "radius": value,
            "certified_accuracy": share.estimate if known else None,
            "lower": share.lower if known else None,
            "upper": share.upper if known else None,
            "certified": share.count if known else None,
            "above_ceiling": beyond,
            "asked": at is not None,
            "few": known and share.few,
            **failures,
            "without_failed": failures["without_failed"] if known else None,
        }
    failures = _failures([False] * n, part)
    none = failures["all_failed"]
    abstained = int(part["abstained"].notna().sum()) if n else 0
    half = radius.fillna(-1.0).quantile(0.5, interpolation="higher") if n else -1.0
    # Sequential certificates are of the gold answer alone; where draws end with a wrong selection, so are fixed ones.
    gold_only = isinstance(budget, Sequential)
    unseen = gold_only or none or bool(n and (part["abstained"] == WRONG).any())
    return {
        "certified": curve,
        "n": n,
        "clusters": len(set(clusters_of(part))),
        "abstained": abstained,
        "abstention": abstained / n if n and not none else None,
        "no_answer": None if gold_only else int((part["abstained"] == NO_ANSWER).sum()) if n else 0,
        "wrong": None if unseen else int((part["radius"].notna() & ~right).sum()) if n else 0,
        "average_radius": float(radius.fillna(0.0).mean()) if n and not none else None,
        "median_radius": float(half) if half >= 0 else None,
        "failed": failures["failed"],
        "all_failed": none,
    }


def _false_certificates(attempted: int, alpha: float) -> Json:
    return {
        "false_certificates_expected_at_most": attempted * alpha,
        "false_certificates_at_most_95": stats.false_certificates_at_most(attempted, alpha) if attempted else 0,
    }


def grey_levels(canvas: str) -> float | None:
    """Root-mean-square change in 8-bit grey levels of a change of L2 length 1; None where canvases differ in size."""
    match = re.match(r"(\d+)x(\d+)", canvas)
    return 255 / math.sqrt(3 * int(match[1]) * int(match[2])) if match else None


def _canvas_cost(run: LoadedRun) -> float | None:
    """How much more accurate the official path is, on the items that failed on neither; None where there are none."""
    paths = {name: run.under(name) for name in (OFFICIAL, "clean")}
    right = pd.DataFrame(
        {name: rows[rows["error"].isna()].set_index("item")["correct"] for name, rows in paths.items() if len(rows)},
        columns=list(paths),
    ).dropna()
    return float((right[OFFICIAL].astype(float) - right["clean"].astype(float)).mean()) if len(right) else None


def clusters_of(frame: pd.DataFrame) -> list[str]:
    """The patient, or else the image, of each row."""
    return [] if frame.empty else frame["cluster"].tolist()
