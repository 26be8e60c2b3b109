"""The runs that share a figure, the slices that it shows, and the notes below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from safemed_eval.core import UNKNOWN
from safemed_eval.report._text import slug
from safemed_eval.report.columns import Column
from safemed_eval.report.findings.between import findings_between
from safemed_eval.report.findings.finding import BESIDE, of_keys, shared
from safemed_eval.report.load import in_order
from safemed_eval.report.rows import Slicing
from safemed_eval.report.run import Run
from safemed_eval.report.summary import DAGGER, FEW

MOST_GROUPS = 24
"""No figure shows more slices than this; the tables have all."""
MOST_RUNS = 5
"""Figures with a row per run go on in another file after this many."""


def with_records(runs: Iterable[Run], kind: str) -> list[Run]:
    """The runs of one kind that have a record."""
    return [run for run in runs if run.kind == kind and run.records]


def by_scale(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Group runs of one canvas, domain and measure, with an ending of a file's stem: others share no axis with them."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        measure = run.budget.kind.radius_name if run.kind == "certify" else ""
        groups.setdefault((run.spec.canvas + " file" * (run.spec.domain == "file"), measure), []).append(run)
    canvases, measures = (len({key[place] for key in groups}) for place in (0, 1))
    return [
        (f"-{slug(canvas)}" * (canvases > 1) + f"-{slug(measure)}" * (measures > 1), some)
        for (canvas, measure), some in groups.items()
    ]


def one_by_one(runs: Sequence[Run]) -> list[tuple[str, Run]]:
    """Give each run an ending of a file's stem."""
    if len(runs) == 1:
        return [("", runs[0])]
    slugs = [slug(run.name) for run in runs]
    named = []
    for place, (name, run) in enumerate(zip(slugs, runs, strict=True)):
        number = f"-{slugs[: place + 1].count(name)}" if slugs.count(name) > 1 else ""
        named.append((f"-{name}{number}", run))
    return named


def pages(runs: Sequence[Run]) -> list[tuple[str, Sequence[Run]]]:
    """Group runs that are stacked in one figure, with an ending of a file's stem."""
    starts = range(0, len(runs), MOST_RUNS)
    return [(f"-{start // MOST_RUNS + 1}" if start else "", runs[start : start + MOST_RUNS]) for start in starts]


def canvas_words(run: Run) -> str:
    """ "canvas 64x64", or "the file's own pixels, canvas 384x384"."""
    return run.spec.grid


def groups(runs: Iterable[Run], by: Slicing | Column, most: int = MOST_GROUPS) -> list[str]:
    """The slices of these runs: in the fixed order, others after, the largest if there are more than `most`.

    None where no item says which slice it belongs to.
    """
    sizes = Counter(name for run in runs for name in run.rows.names(by))
    if set(sizes) <= {UNKNOWN}:
        return []
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:most]
    return in_order(largest)


def left_out(runs: Iterable[Run], by: Slicing | Column, shown: Sequence[str]) -> list[str]:
    """A note where there are more slices than a figure shows."""
    every = {name for run in runs for name in run.rows.names(by)}
    return [f"The {len(shown)} largest of {len(every)} groups."] if len(every) > len(shown) else []


def few_note(few: bool) -> list[str]:
    """A note on the dagger where something in the figure has few clusters."""
    return [f"{DAGGER} {FEW}"] if few else []


def notes(runs: Sequence[Run]) -> list[str]:
    """The findings that must stand below any figure of these runs."""
    findings = shared((run.name, finding) for run in runs for finding in of_keys(run.findings, BESIDE))
    different = of_keys(findings_between(runs), {"different-items"})
    return [f"{', '.join(names)}: {finding.sentence}" for finding, names in findings.items()] + [
        finding.text for finding in different
    ]


def sizes(counts: Iterable[int]) -> str:
    """Write "40 items", or "38-40 items" where runs or conditions differ."""
    known = sorted(set(counts))
    if len(known) == 1:
        return f"{known[0]:,} item{'s' * (known[0] != 1)}"
    return f"{known[0]:,}\u2013{known[-1]:,} items"
