"""Location and reading of the training log: one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path

from safemed_eval.codec import Json

WORK = "training"
"""Folder, within that of a checkpoint, for log, figure and intermediate checkpoints."""
LOG = "log.jsonl"


def read_log(file: Path) -> list[Json]:
    """Read the lines of a training log, without an incomplete last one; empty if there is no log."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
