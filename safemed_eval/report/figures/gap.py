"""gap: what is proved of a smoothed model and what attacks have left of it, at the same L2 radii."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from safemed_eval.report.curves import curve_of
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import CLEAN, is_noise, words
from safemed_eval.report.figures._curves import line, plot
from safemed_eval.report.figures._sheet import below, sheet
from safemed_eval.report.figures._style import DAGGER, GREY, ONE_COLUMN, look
from safemed_eval.report.findings.attack_sizes import shots
from safemed_eval.report.load import Json, LoadedRun
from safemed_eval.smoothing import UNCLEAR
from safemed_eval.stats import clustered_proportion

_SAME = ("model", "asking", "data", "canvas", "select", "skipped")
_NOTE = (
    "Robust accuracy of the smoothed model lies between the two: certified accuracy bounds it from below, attacks from "
    "above. There an unclear vote counts as right: it proves nothing. Bars and band: 95 % intervals."
)


def draw(runs: Sequence[LoadedRun]) -> Iterator[tuple[str, Figure]]:
    attacked = [run for run in grouped.with_records(runs, "evaluate") if _families(run)]
    certified = [run for run in grouped.with_records(runs, "certify") if not run.all_failed]
    pairs = [(one, two) for one in certified for two in attacked if _belong(one, two)]
    for suffix, (one, two) in zip((s for s, _ in grouped.one_by_one([one for one, _ in pairs])), pairs, strict=True):
        yield f"gap{suffix}", _figure(one, two)


def _belong(certified: LoadedRun, attacked: LoadedRun) -> bool:
    """Whether both are about one smoothed model and one set of questions."""
    one, two = certified.spec, attacked.spec
    sigma = (two.get("smooth") or {}).get("sigma")
    return sigma == one["smoothing"]["sigma"] and all(one.get(key) == two.get(key) for key in _SAME)


def _families(run: LoadedRun) -> dict[str, list[tuple[float, str]]]:
    """The L2 attacks on a smoothed model, each with its (eps, condition) from small to large."""
    found: dict[str, list[tuple[float, str]]] = {}
    for shot in shots(run) if run.spec.get("smooth") else ():
        if shot.norm == "l2" and not is_noise(shot.family):
            found.setdefault(shot.family, []).append((shot.eps, shot.condition))
    return {family: sorted(points) for family, points in found.items()}


def _not_proved_wrong(run: LoadedRun, condition: str) -> Json:
    """The share of items that an attack leaves right, or whose vote is unclear."""
    rows = run.under(condition)
    held = rows["correct"] | (rows["abstained"] == UNCLEAR)
    share = clustered_proportion(held.tolist(), rows["cluster"].tolist())
    known = condition not in run.all_failed
    return {"accuracy": share.estimate if known else None, "lower": share.lower, "upper": share.upper, "few": share.few}


def _figure(certified: LoadedRun, attacked: LoadedRun) -> Figure:
    figure = sheet(ONE_COLUMN, 2.3)
    axes = figure.add_subplot()
    curve, cells = curve_of(certified), {name: _not_proved_wrong(attacked, name) for name in attacked.conditions}
    assert curve is not None
    own, legend = look(0), dict[str, Artist]()
    lower, upper = ([100 * value for value in values] for values in (curve.lower, curve.upper))
    share = [100 * value for value in curve.share]
    axes.fill_between(curve.radii, lower, upper, step="pre", color=own.color, alpha=0.15, linewidth=0)
    axes.plot(curve.radii, share, drawstyle="steps-pre", color=own.color, linestyle=own.dash, zorder=3)
    axes.axvline(curve.radii[-1], color=GREY, linestyle=":", linewidth=0.7)
    legend[f"certified ({grouped.sizes([curve.n])})"] = Line2D([], [], color=own.color, linestyle=own.dash)
    families = _families(attacked)
    for number, (family, ours) in enumerate(families.items(), start=1):
        other = look(number)
        points = [(0.0, cells[CLEAN]), *((eps, cells[condition]) for eps, condition in ours)]
        plot(axes, [(eps, cell) for eps, cell in points if cell["accuracy"] is not None], other)
        legend[f"under {words(family)}"] = line(other)
    legend["ceiling of the sample budget"] = Line2D([], [], color=GREY, linestyle=":", linewidth=0.7)
    largest = max(eps for ours in families.values() for eps, _ in ours)
    axes.set_xlim(0, 1.03 * max(curve.radii[-1], largest))
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_xlabel(f"L2 radius ([0, 1] pixel units, {grouped.canvas_words(certified)})")
    axes.set_ylabel("accuracy of the smoothed model (%)")
    few = curve.few or any(cell["few"] for cell in cells.values())
    title = f"{certified.name}, sigma {certified.smoothing.sigma:g}{DAGGER * few}."
    return below(figure, legend, [title, _NOTE, *[grouped.FEW] * few, *grouped.notes([certified, attacked])])
