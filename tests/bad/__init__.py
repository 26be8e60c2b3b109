"""Bad input, as a table: how each piece is made, the command that meets it, and what the command must say.

A case that is good input in a strange dress stands here too, with exit code 0: it must work, and say what was done.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bad import calls, checkpoints, commands, images, questions, runs
from bad.case import Case, faults, met

KINDS: dict[str, list[Case]] = {
    "images": images.CASES,
    "data files": questions.CASES,
    "checkpoints, denoisers, templates": checkpoints.CASES,
    "command lines": commands.CASES,
    "run folders": runs.CASES,
    "calls of the Python API": calls.CASES,
}
CASES: list[Case] = [case for cases in KINDS.values() for case in cases]


def tally(some: Sequence[Case] = CASES) -> list[dict[str, Any]]:
    """Try these cases, and count by kind: bad input, good input in a strange dress, and what went wrong with them."""
    wanted, rows = {case.name for case in some}, []
    for kind, cases in KINDS.items():
        row: dict[str, Any] = {"kind": kind, "tried": 0, "bad": 0, "good but strange": 0}
        row |= {"tracebacks": 0, "other faults": 0}
        for case in cases:
            if case.name in wanted:
                with tempfile.TemporaryDirectory() as folder:
                    found = met(case, Path(folder))
                    wrong = faults(case, found)
                row["tried"] += 1
                row["bad" if case.code == 2 else "good but strange"] += 1
                row["tracebacks"] += found.crash is not None
                row["other faults"] += bool(wrong) and found.crash is None
        rows.append(row)
    return rows
