"""The log of a training, one JSON object a line: its place, its reading, and its figure."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

from safemed_eval.codec import Json

WORK = "training"
"""Folder, within that of a checkpoint, for log, figure and intermediate checkpoints."""
LOG = "log.jsonl"
SAMPLES, IMAGES = "samples.jsonl", "samples"
"""What the model wrote about a few items during the training, and the folder of their images."""
CHECKPOINTS = "checkpoints"
"""Folder of the intermediate checkpoints."""

PANELS: dict[str, dict[str, str]] = {
    "loss that is trained": {"loss": "loss"},
    "cross-entropy\nof the options": {"adversary/clean_loss": "clean images", "adversary/loss": "attacked images"},
    "mean squared error": {"denoiser/mse": "denoised images"},
    "reward": {"reward": "total", "rewards/correct/mean": "correct", "rewards/kept/mean": "format kept"},
    "accuracy on\nvalidation data": {"eval/clean_accuracy": "clean", "eval/robust_accuracy": "under attack"},
    "share": {
        "adversary/flipped": "answers flipped by the attack",
        "frac_reward_zero_std": "groups that agree",
        "denoiser/same_answer": "answers as on the clean image",
    },
    "divergence": {"kl": "KL from the reference"},
}
"""Panels, each with keys of the log and their labels; a panel without values is left out."""

COLORS = ("#0072b2", "#d55e00", "#009e73")
"""Colours that are distinguishable with colour blindness (Okabe and Ito)."""


def read_log(file: Path) -> list[Json]:
    """Read the lines of a training log, without an incomplete last one; empty if there is no log."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def remove_checkpoints(folder: Path) -> None:
    """Remove the intermediate checkpoints of a complete training; other files beside them stay."""
    for checkpoint in (folder / CHECKPOINTS).glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
    with suppress(OSError):
        (folder / CHECKPOINTS / "README.md").unlink(missing_ok=True)
        (folder / CHECKPOINTS).rmdir()


def figure(folder: Path) -> None:
    """Draw `training.png` and `training.pdf` from the folder's log; nothing if it has no values yet."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    lines = read_log(folder / LOG)
    panels = [(title, series) for title, keys in PANELS.items() if (series := _series(lines, keys))]
    if not panels:
        return
    sheet = Figure(figsize=(7.0, 2.1 * len(panels)), layout="constrained")
    for axes, (title, series) in zip(
        sheet.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True
    ):
        for (name, points), color in zip(series.items(), COLORS, strict=False):
            axes.plot(*zip(*points, strict=True), label=name, color=color, linewidth=1.2, marker=".", markersize=3)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", frameon=False)
    axes.set_xlabel("optimizer steps")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for kind in ("png", "pdf"):
        sheet.savefig(folder / f"training.{kind}", dpi=150)


def _series(lines: list[Json], keys: dict[str, str]) -> dict[str, list[tuple[int, float]]]:
    points_of = {
        name: [(line["step"], line[key]) for line in lines if line.get(key) is not None] for key, name in keys.items()
    }
    return {name: points for name, points in points_of.items() if points}
