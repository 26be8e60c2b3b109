"""The log of a training, one JSON object a line: its place, its reading, and its figure."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path

from safemed_eval.codec import Json
from safemed_eval.errors import RunError

WORK = "training"
"""Folder, within that of a checkpoint, for log, figure and intermediate checkpoints."""
LOG = "log.jsonl"
SAMPLES, IMAGES = "samples.jsonl", "samples"
"""What the model wrote about a few items during the training, and the folder of their images."""
CHECKPOINTS = "checkpoints"
"""Folder of the intermediate checkpoints."""

PANELS: dict[str, dict[str, str]] = {
    "accuracy on\nvalidation data": {"eval/clean_accuracy": "clean", "eval/robust_accuracy": "under attack"},
    "loss that is trained": {"loss": "loss"},
    "loss that the\nadversary maximises": {"adversary/clean_loss": "clean images", "adversary/loss": "attacked images"},
    "mean squared error": {"denoiser/mse": "denoised images"},
    "reward": {"reward": "total", "rewards/correct/mean": "correct", "rewards/kept/mean": "format kept"},
    "expected reward\nof attacked questions": {"adversary/clean_reward": "clean", "adversary/reward": "attacked"},
    "share": {
        "adversary/flipped": "answers flipped by the attack",
        "frac_reward_zero_std": "groups that agree",
        "denoiser/same_answer": "answers as on the clean image",
    },
    "divergence": {"kl": "from the reference", "adversary/kl": "of attacked from clean images"},
}
"""Panels, each with keys of the log and their labels; a panel without values is left out."""
SHARES = ("accuracy on\nvalidation data", "share")
"""The panels whose values are in [0, 1]."""

_REWARDS, _REWARD = "reward", re.compile(r"rewards/(.+)/mean")

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours that are distinguishable with colour blindness (Okabe and Ito)."""

Series = dict[str, list[tuple[int, float]]]
"""Values by step, under the label of each curve."""


def read_log(file: Path) -> list[Json]:
    """Read the lines of a training log, without an incomplete last one; empty if there is no log.

    Raises:
        RunError: a line is no JSON object with a step.
    """
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    return [_parsed(line, f"{file}: line {number}") for number, line in enumerate(lines[:-1], start=1) if line]


def _parsed(line: str, where: str) -> Json:
    try:
        values: Json = json.loads(line)
        int(values["step"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise RunError(f"{where} is no line of a training's log") from None
    return values


def panels_of(lines: Sequence[Json]) -> dict[str, Series]:
    """The panels that have values, with their curves; rewards by functions of the user's own are among the rewards."""
    known = {key for keys in PANELS.values() for key in keys}
    own = {key: match[1] for line in lines for key in line if key not in known and (match := _REWARD.fullmatch(key))}
    panels = {title: {**keys, **(own if title == _REWARDS else {})} for title, keys in PANELS.items()}
    series = {title: {name: _points(lines, key) for key, name in keys.items()} for title, keys in panels.items()}
    filled = {title: {name: points for name, points in curves.items() if points} for title, curves in series.items()}
    return {title: curves for title, curves in filled.items() if curves}


def _points(lines: Sequence[Json], key: str) -> list[tuple[int, float]]:
    return [(line["step"], line[key]) for line in lines if line.get(key) is not None]


def remove_checkpoints(folder: Path) -> None:
    """Remove the intermediate checkpoints of a complete training; other files beside them stay."""
    for checkpoint in (folder / CHECKPOINTS).glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
    with suppress(OSError):
        (folder / CHECKPOINTS / "README.md").unlink(missing_ok=True)
        (folder / CHECKPOINTS).rmdir()


def figure(folder: Path, out: Path | None = None) -> None:
    """Draw `training.png` and `training.pdf` from the folder's log into it, or `out`; nothing without values."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = panels_of(read_log(folder / LOG))
    if not panels:
        return
    sheet = Figure(figsize=(7.0, 2.1 * len(panels)), layout="constrained")
    for axes, (title, series) in zip(
        sheet.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels.items(), strict=True
    ):
        for (name, points), color in zip(series.items(), cycle(COLORS), strict=False):
            axes.plot(*zip(*points, strict=True), label=name, color=color, linewidth=1.2, marker=".", markersize=3)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", frameon=False)
    axes.set_xlabel("optimizer steps")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for kind in ("png", "pdf"):
        sheet.savefig((out or folder) / f"training.{kind}", dpi=150)
