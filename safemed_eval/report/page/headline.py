"""The few numbers of each model that the page begins with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from safemed_eval.core import CLEAN
from safemed_eval.report.conditions import strongest, words
from safemed_eval.report.run import Run
from safemed_eval.report.summary import CertifySummary, Share
from safemed_eval.rounding import floor_to

_SIGMAS = ("1s", "0.5s", "1.5s", "2s")
"""The radius of the headline is the first of these that was asked for and that the budget can certify."""


class Figure(NamedTuple):
    """One number: what it is, the number, its interval, and whether that is of too few clusters."""

    label: str
    text: str
    below: str
    few: bool


def headline_of(runs: Sequence[Run]) -> dict[str, list[Figure]]:
    """The numbers of each model, by the name of its runs: clean, under the strongest attack, and certified."""
    models: dict[str, list[Figure]] = {run.name: [] for run in runs}
    for run in sorted(runs, key=lambda run: run.kind == "certify"):
        models[run.name].extend(_figures(run))
    return {name: figures for name, figures in models.items() if figures}


def _figures(run: Run) -> Iterator[Figure]:
    summary = run.summary
    if isinstance(summary, CertifySummary):
        points = summary.overall.points
        shown = [name for name in (*_SIGMAS, *points) if name in points and points[name].share is not None]
        for name in shown[:1]:
            radius = floor_to(points[name].radius, 4)
            yield _figure(f"certified at {run.budget.kind.radius_name} \u2265 {radius:g}", points[name])
        return
    if CLEAN in summary.overall:
        yield _figure("accuracy, clean", summary.overall[CLEAN])
    worst = strongest(run, summary.overall)
    if worst:
        yield _figure(f"accuracy under {words(worst)}", summary.overall[worst])


def _figure(label: str, share: Share) -> Figure:
    return Figure(label, share.text, share.bounds_text.replace("-", "\u2013"), share.few)
