"""Tables of calibration, of selective answers, and of the worst groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from safemed_eval.codec import Json
from safemed_eval.report.analyses.bounded import Bounded
from safemed_eval.report.analyses.calibration import Calibration, calibration
from safemed_eval.report.analyses.falling import REFERENCE, Falling, falling
from safemed_eval.report.analyses.selective import Selective, selective
from safemed_eval.report.analyses.subgroups import extremes_of
from safemed_eval.report.rows import Answers, Certificates
from safemed_eval.report.run import Run
from safemed_eval.report.summary import DAGGER
from safemed_eval.report.tabular.breakdown import Study, broken_down, caveats
from safemed_eval.report.tabular.table import Cell, Row, Table, table_of
from safemed_eval.rounding import ceil_to, floor_to, interval, percent, percent_down

Part = TypeVar("Part", Answers, Certificates, Answers | Certificates)
Numbers = TypeVar("Numbers")

CALIBRATION = (
    "Calibration of the probabilities of the options, with 95 % intervals. ECE: expected calibration error, in "
    "points, over 15 equally wide bins of confidence (the probability of the likeliest option); by chance: the ECE "
    "that a calibrated model with these confidences would show on as many items; adaptive: over 15 bins of equally "
    "many items. Brier: mean of the squared errors, summed over options (0 is best, 2 worst). Overconfidence: mean "
    "confidence minus accuracy, in points; below 0 is underconfidence. Intervals are 95 %, by clusters (patients or "
    "images). Items without probabilities, failed ones among them, are left out here, and counted."
)
SELECTIVE = (
    "Selective answers: accuracy in % among the most confident share of items, with 95 % intervals. Ties are in "
    "expectation over their order. Confidence is the probability of the likeliest option; of a smoothed model its "
    "share of votes, of a certificate p_lower. Items without an answer (failed, abstained, unreadable) come last, as "
    "errors. AURC: area under the curve of risk against coverage, in points, lower is better; best: with as many "
    "errors, all of them last. Intervals are 95 %, by clusters (patients or images)."
)
WORST = (
    "The worst group of each column, and the gap in accuracy between the best and the worst, in % and points, with "
    "intervals that hold for all groups of a column at once. They hold for all compared groups of a column under one "
    "attack at once with 95 % confidence (Bonferroni), so that they stay true though the worst was looked for. Not "
    "compared: groups of effectively fewer than ten clusters (patients or images), groups of which every item failed, "
    "and items without a value."
)
ODDS = (
    "What goes with falling: odds ratios of being wrong under an attack, among items that were right when clean, "
    "from one logistic regression on all columns, with 95 % intervals. They come of generalized estimating equations "
    "(patients or images are clusters; runs with the same attack share a regression). Above 1: falls more often than "
    "the reference, the most frequent level of its column, the other columns being equal. Intervals are 95 %, each "
    "for itself. What goes together need not cause it. n/a: an estimate would be infinite or not to be trusted, for "
    "the reason that is given."
)


def analysis_tables(runs: Sequence[Run]) -> Iterator[Table]:
    """Make the tables that these runs have data for."""
    evaluated = [run for run in runs if run.kind == "evaluate" and run.records]
    yield from broken_down("calibration", CALIBRATION, [_calibrated(run) for run in evaluated], _calibration_rows)
    chosen = [_selected(run) for run in runs if run.records]
    yield from broken_down("selective", SELECTIVE, chosen, _selective_rows)
    if rows := [row for run in runs for row in _extreme_rows(run)]:
        yield table_of("worst-groups", WORST, rows, caveats(runs))
    found = falling(runs)
    if rows := [row for regression in found for row in _odds_rows(regression)]:
        yield table_of("odds", " ".join([ODDS, *(_of_regression(regression) for regression in found)]), rows)


def _calibrated(run: Run) -> Study[dict[str, Calibration]]:
    def measure(rows: Answers) -> dict[str, Calibration]:
        return {name: calibration(run, part) for name in run.conditions if len(part := rows.under(name))}

    return _study(run, run.answers, measure)


def _selected(run: Run) -> Study[dict[str, Selective | str]]:
    def measure(rows: Answers | Certificates) -> dict[str, Selective | str]:
        if isinstance(rows, Certificates):
            return {"certificates": selective(run, rows)}
        return {name: selective(run, part) for name in run.conditions if len(part := rows.under(name))}

    return _study(run, run.rows, measure)


def _study(run: Run, rows: Part, measure: Callable[[Part], Numbers]) -> Study[Numbers]:
    slices = {by: {name: measure(part) for name, part in rows.split(by).items()} for by in run.slicings}
    return Study(run=run, overall=measure(rows), slices=slices)


def _calibration_rows(run: Run, measured: dict[str, Calibration]) -> Iterator[Row]:
    for condition, found in measured.items():
        mark = DAGGER * found.few
        over = "n/a" if found.over is None else f"{_signed(found.over)}{mark}"
        without = ", ".join(f"{count:,} {reason}" for reason, count in found.without.items())
        yield {
            "attack": condition,
            "items": Cell(text=f"{found.n:,}"),
            "ECE": Cell(text=_points(found.ece, mark), numbers=_numbers(found.ece, found)),
            "by chance": Cell(text=percent(found.by_chance)),
            "adaptive ECE": Cell(text=_points(found.adaptive, mark), numbers=_numbers(found.adaptive, found)),
            "Brier": Cell(text=_brier(found.brier, mark), numbers=_numbers(found.brier, found)),
            "overconfidence": Cell(text=over, numbers=_numbers(found.over, found)),
            "without probabilities": Cell(text=without or "0"),
        }


def _selective_rows(run: Run, measured: dict[str, Selective | str]) -> Iterator[Row]:
    for condition, found in measured.items():
        if isinstance(found, str):
            yield {"attack": condition, "confidence": f"n/a: {found}"}
            continue
        about: Json = {"items": found.n, "answered": found.answered, "few": found.few, "best": found.best}
        mark = DAGGER * found.few
        yield {
            "attack": condition,
            "confidence": found.confidence,
            "items": Cell(text=f"{found.n:,}"),
            "answered": Cell(text=percent(found.answered / found.n)),
            "AURC": Cell(text=_points(found.aurc, mark), numbers=vars(found.aurc) | about),
            "best AURC": Cell(text=percent(found.best)),
            **{
                f"at {coverage:.0%}": Cell(text=_points(share, mark), numbers=vars(share) | about)
                for coverage, share in found.accuracy.items()
            },
        }


def _extreme_rows(run: Run) -> Iterator[Row]:
    for column in run.by:
        for name, found in extremes_of(run, column):
            worst, best = found.worst, found.best
            about: Json = {"groups": found.groups, "left_out": ", ".join(found.left_out)}
            rounded = percent_down if run.kind == "certify" else percent
            yield {
                "run": run.name,
                "groups of": column.name,
                "attack": name,
                "worst": worst[0] if worst else "n/a",
                "best": best[0] if best else "n/a",
                "compared": Cell(text=str(found.groups)),
                "worst accuracy": _extreme(worst[1] if worst else None, about, rounded),
                "best accuracy": _extreme(best[1] if best else None, about, rounded),
                "gap": _extreme(found.gap, about, percent),
                "not compared": Cell(text=", ".join(found.left_out) or "none"),
            }


def _extreme(bounded: Bounded | None, about: Json, rounded: Callable[[float | None], str]) -> Cell:
    text = "n/a" if bounded is None else f"{rounded(bounded.value)} [{interval(bounded.lower, bounded.upper)}]"
    return Cell(text=text, numbers=_ends(bounded) | about)


def _odds_rows(found: Falling) -> Iterator[Row]:
    for odds in found.odds:
        text = odds.reason if odds.reason == REFERENCE else f"n/a: {odds.reason}"
        if odds.ratio is not None and odds.lower is not None and odds.upper is not None:
            text = f"{odds.ratio:.2f} [{floor_to(odds.lower, 2):.2f}-{ceil_to(odds.upper, 2):.2f}]"
        numbers: Json = {"ratio": odds.ratio, "lower": odds.lower, "upper": odds.upper, "reason": odds.reason}
        yield {
            "attack": found.condition,
            "of": odds.column,
            "level": odds.level,
            "items": Cell(text=f"{odds.n:,}"),
            "fell": Cell(text=f"{odds.fallen:,}"),
            "odds ratio": Cell(text=text, numbers=numbers | {"items": odds.n, "fallen": odds.fallen}),
        }


def _of_regression(found: Falling) -> str:
    """Say what a regression is made of."""
    failed = f", without {found.failed:,} that failed under it" if found.failed else ""
    why = f"; n/a: {found.reason}" if found.reason else ""
    return f"{found.condition}: {found.n:,} items{failed}, {found.fallen:,} fell, {found.clusters:,} clusters{why}."


def _numbers(bounded: Bounded | None, found: Calibration) -> Json:
    about: Json = {"items": found.n, "few": found.few, "by_chance": found.by_chance, "accuracy": found.accuracy}
    return _ends(bounded) | about | {"confidence": found.confidence}


def _ends(bounded: Bounded | None) -> Json:
    return {"value": None, "lower": None, "upper": None} if bounded is None else dict(vars(bounded))


def _points(bounded: Bounded | None, mark: str) -> str:
    """A share in percent with its interval, rounded outward."""
    return "n/a" if bounded is None else f"{percent(bounded.value)} [{interval(bounded.lower, bounded.upper)}]{mark}"


def _brier(bounded: Bounded | None, mark: str) -> str:
    if bounded is None:
        return "n/a"
    return f"{bounded.value:.3f} [{floor_to(bounded.lower, 3):.3f}-{ceil_to(bounded.upper, 3):.3f}]{mark}"


def _signed(bounded: Bounded) -> str:
    lower, upper = 100 * floor_to(bounded.lower, 3), 100 * ceil_to(bounded.upper, 3)
    return f"{100 * bounded.value:+.1f} [{lower:+.1f} to {upper:+.1f}]"
