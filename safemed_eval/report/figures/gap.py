"""gap: certified accuracy of a smoothed model, and its accuracy under attack, at the same L2 radii."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from safemed_eval import stats
from safemed_eval.core import CLEAN
from safemed_eval.report.curves import curve_of
from safemed_eval.report.drawing.shares import (
    CEILING,
    Point,
    ceiling_line,
    line,
    percent_axis,
    plot_ceiling,
    plot_certified,
    plot_points,
)
from safemed_eval.report.drawing.sheet import below, sheet
from safemed_eval.report.drawing.style import ONE_COLUMN, look
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import words
from safemed_eval.report.findings.attack_sizes import sized_attacks
from safemed_eval.report.run import Run
from safemed_eval.report.summary import DAGGER
from safemed_eval.smoothing import UNCLEAR

_NOTE = (
    "Robust accuracy of the smoothed model lies between the two: certified accuracy bounds it from below, attacks from "
    "above. There an unclear vote counts as right: it proves nothing. Bars and band: 95 % intervals."
)


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    attacked = [run for run in grouped.with_records(runs, "evaluate") if _families(run)]
    certified = [run for run in grouped.with_records(runs, "certify") if not run.all_failed]
    pairs = [(proofs, attacks) for proofs in certified for attacks in attacked if _belong(proofs, attacks)]
    suffixes = [suffix for suffix, _ in grouped.one_by_one([proofs for proofs, _ in pairs])] if pairs else []
    for suffix, (proofs, attacks) in zip(suffixes, pairs, strict=True):
        yield f"gap{suffix}", _figure(proofs, attacks)


def _belong(certified: Run, attacked: Run) -> bool:
    """Tell whether two runs are of the same smoothed model and the same questions."""
    proofs, attacks = (
        (spec.model, spec.asking, spec.data, spec.canvas, spec.select, spec.skipped)
        for spec in (certified.spec, attacked.spec)
    )
    return proofs == attacks and attacked.voting is not None and attacked.voting.sigma == certified.budget.sigma


def _families(run: Run) -> dict[str, list[tuple[float, str]]]:
    """The L2 attacks on a smoothed model, each with its (eps, condition) from small to large."""
    families: dict[str, list[tuple[float, str]]] = {}
    for attack in sized_attacks(run) if run.voting else ():
        if attack.norm == "l2" and attack.facts.role != "control":
            families.setdefault(attack.family, []).append((attack.eps, attack.condition))
    return {family: sorted(points) for family, points in families.items()}


def _not_proved_wrong(run: Run, condition: str) -> stats.Proportion | None:
    """The share of items that an attack leaves right, or whose vote is unclear; None where all failed."""
    rows = run.answers.under(condition)
    unclear = np.array([record.abstained == UNCLEAR for record in rows], dtype=bool)
    return None if condition in run.all_failed else rows.share(rows.correct | unclear)


def _figure(certified: Run, attacked: Run) -> Figure:
    figure = sheet(ONE_COLUMN, 2.3)
    axes = figure.add_subplot()
    curve, shares = curve_of(certified), {name: _not_proved_wrong(attacked, name) for name in attacked.conditions}
    assert curve is not None
    own, legend = look(0), dict[str, Artist]()
    plot_certified(axes, curve, own)
    plot_ceiling(axes, curve.radii[-1])
    legend[f"certified ({grouped.sizes([curve.n])})"] = Line2D([], [], color=own.color, linestyle=own.dash)
    families = _families(attacked)
    for number, (family, points) in enumerate(families.items(), start=1):
        plot_points(axes, _points([(0.0, shares[CLEAN]), *((eps, shares[name]) for eps, name in points)]), look(number))
        legend[f"under {words(family)}"] = line(look(number))
    legend[CEILING] = ceiling_line()
    largest = max(eps for points in families.values() for eps, _ in points)
    axes.set_xlim(0, 1.03 * max(curve.radii[-1], largest))
    percent_axis(axes)
    axes.set_xlabel(f"L2 radius ([0, 1] pixel units, {grouped.canvas_words(certified)})")
    axes.set_ylabel("accuracy of the smoothed model (%)")
    few = curve.few or any(share.few for share in shares.values() if share)
    title = f"{certified.name}, sigma {certified.budget.sigma:g}{DAGGER * few}."
    return below(figure, legend, [title, _NOTE, *grouped.few_note(few), *grouped.notes([certified, attacked])])


def _points(shares: Sequence[tuple[float, stats.Proportion | None]]) -> list[Point]:
    return [
        Point(place, share.estimate, share.lower, share.upper)
        for place, share in shares
        if share and share.estimate is not None and share.lower is not None and share.upper is not None
    ]
