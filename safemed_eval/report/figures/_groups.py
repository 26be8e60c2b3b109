"""Which runs share an axis, which slices there are, in what order, and what a reader must know of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from safemed_eval.core import UNKNOWN
from safemed_eval.report.figures._style import DAGGER
from safemed_eval.report.load import LoadedRun, in_order

MOST_GROUPS = 24
"""No figure shows more slices than this; the tables have all."""
MOST_RUNS = 5
"""Figures with a row per run go on in another file after so many."""
FEW = f"{DAGGER} few clusters (patients or images): the interval may be too narrow."


def with_records(runs: Iterable[LoadedRun], kind: str) -> list[LoadedRun]:
    """The runs of one kind that have a record."""
    return [run for run in runs if run.kind == kind and not run.frame.empty]


def by_canvas(runs: Sequence[LoadedRun]) -> list[tuple[str, list[LoadedRun]]]:
    """Runs that may share an axis, with what to add to a file's stem: lengths on different canvases do not compare."""
    canvases = list(dict.fromkeys(str(run.spec["canvas"]) for run in runs))
    return [
        (f"-{slug(canvas)}" if len(canvases) > 1 else "", [run for run in runs if run.spec["canvas"] == canvas])
        for canvas in canvases
    ]


def one_by_one(runs: Sequence[LoadedRun]) -> list[tuple[str, LoadedRun]]:
    """Each run with what to add to a file's stem."""
    if len(runs) == 1:
        return [("", runs[0])]
    slugs = [slug(run.name) for run in runs]
    twice = Counter(slugs)
    numbers: Counter[str] = Counter()
    found = []
    for name, run in zip(slugs, runs, strict=True):
        numbers[name] += 1
        found.append((f"-{name}-{numbers[name]}" if twice[name] > 1 else f"-{name}", run))
    return found


def pages(runs: Sequence[LoadedRun]) -> list[tuple[str, Sequence[LoadedRun]]]:
    """Runs that are stacked in one figure, with what to add to a file's stem."""
    starts = range(0, len(runs), MOST_RUNS)
    return [(f"-{start // MOST_RUNS + 1}" if start else "", runs[start : start + MOST_RUNS]) for start in starts]


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.").lower()[-60:].strip("-.") or "run"


def canvas_words(run: LoadedRun) -> str:
    """ "canvas 64x64"."""
    return f"canvas {run.spec['canvas']}".removesuffix(" stretch")


def groups(runs: Iterable[LoadedRun], column: str, most: int = MOST_GROUPS) -> list[str]:
    """The slices of these runs: in the fixed order, others after, the largest if there are more than `most`.

    None where no item says which slice it belongs to.
    """
    sizes: Counter[str] = Counter()
    for run in runs:
        if not run.frame.empty:
            sizes.update(run.frame[column].tolist())
    if set(sizes) <= {UNKNOWN}:
        return []
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:most]
    return in_order(largest)


def left_out(runs: Iterable[LoadedRun], column: str, shown: Sequence[str]) -> list[str]:
    """A note where there are more slices than a figure shows."""
    every = {name for run in runs for name in run.frame[column].unique()}
    return [f"The {len(shown)} largest of {len(every)} groups."] if len(every) > len(shown) else []


def notes(runs: Sequence[LoadedRun]) -> list[str]:
    """What must be said below any figure of these runs."""
    found = []
    for run in runs:
        found += [f"{run.name}: {text}" for text in run.failures]
        if run.unfinished > 0:
            found.append(f"{run.name}: unfinished, without {run.unfinished} of its records.")
        if run.sequential:
            radii = ", ".join(run.spec["smoothing"]["radii"])
            found.append(f"{run.name}: sequential, certified at {radii} only; in between a lower bound.")
    sampled = dict.fromkeys(str(run.meta["sampled"]) for run in runs if run.meta["sampled"])
    found += [f"Sample: {text}." for text in sampled]
    if len({str(run.spec["data"]) for run in runs}) > 1:
        found.append("The runs are not of the same items.")
    return found


def sizes(counts: Iterable[int]) -> str:
    """ "n = 40", or "n = 38-40" where runs or conditions differ."""
    known = sorted(set(counts))
    return f"n = {known[0]}" if len(known) == 1 else f"n = {known[0]}\u2013{known[-1]}"
