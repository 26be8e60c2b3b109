"""attacked_items: for some kept items the clean image, the change magnified, the attacked image, and the answers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safemed_eval.core import UNKNOWN
from safemed_eval.report.figures import _groups as grouped
from safemed_eval.report.figures._attacks import CLEAN, chosen, is_search, words
from safemed_eval.report.figures._sheet import below, letters, sheet
from safemed_eval.report.figures._style import GREY, INK, SIZE, TWO_COLUMNS, VERMILLION, plain
from safemed_eval.report.load import SLICES, LoadedRun
from safemed_eval.runs.images import Pixels, kept

MOST_ITEMS = 6
MOST_OPTIONS = 5
_IMAGE = 1.05
_LINE = 0.128
_TEXT = TWO_COLUMNS - 3 * _IMAGE - 0.2
_SMALL_CANVAS = 192
"""A side of at most so many pixels is shown pixel by pixel."""
_FACTORS = (1, 2, 3, 5, 10, 15, 20, 30, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One item of the panel: two canvases, (H, W, 3) float32 in [0, 1], and its records."""

    clean: Pixels
    attacked: Pixels
    before: pd.Series[Any] | None
    """The record of the clean image; None where the run has none yet."""
    after: pd.Series[Any]


def draw(runs: Sequence[LoadedRun]) -> Iterator[tuple[str, Figure]]:
    evaluated = grouped.with_records(runs, "evaluate")
    for suffix, run in grouped.one_by_one(evaluated):
        for condition in chosen(run)[0]:
            if is_search(condition) and (items := _items(run, condition)):
                yield f"attacked-items-{grouped.slug(condition)}{suffix}", _figure(run, condition, items)


def _items(run: LoadedRun, condition: str) -> list[Shown]:
    """Up to MOST_ITEMS whose images were kept; those that the attack turned from right to wrong come first."""
    if not run.has_images:
        return []
    clean, attacked = run.under(CLEAN).set_index("item"), run.under(condition)
    turned = attacked["item"].isin(clean.index[clean["correct"]]) & ~attacked["correct"]
    found = []
    for _, row in attacked.loc[turned.sort_values(ascending=False, kind="stable").index].iterrows():
        pair = kept(run.out, row["item"], condition)
        if pair:
            before = clean.loc[row["item"]] if row["item"] in clean.index else None
            found.append(Shown(clean=pair[0], attacked=pair[1], before=before, after=row))
        if len(found) == MOST_ITEMS:
            break
    return found


def _figure(run: LoadedRun, condition: str, items: Sequence[Shown]) -> Figure:
    texts = [_lines(item) for item in items]
    heights = [max(_IMAGE, _LINE * len(lines) + 0.04) for lines in texts]
    factor = _factor(items)
    figure = sheet(TWO_COLUMNS, sum(heights) + 0.2)
    grid = figure.subplots(
        len(items), 4, squeeze=False, width_ratios=[_IMAGE, _IMAGE, _IMAGE, _TEXT], height_ratios=heights
    )
    for row, item, lines in zip(grid, items, texts, strict=True):
        change = 0.5 + factor * (item.attacked - item.clean)
        for axes, pixels in zip(row, (item.clean, change, item.attacked), strict=False):
            _image(axes, pixels)
        _write(row[3], lines)
    for axes, title in zip(grid[0], ("clean", f"change \u00d7 {factor}", "attacked"), strict=False):
        axes.set_title(title)
    notes = [
        f"{plain(run.name, 60)}, {words(condition)}, {grouped.canvas_words(run)}. The change is magnified by {factor} "
        "around mid-grey. Items that the attack turned from right to wrong come first: a choice, not a sample."
    ]
    return below(figure, {}, notes)


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
    row, width = item.after, letters(_TEXT)
    slices = [str(row[column]) for column in SLICES if row[column] != UNKNOWN]
    lines: list[Line] = [(plain(", ".join([*slices, str(row["item"])]), width), GREY, "normal")]
    asked = textwrap.wrap(plain(row["question"], 3 * width), width, max_lines=3, placeholder="\u2026")
    lines += [(text, INK, "normal") for text in asked]
    gold, options = int(row["label"]), list(row["options"])
    answers = [_answer(item.before), _answer(row)]
    for number in _shown_options(len(options), [gold, *(a for a in answers if isinstance(a, int))]):
        text = plain(options[number], width - 12)
        lines.append((f"{ascii_uppercase[number]}  {text}", INK, "normal"))
        if number == gold:
            lines[-1] = (f"{lines[-1][0]}{GOLD}", INK, "bold")
    if len(options) > MOST_OPTIONS:
        lines.append((f"\u2026 of {len(options)} options", GREY, "normal"))
    for when, answer in zip(("clean", "attacked"), answers, strict=True):
        told = f"{ascii_uppercase[answer]}  {plain(options[answer], width - 20)}" if isinstance(answer, int) else answer
        right = answer == gold
        lines.append((f"{when}: {told}{'' if right else WRONG}", INK if right else VERMILLION, "normal"))
    return lines


def _answer(record: pd.Series[Any] | None) -> int | str:
    """The chosen option, or in words why there is none."""
    if record is None:
        return "n/a"
    if isinstance(record["error"], str):
        return "failed"
    return "no answer" if pd.isna(record["prediction"]) else int(record["prediction"])


def _shown_options(count: int, needed: Sequence[int]) -> list[int]:
    """The options that are written out: those needed, then the first ones, in order."""
    return sorted(list(dict.fromkeys([*needed, *range(count)]))[:MOST_OPTIONS])


def _write(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set_axis_off()
    for number, (text, color, weight) in enumerate(lines):
        drawn = axes.annotate(
            text,
            (0, 1),
            (0, -72 * _LINE * number - SIZE),
            xycoords="axes fraction",
            textcoords="offset points",
            va="baseline",
            color=color,
            weight=weight,
            fontsize=SIZE,
        )
        drawn.set_in_layout(False)
