"""security: accuracy against eps, a curve per attack, clean at 0. L2 and L-infinity are figures of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safemed_eval.core import CLEAN
from safemed_eval.report.conditions import is_control, words
from safemed_eval.report.drawing.shares import STEP, line, look_of, percent_axis, plot_points, points_of
from safemed_eval.report.drawing.sheet import below, label_outer, letters, panels, sheet, width_of, wrapped
from safemed_eval.report.drawing.style import GREY, Look, look, looks, together
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import union
from safemed_eval.report.findings.attack_sizes import SizedAttack, sized_attacks
from safemed_eval.report.run import Run
from safemed_eval.report.summary import DAGGER, AnsweredBy, EvaluateSummary, Share

_DOTS = (0, (2, 1.5))
_WIDE = 16
"""Where the largest eps is at least this many times the smallest, the axis is logarithmic."""
_MOST_TICKS = 7
_UNITS = {"linf": (255.0, "/255"), "l2": (1.0, "L2 length in [0, 1] pixel units")}


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    own = looks(runs)
    for suffix, some in grouped.by_scale(grouped.with_records(runs, "evaluate")):
        measured = {
            run.name: [attack for attack in sized_attacks(run) if attack.condition not in run.all_failed]
            for run in some
        }
        for norm in sorted({attack.norm for attacks in measured.values() for attack in attacks}):
            ours = {name: [attack for attack in attacks if attack.norm == norm] for name, attacks in measured.items()}
            shown = [run for run in some if ours[run.name]]
            yield f"security-{norm}{suffix}", _figure(shown, together(own, shown), ours, norm)


def _figure(
    runs: Sequence[Run], own: Mapping[str, Look], ours: Mapping[str, Sequence[SizedAttack]], norm: str
) -> Figure:
    """Draw one run with a curve per attack, or several with a panel per attack and a curve per run.

    The control, in grey, is in each panel.
    """
    several = len(runs) > 1
    measured = {run.name: run.summary.overall for run in runs if isinstance(run.summary, EvaluateSummary)}
    families = union([attack.family for attack in ours[run.name]] for run in runs)
    attacks, controls = ([name for name in families if is_control(name) == control] for control in (False, True))
    titles = [[name] for name in attacks] if several and attacks else [attacks]
    columns = min(3, len(titles))
    width, rows = width_of(columns), -(-len(titles) // columns)
    figure = sheet(width, 0.2 + (1.9 if columns == 1 else 1.7) * rows)
    grid = panels(figure, len(titles), columns)
    label_outer(grid, columns)
    # Of one run, colours and markers tell attacks apart; dashes are for several runs.
    looks_here = {name: replace(look(number), dash="-") for number, name in enumerate([*attacks, *controls])}
    factor, unit = _UNITS.get(norm, (1.0, norm))
    series = {
        (run.name, family): points_of(_shares(ours[run.name], measured[run.name], family, factor))
        for run in runs
        for family in families
    }
    for axes, shown in zip(grid, titles, strict=True):
        if several and shown:
            axes.set_title(wrapped(words(shown[0]), letters(width / columns - 0.3)))
        drawn = [(run, family) for run in runs for family in [*controls, *shown] if series.get((run.name, family))]
        for number, (run, family) in enumerate(drawn):
            as_it_is = own[run.name] if several else looks_here[family]
            painted = replace(as_it_is, color=GREY, dash=_DOTS) if family in controls else as_it_is
            plot_points(axes, series[run.name, family], painted, shift=STEP * (number - (len(drawn) - 1) / 2))
    _axis(grid[0], sorted({factor * attack.eps for run in runs for attack in ours[run.name]}))
    legend = dict[str, Artist]()
    if several:
        for run in runs:
            legend[run.name] = line(look_of(own[run.name], *(series[run.name, name] for name in attacks)))
    else:
        legend |= {words(name): line(look_of(looks_here[name], series[runs[0].name, name])) for name in attacks}
    for name in controls:
        grey = replace(own[runs[0].name] if several else looks_here[name], color=GREY, dash=_DOTS)
        legend[f"{words(name)}, the random control"] = line(look_of(grey, *(series[run.name, name] for run in runs)))
    cells = [
        measured[run.name][name]
        for run in runs
        for name in [CLEAN, *(attack.condition for attack in ours[run.name])]
        if name in measured[run.name]
    ]
    few = any(cell.few for cell in cells)
    notes = [f"Bars: 95 % intervals; {grouped.sizes(cell.n for cell in cells)}{DAGGER * few}."]
    label = f"eps ({unit}), {grouped.canvas_words(runs[0])}"
    notes += [*grouped.few_note(few), *grouped.notes(runs)]
    return below(figure, legend, notes, x_label=label, y_label="accuracy (%)")


def _shares(ours: Sequence[SizedAttack], cells: AnsweredBy, family: str, factor: float) -> list[tuple[float, Share]]:
    """The accuracy at each eps of one family, clean at 0; nothing where the run has no such attack."""
    shares: list[tuple[float, Share]] = [
        (factor * attack.eps, cells[attack.condition]) for attack in ours if attack.family == family
    ]
    return [(0.0, cells[CLEAN]), *shares] if shares and CLEAN in cells else shares


def _axis(axes: Axes, steps: Sequence[float]) -> None:
    ticks = [0.0, *steps[:: -(-len(steps) // _MOST_TICKS)]]
    if steps[-1] >= _WIDE * steps[0]:
        axes.set_xscale("symlog", base=2, linthresh=steps[0])
        axes.set_xlim(-0.3 * steps[0], 1.3 * steps[-1])
    else:
        axes.set_xlim(-0.06 * steps[-1], 1.06 * steps[-1])
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    percent_axis(axes)
