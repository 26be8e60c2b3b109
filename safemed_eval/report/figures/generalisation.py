"""generalisation: checkpoints trained on one modality (or question type) each, tested on all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from safemed_eval.core import CLEAN, MODALITIES, QUESTION_TYPES
from safemed_eval.report._text import slug
from safemed_eval.report.conditions import words
from safemed_eval.report.drawing.matrix import Cell, cell_of, matrix, scale
from safemed_eval.report.drawing.sheet import below, sheet
from safemed_eval.report.drawing.style import INK, layout, plain
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import chosen, union
from safemed_eval.report.load import SLICES, in_order
from safemed_eval.report.rows import Slicing
from safemed_eval.report.run import Run
from safemed_eval.report.summary import EvaluateSummary
from safemed_eval.rounding import percent

ALL = "all"
MEAN = "mean"
_MOST_COLUMNS = 12
_SMALL = 5


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    for suffix, some in grouped.by_scale(grouped.with_records(runs, "evaluate")):
        for by, title in SLICES.items():
            columns = grouped.groups(some, by, _MOST_COLUMNS)
            by_method = _by_method(some, by, columns) if columns else {}
            for method, rows in by_method.items():
                which = f"-{slug(method)}" if len(by_method) > 1 else ""
                for condition in union(chosen(run)[0] for _, run in rows):
                    have = [(name, run) for name, run in rows if condition in run.conditions]
                    if len(have) > 1:
                        stem = f"generalisation-{slug(title)}{which}-{slug(condition)}{suffix}"
                        yield stem, _figure(have, by, columns, method, condition)


Rows = list[tuple[str, Run]]
"""The slice that each checkpoint was trained on, and its run."""


def _by_method(runs: Sequence[Run], by: Slicing, columns: Sequence[str]) -> dict[str, Rows]:
    """The rows of each training method, in order.

    One row is no matrix, nor are checkpoints that were all trained on everything.
    """
    methods: dict[str, Rows] = {}
    for run in runs:
        slice_ = _slice(run, by, columns)
        if slice_ is not None and run.meta.names.trained:
            methods.setdefault(str(run.meta.names.trained.method), []).append((slice_, run))
    kept = {}
    for method, rows in methods.items():
        if len(rows) > 1 and any(name != ALL for name, _ in rows):
            names = in_order({name for name, _ in rows} - {ALL})
            order = {name: number for number, name in enumerate([*names, ALL])}
            kept[method] = sorted(rows, key=lambda row: order[row[0]])
    return kept


def _slice(run: Run, by: Slicing, columns: Sequence[str]) -> str | None:
    """The one modality (or question type) that the checkpoint was trained on, ALL, or None: anything else."""
    trained = run.meta.names.trained
    if not trained:
        return None
    own, other = trained.modality, trained.question_type
    if by == "question_type":
        own, other = other, own
    if other or len(own) > 1:
        return None
    if not own:
        return ALL
    # Filters are kept casefolded; the data know how the name is written.
    spelled = {name.casefold(): name for name in (*MODALITIES, *QUESTION_TYPES, *columns)}
    return spelled.get(own[0].casefold(), own[0])


def _figure(rows: Rows, by: Slicing, columns: Sequence[str], method: str, condition: str) -> Figure:
    cells = [_row(run, by, columns, condition) for _, run in rows]
    names, title = _told_apart(rows), SLICES[by]
    small = len(columns) <= _SMALL
    figure = sheet(layout().column if small else layout().page, 1.1 + 0.31 * len(rows))
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
    notes = [
        f"Accuracy {CLEAN if condition == CLEAN else f'under {words(condition)}'}, {grouped.canvas_words(runs[0])}. "
        f"{MEAN}: of the row's cells, each counting alike. Framed: trained and tested on the same.",
    ]
    notes += grouped.few_note(any(cell.few for row in cells for cell in row))
    notes += [*grouped.left_out(runs, by, columns), *grouped.notes(runs)]
    return below(figure, {}, notes, x_label=f"tested on {title}")


def _row(run: Run, by: Slicing, columns: Sequence[str], condition: str) -> list[Cell]:
    assert isinstance(run.summary, EvaluateSummary)
    slices = run.summary.by(by)
    cells = [cell_of(slices[name][condition] if name in slices else None) for name in columns]
    shares = [cell.share for cell in cells if cell.share is not None]
    # A mean over fewer cells than the other rows have would not compare with theirs.
    mean = sum(shares) / len(shares) if len(shares) == len(cells) else None
    return [*cells, Cell(share=mean, text=percent(mean))]


def _told_apart(rows: Rows) -> list[str]:
    counts = Counter(name for name, _ in rows)
    return [f"{name} ({run.name})" if counts[name] > 1 else name for name, run in rows]
