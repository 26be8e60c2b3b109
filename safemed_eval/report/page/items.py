"""What the page shows of single items, as plain values: questions, outcomes, votes, texts and images."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from safemed_eval.core import CIRCULAR, UNATTACKED
from safemed_eval.errors import RunError
from safemed_eval.report.load import Json, LoadedRun
from safemed_eval.runs.images import Pixels, kept
from safemed_eval.text import visible

MOST_IMAGES = 60
"""Items whose images the page holds."""
_LONGEST_TEXT = 4000
_WIDEST_IMAGE = 448
_SMALL_IMAGE = 128


class Items:
    """The items of all runs, each once: an item is one in two runs if they asked the same question about one image."""

    def __init__(self, runs: Sequence[LoadedRun]) -> None:
        self._keys: dict[tuple[Any, ...], int] = {}
        self._rows: list[Json] = []
        self.of: list[dict[str, int]] = []
        """For each run: item id -> number of the item on the page."""
        for run in runs:
            frame = run.frame if run.frame.empty else run.frame.drop_duplicates("item")
            self.of.append({row["item"]: self._number(row) for row in frame.to_dict("records")})

    def __len__(self) -> int:
        return len(self._rows)

    def _number(self, row: Mapping[Any, Any]) -> int:
        same = ("item", "question", "label", "modality", "question_type", "image_sha256")
        key = (*(_plain(row[name]) for name in same), *row["options"])
        number = self._keys.setdefault(key, len(self._rows))
        if number == len(self._rows):
            self._rows.append({str(name): _plain(value) for name, value in row.items()})
        return number

    def to_json(self, slices: Mapping[str, Sequence[str]]) -> Json:
        """Columns; texts that repeat are numbers of a list. The patient is left out: a page is passed on."""
        pools: dict[str, dict[Any, int]] = {"questions": {}, "options": {}}
        numbers = {column: {name: i for i, name in enumerate(names)} for column, names in slices.items()}

        def pooled(pool: str, value: Any) -> int:
            return pools[pool].setdefault(value, len(pools[pool]))

        columns: Json = {
            "id": [visible(row["item"]) for row in self._rows],
            "question": [pooled("questions", visible(row["question"])) for row in self._rows],
            "options": [pooled("options", tuple(map(visible, row["options"]))) for row in self._rows],
            "label": [row["label"] for row in self._rows],
            "image": [visible(row["image"]) for row in self._rows],
            "source": [None if row["source"] is None else visible(row["source"]) for row in self._rows],
        }
        for column, known in numbers.items():
            columns[column] = [known[row[column]] for row in self._rows]
        return {"columns": columns, **{name: list(pool) for name, pool in pools.items()}}


_RIGHT, _WRONG, _SILENT, _FAILED, _MISSING = "+x?!-"


def outcomes(run: LoadedRun, items: Mapping[str, int], n: int) -> Json:
    """What the table of items says of each: one mark per condition, or one mark and a radius."""
    marks = {name: [_MISSING] * n for name in run.conditions or [""]}
    radii: list[float | None] = [None] * n
    for row in _rows(run.frame):
        i, right = items[row["item"]], row["correct"]
        if row["error"] is not None:
            mark = _FAILED
        elif run.kind == "certify":
            mark = "a" if row["radius"] is None else _RIGHT if right else _WRONG
            radii[i] = row["radius"]
        else:
            mark = _RIGHT if right else _SILENT if row["prediction"] is None else _WRONG
        marks[row.get("attack", "")][i] = mark
    found: Json = {"marks": ["".join(one) for one in marks.values()]}
    return found | ({"radii": radii} if run.kind == "certify" else {})


def details(run: LoadedRun, items: Mapping[str, int], n: int) -> list[list[Any]]:
    """What an opened item shows: for each condition one entry per item, None where there is no record.

    Entries of `evaluate` are [prediction, probabilities, linf, l2, steps, text, error], and of its circular condition
    the answers to all rotations; of `certify` [prediction, votes0, votes, p_lower, abstained, error], and where it is
    sequential {"draws", "gold", "stopped", "radii": [[name, radius, largest ln e, certified], ...]}.
    """
    found: dict[str, list[Any]] = {name: [None] * n for name in run.conditions or [""]}
    for row in _rows(run.frame):
        prediction = None if row["prediction"] is None else int(row["prediction"])
        error = None if row["error"] is None else visible(row["error"])
        if run.kind == "certify":
            entry = [prediction, row["votes0"], row["votes"], row["p_lower"], row["abstained"], error]
            entry += [_ladder(row)] if run.sequential and error is None else []
        else:
            chances = None if row["log_probs"] is None else [round(math.exp(one), 5) for one in row["log_probs"]]
            sizes = [None if row[name] is None else float(f"{row[name]:.6g}") for name in ("linf", "l2")]
            entry = [prediction, chances, *sizes, row["steps"], _text(row["text"]), error]
            entry += [row["rotations"]] if row["attack"] == CIRCULAR else []
        found[row.get("attack", "")][items[row["item"]]] = entry
    return list(found.values())


def _ladder(row: Json) -> Json:
    """What a sequential certificate was read from, the radii from small to large."""
    rungs = [
        [visible(name), row["radii"][name], row["max_log_e"][name], row["certified"][name]] for name in row["certified"]
    ]
    return {"draws": int(row["stopped_at"]), "gold": int(row["successes"]), "stopped": row["stopped"], "radii": rungs}


def _rows(frame: pd.DataFrame) -> Iterator[Json]:
    """The rows with None for what is missing: pandas makes NaN of it."""
    names = [name for name in (*_OF_ANY, *_OF_EVALUATE, *_OF_CERTIFY, *_OF_SEQUENTIAL) if name in frame]
    for values in zip(*(frame[name].tolist() for name in names), strict=True):
        yield {name: _plain(value) for name, value in zip(names, values, strict=True)}


_OF_ANY = ("item", "attack", "correct", "error", "prediction")
_OF_EVALUATE = ("log_probs", "linf", "l2", "steps", "text", "rotations")
_OF_CERTIFY = ("votes0", "votes", "p_lower", "radius", "abstained")
_OF_SEQUENTIAL = ("radii", "certified", "max_log_e", "stopped_at", "successes", "stopped")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _text(text: str | None) -> str | None:
    if text is None or len(text) <= _LONGEST_TEXT:
        return None if text is None else visible(text)
    return f"{visible(text[:_LONGEST_TEXT])}\n[cut here: {len(text):,} characters in all, the rest is in records.jsonl]"


def images(runs: Sequence[LoadedRun], items: Items) -> dict[int, list[Json]]:
    """The images of the first items that have any, by number of the item: clean, change, attacked for each attack."""
    found: dict[int, list[Json]] = {}
    for number, (run, known) in enumerate(zip(runs, items.of, strict=True)):
        if not run.has_images:
            continue
        for condition, (item, i) in _pairs(run, known):
            if i not in found and len(found) == MOST_IMAGES:
                continue
            try:
                pair = kept(run.out, item, condition)
                entry = _pictures(*pair) if pair else {}
            except RunError as error:
                entry = {"error": visible(error)}
            if entry:
                found.setdefault(i, []).append({"run": number, "condition": visible(condition)} | entry)
    return found


def _pairs(run: LoadedRun, known: Mapping[str, int]) -> Iterable[tuple[str, tuple[str, int]]]:
    attacked = [name for name in run.conditions if name not in UNATTACKED]
    return ((condition, pair) for pair in known.items() for condition in attacked)


def _pictures(clean: Pixels, attacked: Pixels) -> Json:
    """Three data URIs, and by which factor the change is magnified around mid grey: a power of two, hardly clipped."""
    change = attacked - clean
    most = float(np.quantile(np.abs(change), 0.995))
    factor = 2 ** max(0, math.floor(math.log2(0.51 / most))) if most > 0 else 1
    return {
        "clean": _encoded(clean, Image.Resampling.LANCZOS),
        "change": _encoded(0.5 + factor * change, Image.Resampling.NEAREST),
        "attacked": _encoded(attacked, Image.Resampling.LANCZOS),
        "factor": factor,
        "size": [clean.shape[1], clean.shape[0]],
    }


def _encoded(pixels: Pixels, shrink: Image.Resampling) -> str:
    """A data URI: exact where the image is small, else WebP, at most _WIDEST_IMAGE wide and high."""
    image = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
    small, stream = max(image.size) <= _SMALL_IMAGE, io.BytesIO()
    if max(image.size) > _WIDEST_IMAGE:
        scale = _WIDEST_IMAGE / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), shrink)
    kind, options = ("png", {"optimize": True}) if small else ("webp", {"quality": 90})
    image.save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
