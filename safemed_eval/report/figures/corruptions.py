"""corruptions: accuracy against severity, a panel per kind of corruption of a set, a line per run; clean at 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from safemed_eval.core import CLEAN
from safemed_eval.report.drawing.shares import STEP, line, look_of, percent_axis, plot_points, points_of
from safemed_eval.report.drawing.sheet import below, label_outer, panels, sheet, width_of
from safemed_eval.report.drawing.style import Look, looks, together
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import union
from safemed_eval.report.findings.attack_sizes import facts_by_condition
from safemed_eval.report.run import Run
from safemed_eval.report.summary import DAGGER, EvaluateSummary, Share, answers_measure

_COLUMNS = 3


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    own = looks(runs)
    for suffix, some in grouped.by_scale(grouped.with_records(runs, "evaluate")):
        sets = {run.name: _shares(run) for run in some}
        for name in union(sets.values()):
            shares = {run: by_kind[name] for run, by_kind in sets.items() if name in by_kind}
            stem = f"corruptions-{name}" if name else "corruptions"
            shown = [run for run in some if run.name in shares]
            yield f"{stem}{suffix}", _figure(shown, together(own, shown), shares)


Shares = list[tuple[float, Share]]
"""Accuracy by severity, with that on clean images at 0."""


def _shares(run: Run) -> dict[str, dict[str, Shares]]:
    """Collect the shares of each kind of corruption that some item meets, by set; "" is this package's own."""
    assert isinstance(run.summary, EvaluateSummary)
    cells, sets = run.summary.overall, dict[str, dict[str, Shares]]()
    for condition, facts in facts_by_condition(run).items():
        share = cells[condition]
        if facts.role == "corruption" and facts.kind and facts.severity is not None and (share.n or share.failed):
            kinds = sets.setdefault(facts.set or "", {})
            if facts.kind not in kinds:
                kinds[facts.kind] = [(0.0, _clean(run, condition))] if CLEAN in cells else []
            kinds[facts.kind].append((facts.severity, share))
    return sets


def _clean(run: Run, condition: str) -> Share:
    """Clean accuracy on the items that meet a condition."""
    assert isinstance(run.summary, EvaluateSummary)
    if not run.summary.overall[condition].unavailable:
        return run.summary.overall[CLEAN]
    met = {record.item for record in run.answers.under(condition)}
    part = run.answers.where(np.array([record.item in met for record in run.answers], dtype=bool))
    return answers_measure(run)(part)[CLEAN]


def _figure(runs: Sequence[Run], own: Mapping[str, Look], shares: Mapping[str, Mapping[str, Shares]]) -> Figure:
    kinds = union(shares[run.name] for run in runs)
    columns = min(_COLUMNS, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = sheet(width_of(columns), 0.2 + (1.9 if columns == 1 else 1.4) * rows)
    grid = panels(figure, len(kinds), columns)
    label_outer(grid, columns)
    drawn: list[Share] = []
    for axes, kind in zip(grid, kinds, strict=True):
        axes.set_title(kind)
        for number, run in enumerate(runs):
            known = [(severity, share) for severity, share in shares[run.name].get(kind, []) if share.share is not None]
            drawn += [share for _, share in known]
            if known:
                plot_points(axes, points_of(known), own[run.name], shift=STEP * (number - (len(runs) - 1) / 2))
    severest = max(round(severity) for run in runs for shown in shares[run.name].values() for severity, _ in shown)
    grid[0].set_xlim(-0.2, severest + 0.2)
    grid[0].set_xticks(range(severest + 1))
    percent_axis(grid[0])
    few = any(share.few for share in drawn)
    note = (
        "Severity 0 is the clean image, of the same items; 1 barely visible, 5 bad. Bars: 95 % intervals; "
        f"{grouped.sizes(share.n for share in drawn)}{DAGGER * few}."
    )
    legend = {
        run.name: line(look_of(own[run.name], *(points_of(kind) for kind in shares[run.name].values()))) for run in runs
    }
    label = f"severity of the corruption, {grouped.canvas_words(runs[0])}"
    notes = [note, *grouped.few_note(few), *grouped.notes(runs)]
    return below(figure, legend, notes, x_label=label, y_label="accuracy (%)")
