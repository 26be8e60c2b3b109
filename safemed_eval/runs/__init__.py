"""Run folders: `run.json` says what was asked, `records.jsonl` what came out; `spec`, `meta` and
`record` are both, typed.

Nothing here knows a model, but `work`, which does the work of a run, and `ray`, which shares it.
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
