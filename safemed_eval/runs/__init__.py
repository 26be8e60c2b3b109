"""Run folders: `run.json` holds the spec of a run, `records.jsonl` its results.

`spec`, `meta` and `record` are their typed contents. `work` computes records with a loaded model, and `ray` shares that
work among processes; the other modules know no model.
"""

from __future__ import annotations

from safemed_eval.runs.folder import (
    META,
    Folder,
    Memory,
    RunFolder,
    checked,
    count_records,
    default_out,
    differences,
    read_lines,
    read_meta,
    read_run,
    refuse_other_spec,
)
from safemed_eval.runs.provenance import session

__all__ = [
    "META",
    "Folder",
    "Memory",
    "RunFolder",
    "checked",
    "count_records",
    "default_out",
    "differences",
    "read_lines",
    "read_meta",
    "read_run",
    "refuse_other_spec",
    "session",
]
