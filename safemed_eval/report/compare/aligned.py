"""Two runs side by side: refused where they do not compare, else their scores, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from safemed_eval import grammar, stats
from safemed_eval.core import UNKNOWN
from safemed_eval.errors import RunError, SpecError
from safemed_eval.report.findings.attack_sizes import aims_at_letters
from safemed_eval.report.findings.cells import letter_only
from safemed_eval.report.findings.collect import sampled, sequential_bounds
from safemed_eval.report.findings.finding import Finding, counted
from safemed_eval.report.load import SLICES
from safemed_eval.report.rows import Slicing
from safemed_eval.report.run import Run
from safemed_eval.runs import differences
from safemed_eval.runs.meta import RunMeta
from safemed_eval.runs.record import ItemRecord
from safemed_eval.runs.spec import Spec
from safemed_eval.smoothing import Budget, Exhaustive, Sequential

AVERAGE_RADIUS = "average certified radius / ceiling"
ASKING = "asking"
"""The part of a spec that says how a model is asked."""

_MAY_DIFFER = ("model", "load", "batch_size", "keep_images", "falsify", "stop_when_wrong")
_SAME = ("label", "image_sha256", "question", "options", "cluster", *SLICES)
"""Fields of an item that must be the same in both runs."""
_SHOWN = 5
_DOUBTS = ("degenerate", "silence", "failed-check", "check")
"""Findings of a run without which its comparison would say more than it knows."""

Values = npt.NDArray[np.float64]
Pair = tuple[Values, Values]
"""The scores of the baseline and of the candidate, item by item, in [0, 1]; NaN, in both, where the measure is
unavailable for the item."""


@dataclass(frozen=True, kw_only=True)
class Items:
    """The items of both runs, sorted by id."""

    records: list[ItemRecord]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def clusters(self) -> stats.Codes:
        return stats.cluster_codes([record.cluster for record in self.records])

    def slices(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Mark the items of each slice, by "modality: CT"."""
        masks = {}
        for by, title in SLICES.items():
            names = [_slice_of(record, by) for record in self.records]
            for name in sorted(set(names)):
                masks[f"{title}: {name}"] = np.array([own == name for own in names])
        return masks


def _slice_of(record: ItemRecord, by: Slicing) -> str:
    return (record.modality if by == "modality" else record.question_type) or UNKNOWN


def weights_of(run: Run) -> list[str]:
    """Hashes of a checkpoint's weights, of those that it is an adapter over, and of its denoiser's.

    None where one of them is made by Python code, whose weights nobody has hashed.
    """
    model = run.spec.model
    parts: list[Mapping[str, Any]] = [model, *filter(None, (model.get("base"), model.get("denoiser")))]
    hashes = [part.get("weights_sha256") for part in parts]
    return [str(value) for value in hashes] if all(hashes) else []


def same_weights(baseline: Run, candidate: Run) -> bool:
    """Return True where both runs are of the same weights with the same settings, asked in the same way."""
    here, there = baseline.spec, candidate.spec
    return bool(weights_of(baseline)) and here.model == there.model and here.asking == there.asking


def refuse_other_specs(baseline: Run, candidate: Run, *, across_prompts: bool = False) -> None:
    """Raise RunError where the runs were asked for different things, are read at different alphas, or are one.

    Args:
        across_prompts: their models may have been asked in different ways.
    """
    if baseline is candidate or (baseline.out and candidate.out and baseline.out.resolve() == candidate.out.resolve()):
        raise RunError(f"{baseline.where}: is compared with itself; name the run of another checkpoint")
    refuse_unlike(
        baseline.meta, candidate.spec, (baseline.where, candidate.where), ignored=[ASKING] if across_prompts else ()
    )
    if baseline.alpha != candidate.alpha:
        raise RunError(
            f"{baseline.where} is read at alpha {baseline.alpha:g}, {candidate.where} at {candidate.alpha:g}; "
            "read both at one"
        )


