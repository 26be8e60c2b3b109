"""Items without an answer: those that failed, and runs in which most of what a model said is no answer.

Failed items stay in every denominator and count as wrong; where all did, nothing was measured. A model whose texts
are no answers is most likely asked otherwise than it was trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from safemed_eval.core import CLEAN
from safemed_eval.report.load import LoadedRun
from safemed_eval.runs.record import EvaluateRecord, Record

_SHOWN = 3
_LONGEST = 80


def failures(run: LoadedRun) -> list[str]:
    """Describe the failed items of a run, in sentences that follow a colon."""
    if not run.failed:
        return []
    lost, rows = run.all_failed, run.rows
    if run.conditions:
        rows = run.answers.where(np.array([record.attack not in lost for record in run.answers], dtype=bool))
    elif lost:
        rows = rows[:0]
    some = rows.failed_items
    sentences = [f"{some} of {run.meta.items} items failed and count as wrong."] if some else []
    return sentences + [f"{words_of_failure(run, name)}, and nothing was measured." for name in lost]


def words_of_failure(run: LoadedRun, condition: str) -> str:
    """Say that every item failed under a condition in `LoadedRun.all_failed`."""
    if not run.conditions:
        return "every item failed"
    which = "" if run.answers.under(condition).failed.all() else " that was right when clean"
    return f"every item{which} failed under {condition}"


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Counts of a run in which most texts on clean images, or most votes, are no answer.

    Attributes:
        none: how many of `n` are no answer.
        what: texts, or votes of noisy copies.
        texts: the first few that are no answer, shortened; none where they are not kept.
        options: whether options of the command decide how the model is asked.
    """

    none: int
    n: int
    what: Literal["texts", "votes"]
    texts: list[str]
    options: bool

    def __str__(self) -> str:
        """The count, and what to do about it."""
        quoted = [f'"{text}"' for text in self.texts]
        such = f", such as {'; '.join(quoted)}" if quoted else ""
        todo = "See how your model is asked, and which answers can be read"
        if self.options:
            todo = (
                "Ask it in the words that it was trained on, with --template, let it finish, with --max-new-tokens, or "
                "use --readout choice or think-choice, which always have an answer"
            )
        return f"Most of what the model said is no answer: {self.none} of {self.n} {self.what}{such}. {todo}."


def silence(run: LoadedRun) -> Silence | None:
    """Count what is no answer; None where that is not most of it."""
    if run.sequential:
        return None  # it counts the gold answer alone
    rows = run.certificates if run.kind == "certify" else run.answers.under(CLEAN)
    heard: list[Record] = [record for record in rows if not record.failed]
    votes = list(_votes(heard))
    if votes:
        none, n = sum(counts[-1] for counts in votes), sum(map(sum, votes))
    else:
        written = [
            record
            for record in heard
            if isinstance(record, EvaluateRecord) and (record.text is not None or record.told)
        ]
        none, n = sum(record.prediction is None for record in written), len(written)
    if 2 * none <= n:
        return None
    texts = dict.fromkeys(
        _short(record.text)
        for record in heard
        if isinstance(record, EvaluateRecord) and record.text is not None and record.prediction is None and not votes
    )
    return Silence(
        none=none,
        n=n,
        what="votes" if votes else "texts",
        texts=list(texts)[:_SHOWN],
        options=run.spec.asking is not None,
    )


def _votes(heard: Iterable[Record]) -> Iterable[tuple[int, ...]]:
    """Both the votes that select a class and those that bound it."""
    for record in heard:
        if not isinstance(record, EvaluateRecord) and record.votes0 is not None:
            yield record.votes0
        if record.votes is not None:
            yield record.votes


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 3]}..."
