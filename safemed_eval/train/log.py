"""Where a training log is, and how it is read: one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path

from safemed_eval.codec import Json

WORK = "training"
"""Of a checkpoint's folder, the part that is about its making."""
LOG = "log.jsonl"


def read_log(file: Path) -> list[Json]:
    """The lines of a training log; none where there is none, and without a torn last one."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