def refuse_unlike(baseline: RunMeta, candidate: Spec, names: tuple[str, str], *, ignored: Sequence[str] = ()) -> None:
    """Raise RunError where a run of this spec could not be compared with the baseline.

    Args:
        names: what the message calls the baseline and the candidate.
        ignored: parts of their specs that may differ, besides the model and the way it is loaded.
    """
    here, there = (
        {key: value for key, value in spec.to_json().items() if key not in (*_MAY_DIFFER, *ignored)}
        for spec in (baseline.spec, candidate)
    )
    if not (changes := differences(here, there)):
        return
    other_data = [line for line in changes if line.startswith("data was ")]
    lines = "".join(f"\n  {line}" for line in changes)
    if other_data:
        lines += "\n  (data: some question, option, answer, slice, patient or image differs, or their order)"
    if all(line.startswith(f"{ASKING}.") for line in changes):
        lines += "\n  (--across-prompts compares models that are asked in different ways)"
    if (command := baseline.sessions and baseline.sessions[0].command) and changes != other_data:
        lines += f"\n  (use the options of the baseline, which was made by: {command})"
    raise RunError(f"{' and '.join(names)} cannot be compared; they were asked for different things:{lines}")


def refuse_incomplete(run: Run) -> None:
    """Raise RunError where a run is empty or unfinished, or has items that failed."""
    if not run.records:
        raise RunError(f"{run.where}: holds no record; an empty run passes no comparison")
    if run.unfinished < 0:
        raise RunError(f"{run.where}: holds more records than its items have")
    if run.unfinished:
        raise RunError(f"{run.where}: lacks {run.unfinished} records; let the run finish, the same command goes on")
    if run.failed:
        raise RunError(
            f"{run.where}: {run.failed} items failed, which is no pass; fix it and run anew: {run.rows.first_error}"
        )


def measures_of(baseline: Run, candidate: Run, radii: str | None) -> tuple[dict[str, Pair], Items]:
    """Return the scores of both runs under every measure, aligned by item, and the items themselves."""
    items = _common_items(baseline, candidate)
    ids = [record.item for record in items.records]
    if baseline.kind == "evaluate":
        compared = (*baseline.conditions, *baseline.grounded)
        pairs = {name: (_correct(baseline, name, ids), _correct(candidate, name, ids)) for name in compared}
        return {name: pair for name, pair in pairs.items() if _is_measured(name, pair, ids)}, items
    base, new = _radii(baseline, ids), _radii(candidate, ids)
    points = _compared(baseline.budget, baseline.ceiling, radii)
    measures = _at_points("certified", base, new, points)
    if baseline.donor_vote:
        here, there = (_radii(run, ids, grounded=True) for run in (baseline, candidate))
        measures |= _at_points("grounded, certified", here, there, points)
    measures[AVERAGE_RADIUS] = (np.fmax(base, 0) / baseline.ceiling, np.fmax(new, 0) / baseline.ceiling)
    return measures, items


def _common_items(baseline: Run, candidate: Run) -> Items:
    """The items, or RunError where the runs do not have the same."""
    here, there = ({record.item: record for record in reversed(run.records)} for run in (baseline, candidate))
    gone, new = sorted(here.keys() - there.keys()), sorted(there.keys() - here.keys())
    if gone or new:
        raise RunError(
            f"{candidate.where} has other items than {baseline.where}: {_some(gone)} missing, {_some(new)} new; "
            "run both on the same"
        )
    ids = sorted(here)
    for name in _SAME:
        changed = [item for item in ids if getattr(here[item], name) != getattr(there[item], name)]
        if changed:
            raise RunError(
                f"{name} differs between {baseline.where} and {candidate.where} for {_some(changed)}; the data changed"
            )
    return Items(records=[here[item] for item in ids])


def _compared(budget: Budget, ceiling: float, radii: str | None) -> dict[str, float]:
    """The radii at which certified accuracy is compared: the given ones, or the usual ones, or all sequential ones."""
    if isinstance(budget, Exhaustive) and radii is None:
        points = {name: size for name, size in budget.points(None).items() if size <= ceiling}
    elif not isinstance(budget, Sequential):
        points = budget.points(radii, grammar.COMPARED_RADII)
    elif radii is None:
        points = {name: radius for name, radius in budget.ladder.items() if radius <= ceiling}
    else:
        points = {name: _asked(name, radius, budget) for name, radius in grammar.radii(radii, budget.sigma).items()}
    for name, radius in points.items():
        if radius > ceiling:
            raise SpecError(
                f"--radii {name}: no more than {ceiling:.4f} can be certified with these bands; leave it out"
                if isinstance(budget, Exhaustive)
                else f"--radii {name}: n={budget.n} draws certify no radius above {ceiling:.4f} at all; leave it out"
            )
    return points


