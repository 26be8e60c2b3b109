"""Findings between runs that stand side by side in a report: what keeps their numbers from being compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from safemed_eval.report.findings.finding import Finding, Key, warning
from safemed_eval.report.load import LoadedRun

_NEVER = "their numbers do not compare"
_DIFFERENCES: tuple[tuple[Key, Callable[[LoadedRun], object], str], ...] = (
    (
        "different-items",
        lambda run: run.spec.data,
        f"were not asked the same questions (they are not of the same items): {_NEVER}",
    ),
    (
        "different-order",
        lambda run: (run.spec.shuffle_options, run.random_order),
        "were not asked the options in the same order: what differs may be due to the order",
    ),
    (
        "different-sampling",
        lambda run: run.sequential,
        "did not draw noise alike, fixed and sequential: their average and median radii do not compare",
    ),
    (
        "different-noise",
        lambda run: run.budget.kind.scale if run.kind == "certify" else None,
        f"do not measure the same kind of radius: {_NEVER}",
    ),
    (
        "different-canvas",
        lambda run: run.spec.canvas,
        f"do not share a canvas, on which eps, sigma and radius are measured: {_NEVER}",
    ),
)


def findings_between(runs: Sequence[LoadedRun]) -> list[Finding]:
    """Find what differs between runs of one kind."""
    return [
        warning(key, f"these runs {words}.")
        for key, value, words in _DIFFERENCES
        if len({value(run) for run in runs}) > 1
    ]
