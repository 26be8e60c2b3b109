"""Certificates, recomputed from their votes at reading: what a record says of one is checked, and never believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from safemed_eval.core import Certificate
from safemed_eval.errors import RunError
from safemed_eval.runs.record import CertifyRecord
from safemed_eval.smoothing import (
    Budget,
    Exhaustive,
    Ladder,
    Sequential,
    SequentialCertificate,
    Smoothing,
    View,
    read_bands,
    read_draws,
    read_votes,
    read_wrong,
    unpack,
)

Reader = Callable[[CertifyRecord], tuple[Certificate, Certificate]]
"""From a record to its certificate as it was made, and as it is at the alpha that is asked for."""
Values = dict[str, object]

_FIELDS = ("prediction", "p_lower", "radius", "abstained")
_OF_DRAWS = ("certified", "max_log_e", "stopped_at", "successes", "stopped")


def recomputed(records: Sequence[CertifyRecord], own: Budget, alpha: float, where: str) -> list[CertifyRecord]:
    """The records with the certificates that their votes give at this alpha.

    Args:
        own: what the run was made for.
        where: the run, for a message.
    Raises:
        RunError: a certificate does not follow from its votes.
    """
    sequential = isinstance(own, Sequential)
    names = (*_FIELDS, *_OF_DRAWS) if sequential else _FIELDS
    if isinstance(own, Sequential):
        read = _sequential(own, alpha)
    else:
        read = _exhaustive(own) if isinstance(own, Exhaustive) else _fixed(own, alpha)
    results = []
    for record in records:
        stored = {name: getattr(record, name) for name in names}
        try:
            made, wanted = (None, None) if record.failed else read(record)
            follows = all(_agree(stored[name], value) for name, value in _values(made, names).items())
        except (TypeError, ValueError):
            follows = False
        if not follows:
            raise RunError(f"{where}: the certificate of item '{record.item}' does not follow from its votes")
        values = _values(wanted, names)
        if values != stored:
            correct = wanted is not None and wanted.prediction == record.label
            record = replace(record, correct=correct, **values)  # type: ignore[arg-type]
        results.append(record)
    return results


def _fixed(own: Smoothing, alpha: float) -> Reader:
    pair = (own, replace(own, alpha=alpha))

    @cache
    def read(votes0: tuple[int, ...], votes: tuple[int, ...], view: View | None) -> tuple[Certificate, Certificate]:
        made, wanted = (read_votes(votes0, votes, budget, view) for budget in pair)
        return made, wanted

    def both(record: CertifyRecord) -> tuple[Certificate, Certificate]:
        votes0, votes = record.votes0, record.votes
        assert votes0 is not None
        if votes is not None:
            return read(votes0, votes, record.view)
        wrong = read_wrong(votes0, record.label)
        assert wrong is not None
        return wrong, wrong

    return both


def _exhaustive(own: Exhaustive) -> Reader:
    @cache
    def read(votes: tuple[int, ...], view: View) -> Certificate:
        return read_bands(votes, own.kind, view)

    def both(record: CertifyRecord) -> tuple[Certificate, Certificate]:
        assert record.votes is not None and record.view is not None
        made = read(record.votes, record.view)
        return made, made

    return both


def _sequential(own: Sequential, alpha: float) -> Reader:
    @cache
    def ladders(view: View | None) -> tuple[Ladder, Ladder]:
        return Ladder(own, view), Ladder(replace(own, alpha=alpha), view)

    @cache
    def follow(
        spelt: str | None, hits: str, stopped_at: int, gold: int, classes: int, view: View | None
    ) -> tuple[SequentialCertificate, SequentialCertificate]:
        if spelt is None:  # of a version that kept whether votes were gold, and asked no more
            draws = np.where(unpack(hits, stopped_at), gold, classes - 1)
        else:
            draws = read_draws(spelt, stopped_at, classes)
        ladder, other = ladders(view)
        made = ladder.follow([draws], gold, classes)
        return made, other.read_again(made, gold, classes)

    def both(record: CertifyRecord) -> tuple[Certificate, Certificate]:
        if record.stopped_at is None or (record.draws is None) == (record.hits is None) or (record.hits and own.test):
            raise ValueError("no draws, or more than one record of them")
        classes = len(record.options) + 1
        return follow(record.draws, record.hits or "", record.stopped_at, record.label, classes, record.view)

    return both


def _values(certificate: Certificate | None, names: Sequence[str]) -> Values:
    return {name: getattr(certificate, name, None) for name in names}


def _agree(stored: object, value: object) -> bool:
    """Compare a stored value with the one that the votes give; SciPy's functions may differ in their last bits."""
    if isinstance(value, Mapping):
        return (
            isinstance(stored, Mapping)
            and stored.keys() == value.keys()
            and all(_agree(stored[key], value[key]) for key in value)
        )
    if isinstance(value, float):
        return isinstance(stored, float | int) and math.isclose(stored, value, rel_tol=1e-9, abs_tol=1e-9)
    return stored == value
