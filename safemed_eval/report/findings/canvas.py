"""The canvas: its cost in accuracy, the size of a change of length 1 in grey levels, and regions of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import mean, median

from safemed_eval.core import CLEAN, OFFICIAL
from safemed_eval.report.findings.finding import Finding, counted, note
from safemed_eval.report.load import LoadedRun
from safemed_eval.rounding import ceil_to, floor_to
from safemed_eval.runs.record import CertifyRecord

NOTABLE_COST = 0.02
"""The canvas's cost in accuracy against the official path that is worth a warning."""


@dataclass(frozen=True, kw_only=True)
class CanvasCost:
    """The gain in accuracy on the official path, over the items that failed on neither; None where there are none."""

    cost: float | None

    @property
    def notable(self) -> bool:
        return self.cost is not None and self.cost > NOTABLE_COST


def canvas_cost(run: LoadedRun) -> CanvasCost | None:
    """Compare the canvas with the official path; None where that was not asked, or a denoiser has its price, too."""
    if OFFICIAL not in run.conditions or run.meta.names.denoiser:
        return None
    official, clean = (
        {record.item: record.correct for record in run.answers.under(name) if not record.failed}
        for name in (OFFICIAL, CLEAN)
    )
    both = official.keys() & clean.keys()
    gained = sum(official[item] - clean[item] for item in both)
    return CanvasCost(cost=gained / len(both) if both else None)


def grey_levels(run: LoadedRun) -> float | None:
    """Root-mean-square change in 8-bit grey levels of a change of L2 length 1.

    None where images differ in size, or the run's radii are not L2.
    """
    size = run.spec.canvas_size if run.spec.domain == "canvas" else None
    if size is None or (run.kind == "certify" and run.budget.kind.measure != "l2"):
        return None
    return 255 / math.sqrt(3 * size[0] * size[1])


def region_findings(run: LoadedRun) -> Iterator[Finding]:
    """Say how much of the canvas each attack on a region may change, and for how many items that is nothing."""
    for condition in run.conditions:
        shares = [record.region for record in run.answers.under(condition) if record.region is not None]
        if not shares:
            continue
        size = f"the region covers {100 * median(shares):.1f} % of the canvas (median of {counted(len(shares), 'item')}"
        none = shares.count(0)
        empty = f"; {none:,} of {counted(len(shares), 'item')} have no such pixel and stay clean" if none else ""
        yield note("region", f"{condition}: {size}, from {100 * min(shares):.1f} to {100 * max(shares):.1f} %){empty}.")


def file_findings(run: LoadedRun) -> Iterator[Finding]:
    """Say what the official path answers to attacked files, for each attack of a run that asked it."""
    for condition in run.conditions:
        asked = [record for record in run.answers.under(condition) if record.official is not None]
        if asked:
            official, canvas = mean(bool(r.official) for r in asked), mean(r.correct for r in asked)
            yield note(
                "attacked-files",
                f"{condition}: of {counted(len(asked), 'attacked file')} the checkpoint's official path is right about "
                f"{100 * official:.1f} %, the canvas about {100 * canvas:.1f} %.",
            )


def own_pixel_findings(run: LoadedRun) -> Iterator[Finding]:
    """Say what radii are about in a run whose certificates are about the file."""
    views = [record.view for record in run.certificates if record.view and record.view.file]
    files = [view.file for view in views if view.file]
    if not files:
        return
    sizes = sorted({(file.height * file.width, f"{file.height}x{file.width}") for file in files})
    of = " to ".join(dict.fromkeys((sizes[0][1], sizes[-1][1])))
    norms, ceilings = [file.norm for file in files], run.ceilings.values()
    yield note(
        "own-pixels",
        f"radii are L2 lengths of a change of the image at its own size, here {of} pixels: the radius on the canvas, "
        f"less {ceil_to(max(view.rounding for view in views), 5):g} for rounding, over the norm of the resize, "
        f"{_range(norms)}. The ceiling is {_range(ceilings)}, by size. The resize is linear, neither clipped nor "
        "rounded to 8 bits; changes that it removes are free.",
    )
    if cuts := [file.cut for file in files if file.gain is not None and file.cut is not None]:
        yield note(
            "own-pixels",
            f"{counted(len(cuts), 'item')} of DICOM files with a linear window: the image is its greys before they are "
            f"rounded, and the radius is also one of stored values. The window shows {100 * median(cuts):.1f} % of the "
            "pixels as plain black or white (median). Of other files the image is the decoded 8-bit picture.",
        )


def own_pixel_words(record: CertifyRecord) -> str | None:
    """Say in one line what a certificate about the file is about; None for one about the canvas."""
    view, file = record.view, record.view.file if record.view else None
    if view is None or file is None:
        return None
    words = (
        f"Measured on the file's own {file.height} x {file.width} pixels, whose resize has the norm {file.norm:.4g}."
    )
    if record.radius is None:
        return words
    words += f" On the canvas it is a radius of {floor_to(view.on_canvas(record.radius), 4):g}."
    stored = view.in_stored_values(record.radius)
    if stored is None or file.cut is None:
        return words
    return (
        f"{words} In stored values it is an L2 radius of {floor_to(stored, 2):g}, where padding stays as it is; the "
        f"window shows {100 * file.cut:.1f} % of the pixels as plain black or white."
    )


def _range(values: Iterable[float]) -> str:
    """Write the smallest and the largest of some numbers, rounded down."""
    ends = sorted(values)
    return " to ".join(dict.fromkeys(f"{floor_to(end, 3):g}" for end in (ends[0], ends[-1]))) if ends else "n/a"
