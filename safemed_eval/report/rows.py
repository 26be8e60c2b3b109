"""The records of a run as rows: typed, with numpy columns that are made once and shared by every selection."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Generic, Literal, Self, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pandas as pd

from safemed_eval import stats
from safemed_eval.core import BLANK, CLEAN, SHUFFLED, UNATTACKED, UNKNOWN
from safemed_eval.report.columns import Column
from safemed_eval.runs.record import CertifyRecord, EvaluateRecord, Record
from safemed_eval.smoothing import DonorVote, read_prediction

Slicing = Literal["modality", "question_type"]
"""A column that everything is broken down by."""
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Names = npt.NDArray[np.object_]
R = TypeVar("R", bound=Record)


class Rows(Sequence[R], Generic[R]):
    """Records in the order of their file; a selection of rows is itself `Rows` and copies no record.

    >>> clean = rows.under("clean")
    >>> share = clean.where(~clean.failed).correct.mean()
    """

    _origin: Self
    """The rows of all records: their columns serve every selection."""

    def __init__(self: Self, records: Sequence[R]) -> None:
        self._records, self._columns = records, dict[str, npt.NDArray[Any]]()
        self._origin = self
        self._index: Ints = np.arange(len(records))

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, place: int) -> R: ...
    @overload
    def __getitem__(self, place: slice) -> Self: ...
    def __getitem__(self, place: int | slice) -> R | Self:
        return self._selected(self._index[place]) if isinstance(place, slice) else self._records[self._index[place]]

    def __iter__(self) -> Iterator[R]:
        return (self._records[place] for place in self._index)

    def where(self, mask: Mask) -> Self:
        """The rows for which the mask, one bool a row, is true."""
        return self._selected(self._index[mask])

    def _selected(self, index: Ints) -> Self:
        selection = type(self).__new__(type(self))
        selection._records, selection._origin, selection._columns = self._records, self._origin, {}
        selection._index = index
        return selection

    def _column(self, name: str, value: Callable[[R], object], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """One value of each row; made for all records when it is first asked for, and cut from that for a selection."""
        if name not in self._columns:
            if self is self._origin:
                column = np.empty(len(self), dtype=dtype)
                column[:] = [value(record) for record in self._records]
                self._columns[name] = column
            else:
                self._columns[name] = self._origin._column(name, value, dtype)[self._index]
        return self._columns[name]

    @property
    def items(self) -> Names:
        return self._column("item", lambda record: record.item, object)

    @property
    def correct(self) -> Mask:
        """Failed items are not correct."""
        return self._column("correct", lambda record: record.correct, bool)

    @property
    def failed(self) -> Mask:
        return self._column("failed", lambda record: record.failed, bool)

    @property
    def answered(self) -> Mask:
        """True where the model gave one of the options; an abstention and a failure are no answer."""
        return self._column("answered", lambda record: record.prediction is not None, bool)

    @property
    def predictions(self) -> Ints:
        """The answered option; -1: none."""
        return self._column("prediction", lambda record: -1 if record.prediction is None else record.prediction, int)

    @property
    def labels(self) -> Ints:
        return self._column("label", lambda record: record.label, int)

    @property
    def options(self) -> Ints:
        """The number of options."""
        return self._column("options", lambda record: len(record.options), int)

    @property
    def at_stake(self) -> Mask:
        """True where an attack could flip the answer; everywhere in a run without attacks."""
        return np.ones(len(self), dtype=bool)

    @cached_property
    def clusters(self) -> Ints:
        """The patient, or else the image, as a number: 0, 1, ... in the order of their first rows."""
        codes = self._column("cluster", self._origin._number, int)
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse]

    @cached_property
    def _number(self) -> Callable[[R], int]:
        known: dict[str, int] = {}
        return lambda record: known.setdefault(record.cluster, len(known))

    def names(self, slicing: Slicing | Column) -> Names:
        """The modality, question type, or group of a column of each row; "unknown" where its item does not say."""
        if isinstance(slicing, Column):
            return self._column(repr(slicing), slicing.group, object)
        return self._column(slicing, lambda record: getattr(record, slicing) or UNKNOWN, object)

    def split(self, slicing: Slicing | Column) -> dict[str, Self]:
        """The rows of each modality, question type, or group of a column, by name, sorted."""
        return split_by(self, self.names(slicing))

    @property
    def distinct_items(self) -> int:
        return len(set(self.items))

    @property
    def failed_items(self) -> int:
        """Items with an error in a record."""
        return self.where(self.failed).distinct_items

    @property
    def first_error(self) -> str | None:
        return next((record.error for record in self if record.error is not None), None)

    @property
    def nothing_measured(self) -> bool:
        """True where these rows of one condition hold failures alone: a failure is no success of an attack.

        An item that is wrong when clean counts as wrong under an attack without a search, and says nothing of it: where
        everything else failed, nothing was measured either.
        """
        return bool(self.failed.any() and not (~self.failed & (self.at_stake | self.correct)).any())

    def share(self, successes: Mask, *, alpha: float = 0.05) -> stats.Proportion:
        """The share of successes with its interval on the effective sample size."""
        return stats.clustered_proportion(successes, self.clusters, alpha=alpha)


T = TypeVar("T", bound=Rows[Any])


def split_by(rows: T, names: Names) -> dict[str, T]:
    """The rows of each name, sorted by name."""
    codes, known = pd.factorize(names)
    by_name = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(known)))
    places = dict(zip(known, np.split(by_name, ends[:-1]), strict=True)) if len(known) else {}
    return {name: rows._selected(rows._index[places[name]]) for name in sorted(places)}


GROUNDED_LOSS = math.log(2)
"""An answer depends on the image if another image gets another answer, or if the gold option's log-probability is lower
there by at least this: half the probability. Batch shapes change log-probabilities by 1e-2 at most, in bfloat16.

