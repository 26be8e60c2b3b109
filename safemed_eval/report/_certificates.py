"""Certificates, read anew from their votes: what a record says of one is checked, and never believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from safemed_eval.core import Certificate, Record
from safemed_eval.errors import RunError
from safemed_eval.smoothing import (
    Budget,
    Ladder,
    Sequential,
    SequentialCertificate,
    Smoothing,
    read_votes,
    read_wrong,
    unpack,
)

Reader = Callable[[Record], tuple[Certificate, Certificate]]
"""From a record to its certificate as it was made, and as it is at the alpha that is asked for."""

_COLUMNS = ("prediction", "p_lower", "radius", "abstained")
_OF_DRAWS = ("certified", "max_log_e", "stopped_at", "successes", "stopped")


def read_certificates(out: Path, records: Sequence[Record], own: Budget, alpha: float) -> pd.DataFrame:
    """What the votes of each record decide, a column each; missing where an item failed.

    Args:
        own: what the run was made for.
        alpha: at which certificates are returned.
    Raises:
        RunError: a certificate does not follow from its votes.
    """
    names = (*_COLUMNS, *_OF_DRAWS) if isinstance(own, Sequential) else _COLUMNS
    read = _sequential(own, alpha) if isinstance(own, Sequential) else _fixed(own, alpha)
    rows = []
    for record in records:
        try:
            made, found = (None, None) if record["error"] is not None else read(record)
            follows = all(_agree(record.get(name), value) for name, value in _row(made, record, names).items())
        except (TypeError, ValueError):
            follows = False
        if not follows:
            raise RunError(
                f"{out}: the certificate of item '{record['item']}' does not follow from its votes; was it edited?"
            )
        rows.append(_row(found, record, names))
    return pd.DataFrame(rows, columns=[*names, "correct"]).astype({"radius": float, "p_lower": float})


def _fixed(own: Smoothing, alpha: float) -> Reader:
    pair = (own, replace(own, alpha=alpha))
    read = lru_cache(maxsize=None)(lambda votes0, votes: [read_votes(votes0, votes, one) for one in pair])

    def both(record: Record) -> tuple[Certificate, Certificate]:
        votes0, votes = tuple(record["votes0"]), record["votes"]
        wrong = read_wrong(votes0, record["label"]) if votes is None else None
        if wrong:
            return wrong, wrong
        made, found = read(votes0, tuple(votes))
        return made, found

    return both


def _sequential(own: Sequential, alpha: float) -> Reader:
    ladder, other = Ladder(own), Ladder(replace(own, alpha=alpha))
    follow = lru_cache(maxsize=None)(lambda hits, draws, gold: ladder.follow([unpack(hits, draws)], gold))

    def both(record: Record) -> tuple[Certificate, Certificate]:
        made: SequentialCertificate = follow(record["hits"], record["stopped_at"], record["label"])
        return made, other.read_again(made, record["label"])

    return both


def _row(found: Certificate | None, record: Record, names: Sequence[str]) -> dict[str, Any]:
    row = {name: getattr(found, name, None) for name in names}
    return row | {"correct": found is not None and found.prediction == record["label"]}


def _agree(there: Any, here: Any) -> bool:
    """Whether a stored value is the one found now; SciPy's functions may differ in their last bits."""
    if isinstance(here, dict):
        return isinstance(there, dict) and there.keys() == here.keys() and all(_agree(there[k], here[k]) for k in here)
    if isinstance(here, float):
        return bool(math.isclose(there, here, rel_tol=1e-9, abs_tol=1e-9))
    return bool(there == here)
