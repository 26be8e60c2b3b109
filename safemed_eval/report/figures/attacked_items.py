"""attacked_items: for some kept items the clean image, the change magnified, the attacked image, and the answers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safemed_eval.core import CLEAN
from safemed_eval.report._text import slug
from safemed_eval.report.conditions import role_of, words
from safemed_eval.report.drawing.sheet import below, letters, sheet
from safemed_eval.report.drawing.style import GREY, INK, SIZE, VERMILLION, layout, plain
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import chosen
from safemed_eval.report.run import Run
from safemed_eval.runs.images import Pixels, kept
from safemed_eval.runs.record import EvaluateRecord

MOST_ITEMS = 6
MOST_OPTIONS = 5
_IMAGE = 1.05
_LINE = 0.128
_SMALL_CANVAS = 192
"""A side of at most so many pixels is shown pixel by pixel."""
_FACTORS = (1, 2, 3, 5, 10, 15, 20, 30, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One item of the panel: two canvases, (H, W, 3) float32 in [0, 1], and its records."""

    clean: Pixels
    attacked: Pixels
    before: EvaluateRecord | None
    """The record of the clean image; None where the run has none yet."""
    after: EvaluateRecord


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    evaluated = grouped.with_records(runs, "evaluate")
    for suffix, run in grouped.one_by_one(evaluated):
        for condition in chosen(run)[0]:
            if role_of(condition) == "attack" and (items := _items(run, condition)):
                yield f"attacked-items-{slug(condition)}{suffix}", _figure(run, condition, items)


def _items(run: Run, condition: str) -> list[Shown]:
    """Up to MOST_ITEMS whose images were kept; those that the attack turned from right to wrong come first."""
    if not run.has_images or run.out is None:
        return []
    clean = {record.item: record for record in run.answers.under(CLEAN)}
    right = {item for item, record in clean.items() if record.correct}
    shown: list[Shown] = []
    for record in sorted(run.answers.under(condition), key=lambda after: after.correct or after.item not in right):
        pair = kept(run.out, record.item, condition) if len(shown) < MOST_ITEMS else None
        if pair:
            shown.append(Shown(clean=pair[0], attacked=pair[1], before=clean.get(record.item), after=record))
    return shown


def _figure(run: Run, condition: str, items: Sequence[Shown]) -> Figure:
    texts = [_lines(item) for item in items]
    heights = [max(_IMAGE, _LINE * len(lines) + 0.04) for lines in texts]
    beside = _beside()
    factor = _factor(items)
    figure = sheet(layout().page, sum(heights) + 0.2)
    grid = figure.subplots(
        len(items), 4, squeeze=False, width_ratios=[_IMAGE, _IMAGE, _IMAGE, beside], height_ratios=heights
    )
    for row, item, lines in zip(grid, items, texts, strict=True):
        change = 0.5 + factor * (item.attacked - item.clean)
        for axes, pixels in zip(row, (item.clean, change, item.attacked), strict=False):
            _image(axes, pixels)
        _write(row[3], lines)
    for axes, title in zip(grid[0], (CLEAN, f"change \u00d7 {factor}", "attacked"), strict=False):
        axes.set_title(title)
    notes = [
        f"{plain(run.name, 60)}, {words(condition)}, {grouped.canvas_words(run)}. The change is magnified by {factor} "
        "around mid-grey. Items that the attack turned from right to wrong come first: a choice, not a sample."
    ]
    return below(figure, {}, notes)


def _beside() -> float:
    """Width of the text beside three images, in the inches of the usual font size."""
    return layout().page * SIZE / layout().size - 3 * _IMAGE - 0.2


def _factor(items: Sequence[Shown]) -> int:
    """The largest round factor that keeps every change inside the grey levels."""
    most = max(float(np.abs(item.attacked - item.clean).max()) for item in items)
    return max((factor for factor in _FACTORS if factor * most <= 0.5 + 1e-6), default=1) if most else 1


def _image(axes: Axes, pixels: Pixels) -> None:
    small = max(pixels.shape[:2]) <= _SMALL_CANVAS
    axes.imshow(np.clip(pixels, 0, 1), interpolation="nearest" if small else "antialiased")
    axes.set_axis_off()


GOLD, WRONG = "  \u2713 gold", "  \u2717"
Line = tuple[str, str, str]
"""Text, colour, weight."""


def _lines(item: Shown) -> list[Line]:
    record, width = item.after, letters(layout().inches(_beside()))
    place = filter(None, (record.modality, record.question_type, record.item))
    lines: list[Line] = [(plain(", ".join(place), width), GREY, "normal")]
    asked = textwrap.wrap(plain(record.question, 3 * width), width, max_lines=3, placeholder="\u2026")
    lines += [(text, INK, "normal") for text in asked]
    gold, options = record.label, record.options
    answers = [_answer(item.before), _answer(record)]
    for number in _shown_options(len(options), [gold, *(a for a in answers if isinstance(a, int))]):
        text = plain(options[number], width - 12)
        lines.append((f"{ascii_uppercase[number]}  {text}", INK, "normal"))
        if number == gold:
            lines[-1] = (f"{lines[-1][0]}{GOLD}", INK, "bold")
    if len(options) > MOST_OPTIONS:
        lines.append((f"\u2026 of {len(options)} options", GREY, "normal"))
    for when, answer in zip((CLEAN, "attacked"), answers, strict=True):
        text = f"{ascii_uppercase[answer]}  {plain(options[answer], width - 20)}" if isinstance(answer, int) else answer
        right = answer == gold
        lines.append((f"{when}: {text}{'' if right else WRONG}", INK if right else VERMILLION, "normal"))
    return lines


def _answer(record: EvaluateRecord | None) -> int | str:
    """The chosen option, or in words why there is none."""
    if record is None:
        return "n/a"
    if record.failed:
        return "failed"
    return "no answer" if record.prediction is None else record.prediction


def _shown_options(count: int, needed: Sequence[int]) -> list[int]:
    """The options that are written out: those needed, then the first ones, in order."""
    return sorted(list(dict.fromkeys([*needed, *range(count)]))[:MOST_OPTIONS])


def _write(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set_axis_off()
    for number, (text, color, weight) in enumerate(lines):
        drawn = axes.annotate(
            text,
            (0, 1),
            (0, -72 * layout().inches(_LINE) * number - layout().size),
            xycoords="axes fraction",
            textcoords="offset points",
            va="baseline",
            color=color,
            weight=weight,
            fontsize=layout().size,
        )
        drawn.set_in_layout(False)