The other image is that of a donor with the same question and another gold answer. Where an item has none, an image of
the same modality may well have the same answer, so that a blank image is tried, too, and either change counts."""


def depends(own: EvaluateRecord, instead: EvaluateRecord) -> bool:
    """Tell whether an answer depends on the image.

    Args:
        own, instead: the answers to the item's own image, and to another one.
    """
    if own.prediction != instead.prediction:
        return True
    if own.log_probs is None or instead.log_probs is None:
        return False
    return own.log_probs[own.label] - instead.log_probs[own.label] >= GROUNDED_LOSS


class Answers(Rows[EvaluateRecord]):
    """The rows of an evaluate run: an answer to each item under each condition."""

    @property
    def conditions(self) -> Names:
        return self._column("condition", lambda record: record.attack, object)

    @property
    def steps(self) -> Ints:
        """Gradient steps or queries; 0 where there were none."""
        return self._column("steps", lambda record: record.steps or 0, int)

    @property
    def confidences(self) -> Floats:
        """The probability of the likeliest option, among the item's own; NaN without log-probabilities."""
        return self._column("confidence", lambda record: max(_probabilities(record)), float)

    @property
    def briers(self) -> Floats:
        """The squared error of the probabilities, summed over options, in [0, 2]; NaN without log-probabilities."""
        return self._column("brier", _brier, float)

    @property
    def at_stake(self) -> Mask:
        """False where the answer to the clean image is wrong already, and an attack has nothing to flip."""
        return self._column("at_stake", self._origin._is_at_stake, bool)

    @cached_property
    def _is_at_stake(self) -> Callable[[EvaluateRecord], bool]:
        wrong = {
            record.item for record in self._records if record.attack == CLEAN and not (record.failed or record.correct)
        }
        return lambda record: record.item not in wrong or record.attack in UNATTACKED

    @property
    def unavailable(self) -> Mask:
        """True where the condition could not be had for the item."""
        return self._column("unavailable", lambda record: record.unavailable is not None, bool)

    @property
    def dependent(self) -> Mask:
        """True where the answer to the clean image depends on the image; see `GROUNDED_LOSS`. False where unknown."""
        return self._column("dependent", self._origin._is_dependent, bool)

    @cached_property
    def _is_dependent(self) -> Callable[[EvaluateRecord], bool]:
        known = self._dependence
        return lambda record: known.get(record.item, False)

    @cached_property
    def _is_known(self) -> Callable[[EvaluateRecord], bool]:
        known = self._dependence
        return lambda record: record.item in known

    @cached_property
    def _dependence(self) -> dict[str, bool]:
        """Tell for each item whether its answer depends on its image, where that is known."""
        own, blank, shuffled = (
            {record.item: record for record in self.under(name)} for name in (CLEAN, BLANK, SHUFFLED)
        )
        known = {}
        for item, record in own.items():
            donor = shuffled.get(item)
            instead = [donor] if donor and donor.match == "question" else [donor, blank.get(item)]
            answers = [answer for answer in instead if answer and not answer.failed]
            if answers and not record.failed:
                known[item] = any(depends(record, answer) for answer in answers)
        return known

    @property
    def dependence_known(self) -> Mask:
        """True where it is known whether the answer to the clean image depends on the image."""
        return self._column("dependence_known", self._origin._is_known, bool)

    def under(self, condition: str) -> Answers:
        """The rows of one condition, without the items for which it is unavailable."""
        rows = self.all_under(condition)
        return rows.where(~rows.unavailable)

    def all_under(self, condition: str) -> Answers:
        """The rows of one condition, with the items for which it is unavailable."""
        parts = self._by_condition
        return parts[condition] if condition in parts else self[:0]

    @cached_property
    def _by_condition(self) -> dict[str, Answers]:
        return split_by(self, self.conditions)


