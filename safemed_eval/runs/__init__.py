"""Run folders: `run.json` says what was asked, `records.jsonl` what came out. Nothing here knows a model."""

from __future__ import annotations

from safemed_eval.runs.provenance import session
from safemed_eval.runs.store import (
    META,
    Folder,
    Run,
    count_records,
    default_out,
    differences,
    read_meta,
    read_records,
    refuse_other_spec,
)

__all__ = [
    "META",
    "Folder",
    "Run",
    "count_records",
    "default_out",
    "differences",
    "read_meta",
    "read_records",
    "refuse_other_spec",
    "session",
]
