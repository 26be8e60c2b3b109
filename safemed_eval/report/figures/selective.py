"""selective: accuracy against coverage, if a model answers only where it is confident, a panel per model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safemed_eval.report.analyses.selective import Selective, selective
from safemed_eval.report.conditions import is_control, words
from safemed_eval.report.drawing.shares import line, percent_axis
from safemed_eval.report.drawing.sheet import below, heading, label_outer, panels, sheet, width_of
from safemed_eval.report.drawing.style import Look, look
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import chosen, union
from safemed_eval.report.run import Run
from safemed_eval.rounding import percent

_COLUMNS = 3
_NOTE = (
    "Accuracy among the most confident share of items, coverage. Confidence: the probability of the likeliest "
    "option, of a smoothed model the share of votes, of certificates p_lower. Dotted: items without an answer "
    "(abstained, failed), which count as errors. No intervals are drawn; the tables have them at some coverages."
)


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    shown = [run for run in runs if run.records]
    by_name = {
        name: _curves([run for run in shown if run.name == name]) for name in union([[run.name for run in shown]])
    }
    found = {name: curves for name, curves in by_name.items() if curves}
    if found:
        yield "selective", _figure(shown, found)


def _curves(runs: Sequence[Run]) -> dict[str, Selective]:
    """The curves of one model's runs by what they show."""
    curves = dict[str, Selective]()
    for run in runs:
        if run.kind == "certify":
            parts = {f"certificates, {run.budget.kind.title}": selective(run, run.certificates)}
        else:
            names = [name for name in chosen(run)[0] if not is_control(name)]
            parts = {words(name): selective(run, run.answers.under(name)) for name in names}
        curves |= {name: curve for name, curve in parts.items() if isinstance(curve, Selective)}
    return curves


def _figure(runs: Sequence[Run], found: dict[str, dict[str, Selective]]) -> Figure:
    columns = min(_COLUMNS, len(found))
    width = width_of(columns)
    figure = sheet(width, 0.2 + (2.2 if columns == 1 else 1.8) * -(-len(found) // columns))
    grid = panels(figure, len(found), columns)
    own = {name: look(number) for number, name in enumerate(union(found.values()))}
    few = False
    for axes, (name, curves) in zip(grid, found.items(), strict=True):
        marked = any(curve.few for curve in curves.values())
        axes.set_title(
            heading(name, grouped.sizes(curve.n for curve in curves.values()), width / columns - 0.2, few=marked)
        )
        few |= marked
        for label, curve in curves.items():
            _plot(axes, curve, own[label])
    percent_axis(grid[0])
    grid[0].set_xlim(0, 100)
    grid[0].set_xticks([0, 25, 50, 75, 100])
    label_outer(grid, columns)
    legend: dict[str, Artist] = {label: line(own[label]) for label in own}
    areas = "; ".join(
        f"{name}: {', '.join(f'{label} {percent(curve.aurc.value)}' for label, curve in curves.items())}"
        for name, curves in found.items()
    )
    notes = [_NOTE, f"AURC in points, lower is better: {areas}.", *grouped.few_note(few), *grouped.notes(runs)]
    return below(figure, legend, notes, x_label="coverage (% of items)", y_label="accuracy (%)")


def _plot(axes: Axes, curve: Selective, own: Look) -> None:
    """Draw one curve, with a marker where the last answer is."""
    answered = curve.answered / curve.n
    inner = [point for point in curve.curve if point[0] <= answered + 1e-9]
    for points, dash in ((inner, own.dash), ([*inner[-1:], *curve.curve[len(inner) :]], ":")):
        places, risks = [100 * place for place, _ in points], [100 * (1 - risk) for _, risk in points]
        axes.plot(places, risks, color=own.color, linestyle=dash, zorder=3)
    if inner:
        axes.plot(100 * inner[-1][0], 100 * (1 - inner[-1][1]), color=own.color, marker=own.marker, clip_on=False)