def _probabilities(record: EvaluateRecord) -> list[float]:
    """K probabilities that sum to 1; NaN where the record has no log-probabilities."""
    if record.log_probs is None or record.failed:
        return [math.nan] * len(record.options)
    most = max(record.log_probs)
    scores = [math.exp(log_prob - most) for log_prob in record.log_probs]
    total = sum(scores)
    return [score / total for score in scores]


def _brier(record: EvaluateRecord) -> float:
    return sum(
        (probability - (option == record.label)) ** 2 for option, probability in enumerate(_probabilities(record))
    )


class Certificates(Rows[CertifyRecord]):
    """The rows of a certify run: a certificate of each item, as its votes give it."""

    def grounded(self, vote: DonorVote) -> Mask:
        """True where the smoothed model answers otherwise, and does not abstain, about another image."""
        return self._column("grounded", lambda record: any(_others(record, vote)), bool)

    def stays(self, vote: DonorVote) -> Mask:
        """True where the smoothed model gives the gold answer about every other image, and does not abstain."""

        def stays(record: CertifyRecord) -> bool:
            others = _others(record, vote)
            return bool(others) and all(other is False for other in others)

        return self._column("stays", stays, bool)

    def grounded_radii(self, vote: DonorVote) -> Floats:
        """The certified radius where the certified answer is right and depends on the image, else NaN."""
        return np.where(self.grounded(vote), self.right_radii, np.nan)

    @property
    def radii(self) -> Floats:
        """The certified L2 radius; NaN: none."""
        return self._column("radius", lambda record: np.nan if record.radius is None else record.radius, float)

    @property
    def right_radii(self) -> Floats:
        """The certified radius where the certified answer is right, else NaN."""
        return np.where(self.correct, self.radii, np.nan)

    @property
    def abstained(self) -> Names:
        """The reason why there is no certificate; None where there is one."""
        return self._column("abstained", lambda record: record.abstained, object)


def _others(record: CertifyRecord, vote: DonorVote) -> list[bool | None]:
    """Tell for each other image that was shown whether the smoothed model answers otherwise; None where it abstains."""
    votes = filter(None, (record.donor_votes, record.blank_votes))
    answers = (read_prediction(counts, vote.alpha).prediction for counts in votes)
    return [None if answer is None else answer != record.label for answer in answers]
