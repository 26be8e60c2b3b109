"""Signs that a model has not answered by what it saw: a constant, a guess, an answer without the image.

Such a model can look robust: nothing moves a constant, and it is certified at the largest radius that there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

import numpy as np

from safemed_eval.core import CLEAN, GRADIENT_REPEATS, REPEATS
from safemed_eval.report.findings.order import NOTABLE
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.rows import Answers, Certificates
from safemed_eval.rounding import interval, percent
from safemed_eval.runs.record import EvaluateRecord, Record

FEW = 10
"""Answers below which nothing is called constant, or blind."""
_SAME = 1e-3
"""Log-probabilities that differ by no more are equal: batches differ in the last bits."""


def degenerate(run: LoadedRun) -> list[str]:
    """Describe, a sentence each, what speaks against the model having answered by what it saw."""
    rows: Answers | Certificates = run.certificates if run.kind == "certify" else run.answers.under(CLEAN)
    if run.sequential:
        return [*_one_letter(run.certificates), *_unsteady(run)]
    answered = rows.where(rows.answered & ~rows.failed)
    signs = [*_constant(answered), *_at_chance(run, answered), *_blind(answered)] if len(answered) else []
    return [*signs, *_unsteady(run)]


def _constant(answered: Answers | Certificates) -> Iterator[str]:
    places = answered.predictions
    gold = float((answered.labels == places[0]).mean())
    if len(places) >= FEW and len(np.unique(places)) == 1 and gold <= 1 - NOTABLE:
        yield (
            f"The model answers {ascii_uppercase[places[0]]} to each of {len(places)} questions; it is gold in "
            f"{percent(gold)} %. It is a constant, which no attack moves and every certificate covers."
        )


def _one_letter(rows: Certificates) -> Iterator[str]:
    """A sequential run asks for the gold answer alone: a constant is certified where its letter is gold, always."""
    certified = rows.answered & ~rows.failed
    gold, other = rows.labels[certified], rows.labels[~certified]
    if min(len(gold), len(other)) >= FEW and len(np.unique(gold)) == 1 and gold[0] not in other:
        yield (
            f"All {len(gold)} questions whose gold answer is {ascii_uppercase[gold[0]]} are certified, and none of the "
            f"other {len(other)}: as those of a constant are, which every certificate covers."
        )


def _at_chance(run: LoadedRun, answered: Answers | Certificates) -> Iterator[str]:
    """An abstention, or no answer, is no guess: the others count."""
    what = "certified answers" if run.kind == "certify" else "clean answers"
    chance = float((1 / answered.options).mean())
    share = answered.share(answered.correct)
    assert share.estimate is not None and share.lower is not None
    if share.lower <= chance and share.estimate < chance + NOTABLE:
        yield (
            f"Of {share.n} {what} {percent(share.estimate)} % [{interval(share.lower, share.upper)}] are right, which "
            f"cannot be told from chance, {percent(chance)} %: how robust a guess is means nothing."
        )


def _blind(answered: Sequence[Record]) -> Iterator[str]:
    """Compare the answers to questions that differ in nothing but the image."""
    asked = defaultdict[tuple[str, tuple[str, ...]], list[Record]](list)
    for record in answered:
        asked[record.question, record.options].append(record)
    groups = [part for part in asked.values() if len({record.image_sha256 or record.image for record in part}) > 1]
    size = sum(map(len, groups))
    if size < FEW:
        return
    scores = [[record.log_probs for record in part if isinstance(record, EvaluateRecord)] for part in groups]
    if all(part and None not in part for part in scores):
        if max(float(np.ptp(np.array(part), axis=0).max()) for part in scores) <= _SAME:
            yield (
                f"The image never matters: {size} questions that differ in the image alone have the same "
                "log-probabilities."
            )
        return
    telling = [part for part in groups if len({record.label for record in part}) > 1]
    if len(telling) >= FEW and all(len({record.prediction for record in part}) == 1 for part in groups):
        yield (
            f"The image never matters: {size} questions, in {len(groups)} groups that differ in the image alone, have "
            f"one answer a group, though in {len(telling)} of these the gold answers differ."
        )


def _unsteady(run: LoadedRun) -> Iterator[str]:
    """Report checks at load that found chance in the model itself."""
    for check in run.meta.checks:
        if check.name in (REPEATS, GRADIENT_REPEATS) and check.status != "pass":
            yield f"Asked twice, the model does not say the same ({check.name}): {check.detail}."
