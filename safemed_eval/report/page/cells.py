"""Rows of the page's tables: the cells of one run in one slice, and the headings above them.

All rounding of tables is done by the properties of `summary.Share` and `Certified`, toward the weaker claim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from safemed_eval.core import GROUNDED
from safemed_eval.report.corruptions import Grade, about, by_set, corruption_rows, grades_of, severities_of
from safemed_eval.report.run import Run
from safemed_eval.report.summary import DAGGER, AnsweredBy, Certified, EvaluateSummary, Share
from safemed_eval.rounding import floor_to, percent
from safemed_eval.text import visible


class Cell(NamedTuple):
    """One cell of a table: a figure, lines below it in small type, and whether its interval is in doubt."""

    text: str
    below: str = ""
    few: bool = False


class Column(NamedTuple):
    """The heading of a column, and a line below it in small type."""

    title: str
    below: str = ""


def columns(runs: Sequence[Run]) -> list[Column]:
    """The columns of a table of runs of one kind, after that of the run's name."""
    if runs[0].kind == "evaluate":
        return [Column("items", "clusters"), *map(condition_column, conditions_of(runs)), Column("failed")]
    same = not radii_differ(runs)
    return [
        Column("items", "clusters"),
        Column("noise", "ceiling"),
        *(
            Column(
                f"r \u2265 {name[:-1]} sigma" if name.endswith("s") else f"r \u2265 {name}",
                f"{radius:.6g}" if name.endswith("s") and same else "",
            )
            for name, radius in points_of(runs).items()
        ),
        Column("certified, wrong", "%"),
        Column("abstained", "%"),
        Column("ACR"),
        Column("median r"),
        Column("failed"),
    ]


def points_of(runs: Sequence[Run]) -> dict[str, float]:
    """The radii that have a column, by name, with their length in the first of these runs that is shown at it.

    Patches have sizes in pixels of their own, at which other runs are n/a.
    """
    points: dict[str, float] = {}
    for run in runs:
        if run.kind == "certify":
            points |= {name: points.get(name, radius) for name, radius in run.points.items()}
    return points


def conditions_of(runs: Sequence[Run]) -> list[str]:
    """The conditions, and grounded accuracies, that have a column; corruptions have a table of their own."""
    grades = grades_of(runs)
    return list(dict.fromkeys(name for run in runs for name in run.measures if name not in grades))


class CorruptionTable(NamedTuple):
    """The table of one set of corruptions: its columns after kind and run, and the rows of each run."""

    title: str
    caption: str
    columns: list[Column]
    runs: list[list[tuple[str, list[Cell]]]]


def corruption_tables(runs: Sequence[Run]) -> list[CorruptionTable]:
    """The table of each set of corruptions that these runs have several of."""
    return [
        CorruptionTable(
            title="Accuracy under corruptions" + (f" of {name}" if name else ""),
            caption=about(name),
            columns=[
                Column("items"),
                *(Column(str(severity), "severity") for severity in severities_of(grades)),
                Column("mean"),
                Column("worst"),
            ],
            runs=[_corruption_cells(run, grades) for run in runs],
        )
        for name, grades in by_set(grades_of(runs)).items()
    ]


def _corruption_cells(run: Run, grades: Mapping[str, Grade]) -> list[tuple[str, list[Cell]]]:
    """The rows of one run, each a kind and its cells."""
    if not isinstance(run.summary, EvaluateSummary):
        return []
    return [
        (
            row.kind,
            [Cell(row.n)]
            + [Cell(figure.text.replace(DAGGER, ""), "", DAGGER in figure.text) for figure in row.figures.values()],
        )
        for row in corruption_rows(run.summary.overall, grades)
    ]


def radii_differ(runs: Sequence[Run]) -> bool:
    """Tell whether a radius in sigmas stands for different lengths in these runs."""
    return len({tuple(run.points.values()) for run in runs if run.kind == "certify"}) > 1


def condition_column(name: str) -> Column:
    """Set the attack above its options."""
    kind, _, options = visible(name).partition(":")
    return Column(kind, options.replace(",", ", "))


def accuracy_row(numbers: AnsweredBy, conditions: Sequence[str], failed: int) -> list[Cell]:
    """Make the row of a run of evaluate.

    Args:
        conditions: those that the table has columns for.
        failed: how many items have an error.
    """
    first = next(iter(numbers.values()))
    row = [Cell(f"{max(cell.n for cell in numbers.values()):,}", f"{first.clusters:,}")]
    for name in conditions:
        cell = numbers.get(name)
        if cell is None:
            row.append(Cell("n/a"))
            continue
        below = [*_bounds(cell)]
        below += [f"{cell.abstained:,} abstained"] if cell.abstained else []
        below += [f"{cell.no_answer:,} no answer"] if cell.no_answer else []
        below += [f"{visible(part)} {share.text}" for part, share in (cell.parts or {}).items()]
        row.append(Cell(cell.text, "\n".join(below), cell.few))
    return [*row, Cell(f"{failed:,}")]


def certified_row(run: Run, numbers: Certified, names: Iterable[str], *, with_radius: bool) -> list[Cell]:
    """Make the row of a run of certify.

    Args:
        names: the radii that the table has columns for.
        with_radius: write a radius that is named in sigmas as a length, too.
    """
    wrong, n = numbers.wrong, numbers.n
    row = [
        Cell(f"{n:,}", f"{numbers.clusters:,}"),
        Cell(run.budget.kind.title, f"{floor_to(run.ceiling, 4):g}"),
    ]
    for name in names:
        point = numbers.points.get(name)
        if point is None:
            row.append(Cell("n/a"))
            continue
        length = [f"r \u2265 {point.radius:.6g}"] if with_radius and name.endswith("s") else []
        grounded = [f"{GROUNDED} {numbers.grounded[name].text}"] if name in numbers.grounded else []
        row.append(Cell(point.text, "\n".join([*_bounds(point), *grounded, *length]), point.few))
    return [
        *row,
        Cell(percent(wrong / n if n and wrong is not None else None)),
        Cell(percent(numbers.abstention), f"{numbers.no_answer:,} no answer" if numbers.no_answer else ""),
        Cell(numbers.radius_text(numbers.average_radius).replace(">=", "\u2265")),
        Cell(numbers.radius_text(numbers.median_radius).replace(">=", "\u2265")),
        Cell(f"{numbers.failed:,}"),
    ]


def _bounds(share: Share) -> list[str]:
    """The interval, and a line on the items that did not fail, where some did."""
    return [text.replace("-", "\u2013") for text in (share.bounds_text, share.rest_text) if text]
