"""Two runs side by side: refused where they do not compare, else their scores, item by item."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from safemed_eval import grammar
from safemed_eval.errors import RunError, SpecError
from safemed_eval.report.breakdown import LETTER_ONLY, aims_at_letters
from safemed_eval.report.findings.sampling import SEQUENTIAL_BOUNDS
from safemed_eval.report.load import SLICES, LoadedRun
from safemed_eval.runs import differences
from safemed_eval.smoothing import Budget, Sequential

AVERAGE_RADIUS = "average certified radius / ceiling"
ASKING = "asking"
"""The part of a spec that says how a model is asked."""

_MADE_BY = ("safemed_eval", "commit", "device")
_MAY_DIFFER = ("model", "load", "batch_size", "keep_images", "falsify", "stop_when_wrong")
_SHOWN = 5

Values = npt.NDArray[np.float64]
Pair = tuple[Values, Values]
"""What the baseline and the candidate scored, item by item, in [0, 1]."""


def weights_of(run: LoadedRun) -> list[str]:
    """Hashes of a checkpoint's weights, of those that it is an adapter over, and of its denoiser's.

    None where there is anything from python: among them, whose weights nobody has hashed.
    """
    model = run.spec["model"]
    parts = [model, *filter(None, (model.get("base"), model.get("denoiser")))]
    return [str(part["weights_sha256"]) for part in parts] if all(part.get("weights_sha256") for part in parts) else []


def refuse_other_specs(one: LoadedRun, two: LoadedRun, *, across_prompts: bool = False) -> None:
    """Raise RunError where the runs were asked for different things, or are one.

    Args:
        across_prompts: their models may have been asked in different ways.
    """
    if one.out.resolve() == two.out.resolve():
        raise RunError(f"{one.out}: is compared with itself; name the run of another checkpoint")
    ignored = (*_MAY_DIFFER, *[ASKING] * across_prompts)
    here, there = ({key: value for key, value in run.spec.items() if key not in ignored} for run in (one, two))
    found = differences(here, there)
    if found:
        lines = "".join(f"\n  {line}" for line in found)
        if all(line.startswith(f"{ASKING}.") for line in found):
            lines += "\n(--across-prompts compares models that are asked in different ways)"
        raise RunError(f"{one.out} and {two.out} cannot be compared; they were asked for different things:{lines}")


def refuse_incomplete(run: LoadedRun) -> None:
    """Raise RunError where a run is empty or unfinished, or has items that failed."""
    if run.frame.empty:
        raise RunError(f"{run.out}: holds no record; an empty run passes no comparison")
    if run.unfinished < 0:
        raise RunError(f"{run.out}: holds more records than its items have; was it edited?")
    if run.unfinished:
        raise RunError(f"{run.out}: lacks {run.unfinished} records; let the run finish, the same command goes on")
    if run.failed:
        error = next(text for text in run.frame["error"] if isinstance(text, str))
        raise RunError(f"{run.out}: {run.failed} items failed, which is no pass; mend it and run anew: {error}")


def measures_of(one: LoadedRun, two: LoadedRun, radii: str | None) -> tuple[dict[str, Pair], pd.DataFrame]:
    """The scores of both runs under every measure, aligned by item, and the items themselves."""
    about, other = (run.frame.drop_duplicates("item").set_index("item").sort_index() for run in (one, two))
    gone, new = about.index.difference(other.index), other.index.difference(about.index)
    if len(gone) or len(new):
        raise RunError(
            f"{two.out} has other items than {one.out}: {_some(gone)} missing, {_some(new)} new; run both on the same"
        )
    for column in ("label", "image_sha256", "question", "options", "cluster", *SLICES):
        changed = about.index[(about[column] != other[column]) & ~(about[column].isna() & other[column].isna())]
        if len(changed):
            raise RunError(f"{column} differs between {one.out} and {two.out} for {_some(changed)}; the data changed")
    if one.kind == "evaluate":
        return {
            name: (_scores(one.under(name), about), _scores(two.under(name), about)) for name in one.conditions
        }, about
    right = [_radii(run.frame, about) for run in (one, two)]
    ceiling = one.smoothing.ceiling
    assert ceiling is not None
    measures = {
        f"certified at r >= {name}": ((right[0] >= radius).astype(float), (right[1] >= radius).astype(float))
        for name, radius in _compared(one.smoothing, ceiling, radii).items()
    }
    measures[AVERAGE_RADIUS] = (np.fmax(right[0], 0) / ceiling, np.fmax(right[1], 0) / ceiling)
    return measures, about


def _compared(budget: Budget, ceiling: float, radii: str | None) -> dict[str, float]:
    """Where certified accuracy is compared: as it says, or else at the usual radii or all that sequential runs know."""
    if not isinstance(budget, Sequential):
        points = grammar.radii(radii or grammar.COMPARED_RADII, budget.sigma)
    elif radii is None:
        points = {name: radius for name, radius in budget.ladder.items() if radius <= ceiling}
    else:
        points = {name: _asked(name, radius, budget) for name, radius in grammar.radii(radii, budget.sigma).items()}
    for name, radius in points.items():
        if radius > ceiling:
            raise SpecError(
                f"--radii {name}: n={budget.n} draws certify no radius above {ceiling:.4f} at all; leave it out"
            )
    return points


def _asked(name: str, radius: float, budget: Sequential) -> float:
    found = budget.asked(radius)
    if found is None:
        raise SpecError(
            f"--radii {name}: these sequential runs know {', '.join(budget.ladder)} only, as they were asked"
        )
    return found


def _scores(rows: pd.DataFrame, about: pd.DataFrame) -> Values:
    return rows.set_index("item")["correct"].reindex(about.index).to_numpy(dtype=float)


def _radii(frame: pd.DataFrame, about: pd.DataFrame) -> Values:
    """The certified radius of each item that is right, else -1."""
    rows = frame.set_index("item").reindex(about.index)
    return rows["radius"].where(rows["correct"].astype(bool)).fillna(-1.0).to_numpy(dtype=float)


def _some(items: pd.Index) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"{len(items)} ({', '.join(map(str, items[:_SHOWN]))}{more})" if len(items) else "none"


def notes_of(one: LoadedRun, two: LoadedRun) -> list[str]:
    """What may differ between the runs, and does; and that they are samples."""
    here, there = (
        {key: run.spec.get(key) for key in ("load", "batch_size", ASKING)}
        | {key: sorted({str(start.get(key)) for start in run.meta["sessions"]}) for key in _MADE_BY}
        for run in (one, two)
    )
    notes = differences(here, there)
    if here[ASKING] != there[ASKING] and any(map(aims_at_letters, (one, two))):
        notes.append(LETTER_ONLY)
    denoisers = [run.spec["model"].get("denoiser") for run in (one, two)]
    if denoisers[0] != denoisers[1]:
        names = [run.meta["names"].get("denoiser") or "none" for run in (one, two)]
        notes.append(f"the denoisers differ: {names[0]}, now {names[1]}")
    settings = [run.spec["model"].get("settings_sha256") for run in (one, two)]
    if settings[0] != settings[1]:
        notes.append("the checkpoints' configurations differ")
    if one.sequential:
        notes.append(SEQUENTIAL_BOUNDS)
    if one.meta["sampled"]:
        notes.append(f"a sample: {one.meta['sampled']}")
    if one.meta["skipped"]:
        notes.append(f"{len(one.meta['skipped'])} bad items were left out of both")
    return notes
