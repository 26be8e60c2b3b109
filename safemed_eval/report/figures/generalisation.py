"""generalisation: checkpoints trained on one modality (or question type) each, tested on all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from safemed_eval.core import MODALITIES, QUESTION_TYPES
from safemed_eval.report.breakdown import breakdown
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import CLEAN, chosen, union, words
from safemed_eval.report.figures._cells import Cell, accuracy_cell, matrix, scale
from safemed_eval.report.figures._sheet import below, sheet
from safemed_eval.report.figures._style import INK, ONE_COLUMN, TWO_COLUMNS, plain
from safemed_eval.report.load import SLICES, LoadedRun, in_order

ALL = "all"
MEAN = "mean"
_MOST_COLUMNS = 12
_SMALL = 5


def draw(runs: Sequence[LoadedRun]) -> Iterator[tuple[str, Figure]]:
    for suffix, some in grouped.by_canvas(grouped.with_records(runs, "evaluate")):
        for column, title in SLICES.items():
            columns = grouped.groups(some, column, _MOST_COLUMNS)
            by_method = _by_method(some, column, columns) if columns else {}
            for method, rows in by_method.items():
                which = f"-{grouped.slug(method)}" if len(by_method) > 1 else ""
                for condition in union(chosen(run)[0] for _, run in rows):
                    have = [(name, run) for name, run in rows if condition in run.conditions]
                    if len(have) > 1:
                        stem = f"generalisation-{grouped.slug(title)}{which}-{grouped.slug(condition)}{suffix}"
                        yield stem, _figure(have, column, title, columns, method, condition)


def _by_method(
    runs: Sequence[LoadedRun], column: str, columns: Sequence[str]
) -> dict[str, list[tuple[str, LoadedRun]]]:
    """By training method, the rows in order: what the checkpoint was trained on, and its run.

    One row is no matrix, nor are checkpoints that were all trained on everything.
    """
    found: dict[str, list[tuple[str, LoadedRun]]] = {}
    for run in runs:
        slice_ = _slice(run, column, columns)
        if slice_ is not None:
            found.setdefault(str(run.meta["names"]["trained"].get("method")), []).append((slice_, run))
    kept = {}
    for method, rows in found.items():
        if len(rows) > 1 and any(name != ALL for name, _ in rows):
            names = in_order({name for name, _ in rows} - {ALL})
            order = {name: number for number, name in enumerate([*names, ALL])}
            kept[method] = sorted(rows, key=lambda row: order[row[0]])
    return kept


def _slice(run: LoadedRun, column: str, columns: Sequence[str]) -> str | None:
    """The one modality (or question type) that the checkpoint was trained on, ALL, or None: anything else."""
    trained = run.meta["names"].get("trained")
    if not trained:
        return None
    own = list(trained.get(column) or ())
    if any(trained.get(other) for other in SLICES if other != column) or len(own) > 1:
        return None
    if not own:
        return ALL
    # Filters are kept casefolded; the data know how the name is written.
    spelled = {name.casefold(): name for name in (*MODALITIES, *QUESTION_TYPES, *columns)}
    return spelled.get(own[0].casefold(), str(own[0]))


def _figure(
    rows: Sequence[tuple[str, LoadedRun]],
    column: str,
    title: str,
    columns: Sequence[str],
    method: str,
    condition: str,
) -> Figure:
    cells = [_row(run, column, columns, condition) for _, run in rows]
    names = _told_apart(rows)
    small = len(columns) <= _SMALL
    figure = sheet(ONE_COLUMN if small else TWO_COLUMNS, 1.1 + 0.31 * len(rows))
    axes = figure.add_subplot()
    image = matrix(axes, cells, names, [*columns, MEAN], upright=small)
    axes.axvline(len(columns) - 0.5, color="white", linewidth=4)
    axes.get_xticklabels()[-1].set_fontstyle("italic")
    for y, (name, _) in enumerate(rows):
        if name in columns:
            corner = (columns.index(name) - 0.46, y - 0.45)
            axes.add_patch(Rectangle(corner, 0.92, 0.9, fill=False, edgecolor=INK, linewidth=1, zorder=3))
    axes.set_ylabel(f"trained on one {title} ({plain(method)})")
    if not small:  # there the numbers need the room
        scale(figure, image, [axes], "accuracy (%)")
    runs = [run for _, run in rows]
    shown = "clean" if condition == CLEAN else words(condition)
    notes = [
        f"Accuracy {shown if condition == CLEAN else f'under {shown}'}, {grouped.canvas_words(runs[0])}. "
        f"{MEAN}: of the row's cells, each counting alike. Framed: trained and tested on the same.",
    ]
    notes += [grouped.FEW] if any(cell.few for row in cells for cell in row) else []
    notes += [*grouped.left_out(runs, column, columns), *grouped.notes(runs)]
    return below(figure, {}, notes, x_label=f"tested on {title}")


def _row(run: LoadedRun, column: str, columns: Sequence[str], condition: str) -> list[Cell]:
    summary = breakdown(run)
    slices = summary.by_modality if column == "modality" else summary.by_question_type
    found = [slices[name][condition] if name in slices else None for name in columns]
    cells = [accuracy_cell(one) if one else Cell(share=None) for one in found]
    shares = [cell.share for cell in cells if cell.share is not None]
    # A mean over fewer cells than the other rows have would not compare with theirs.
    whole = len(shares) == len(cells)
    return [*cells, Cell(share=sum(shares) / len(shares) if whole else None)]


def _told_apart(rows: Sequence[tuple[str, LoadedRun]]) -> list[str]:
    counts = Counter(name for name, _ in rows)
    return [f"{name} ({run.name})" if counts[name] > 1 else name for name, run in rows]