def _asked(name: str, radius: float, budget: Sequential) -> float:
    asked = budget.asked(radius)
    if asked is None:
        raise SpecError(
            f"--radii {name}: these sequential runs know {', '.join(budget.ladder)} only, as they were asked"
        )
    return asked


def _at_points(name: str, base: Values, new: Values, points: Mapping[str, float]) -> dict[str, Pair]:
    """The measures of certified accuracy at these radii, from the radii of right certificates."""
    return {
        f"{name} at r >= {point}": ((base >= radius).astype(float), (new >= radius).astype(float))
        for point, radius in points.items()
    }


def _correct(run: Run, measure: str, ids: Sequence[str]) -> Values:
    rows = run.answers.under(run.grounded.get(measure, measure))
    right = rows.correct & rows.dependent if measure in run.grounded else rows.correct
    correct = dict(zip(rows.items, right, strict=True))
    return np.array([correct.get(item, np.nan) for item in ids], dtype=float)


def _is_measured(measure: str, pair: Pair, ids: Sequence[str]) -> bool:
    """Tell whether a measure is available for any item; raise RunError if it is for an item of one run only."""
    here, there = (np.isnan(scores) for scores in pair)
    if (here != there).any():
        differing = [item for item, differs in zip(ids, here != there, strict=True) if differs]
        raise RunError(
            f"{measure} is available in one of the runs only for {_some(differing)}; the runs do not compare"
        )
    return not here.all()


def _radii(run: Run, ids: Sequence[str], *, grounded: bool = False) -> Values:
    """The certified radius of each item that is right, and grounded if that is asked, else -1."""
    rows = run.certificates
    right = rows.grounded_radii(run.donor_vote) if grounded and run.donor_vote else rows.right_radii
    radii = dict(zip(rows.items, np.nan_to_num(right, nan=-1.0), strict=True))
    return np.array([radii[item] for item in ids], dtype=float)


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"{len(items)} ({', '.join(items[:_SHOWN])}{more})" if items else "none"


def notes_of(baseline: Run, candidate: Run) -> list[str]:
    """Describe what may differ between the runs, and does; and that they are samples. Without full stops."""
    notes = differences(_made(baseline), _made(candidate))
    if baseline.spec.asking != candidate.spec.asking and any(map(aims_at_letters, (baseline, candidate))):
        notes.append(_note(letter_only()))
    models, names = (
        (baseline.spec.model, candidate.spec.model),
        [run.meta.names.denoiser or "none" for run in (baseline, candidate)],
    )
    denoisers, settings = ([model.get(key) for model in models] for key in ("denoiser", "settings_sha256"))
    if denoisers[0] != denoisers[1]:
        notes.append(f"the denoisers differ: {names[0]}, now {names[1]}")
    if settings[0] != settings[1]:
        notes.append("the checkpoints' configurations differ")
    notes += [_note(finding) for finding in (*sequential_bounds(baseline), *sampled(baseline))]
    notes += [
        f"{name}: {_note(finding)}"
        for name, run in (("baseline", baseline), ("candidate", candidate))
        for finding in run.findings
        if finding.key in _DOUBTS
    ]
    if baseline.meta.skipped:
        notes.append(f"{counted(len(baseline.meta.skipped), 'bad item')} left out of both")
    return notes


def _note(finding: Finding) -> str:
    return finding.sentence.removesuffix(".")


def _made(run: Run) -> dict[str, object]:
    """Describe how a run was made, as far as two runs that compare may differ in it."""
    spec, starts = run.spec.to_json(), run.meta.sessions
    return {key: spec.get(key) for key in ("load", "batch_size", ASKING)} | {
        "safemed_eval": sorted({str(start.safemed_eval) for start in starts}),
        "commit": sorted({str(start.commit) for start in starts}),
        "device": sorted({str(start.device) for start in starts}),
    }
