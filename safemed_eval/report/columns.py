"""Columns of the user's table by which reports break numbers down: names of groups, and numbers cut into quartiles."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from safemed_eval.core import UNKNOWN
from safemed_eval.errors import SpecError, canonical, did_you_mean
from safemed_eval.report._text import slug
from safemed_eval.runs.record import Record

T = TypeVar("T")
OWN = ("modality", "question_type", "source")
"""Fields of every item that are columns, too."""
MOST_NUMBERS = 10
"""A column with more different numbers than this is cut into quartiles."""
QUARTERS = (0.25, 0.5, 0.75)
_MISSING = ("", "nan", "na", "n/a", "none", "null", UNKNOWN)
"""Texts that stand for no value, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the data, and the groups that it puts items into.

    Attributes:
        name: as the user's table has it.
        edges: of a column of numbers, the ends of its groups, the lowest and the highest value among them: a group
            holds the values above its lower end up to its upper end. None: each value is a group.
    """

    name: str
    edges: tuple[float, ...] | None = None

    def group(self, record: Record) -> str:
        """The group of a record's item: "Q2 (45, 60]" or a value; "unknown" where its item has none."""
        value = value_of(record, self.name)
        if self.edges is None:
            return value or UNKNOWN
        number = number_of(value)
        if number is None:
            return UNKNOWN
        place = bisect_left(self.edges[1:-1], number)
        bracket = "(" if place else "["
        return f"Q{place + 1} {bracket}{self.edges[place]:.10g}, {self.edges[place + 1]:.10g}]"


def value_of(record: Record, column: str) -> str | None:
    """The value of a record's item in a column, without blanks around it; None where there is none."""
    text = (getattr(record, column) if column in OWN else record.extra.get(column)) or ""
    return None if text.strip().casefold() in _MISSING else text.strip()


def number_of(text: str | None) -> float | None:
    """Read a finite number; None where the text is none."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def columns_of(records: Sequence[Record], by: str) -> tuple[Column, ...]:
    """Find the columns that are named in `by`, such as "age,sex,site".

    A column of which every known value is a number, with more than ten different ones, is cut at the quartiles of its
    items (each item counts once, in however many records); ties stay together, so that groups may differ in size.

    Args:
        records: of all runs that are shown together: the groups are the same in all of them.
    Raises:
        SpecError: no such column, or no item has a value in it.
    """
    known = {*OWN, *(name for record in records for name in record.extra)}
    columns = []
    for asked in dict.fromkeys(part.strip() for part in by.split(",")):
        name = canonical(asked, known)
        if name is None:
            raise SpecError(f"--by {asked}: the data have no such column; {did_you_mean(asked, known)}")
        values = {
            (record.item, record.image_sha256 or record.image, value)  # data sets may share ids
            for record in records
            if (value := value_of(record, name)) is not None
        }
        if not values:
            raise SpecError(f"--by {asked}: no item has a value in this column; leave it out")
        columns.append(Column(name=name, edges=_edges(value for *_, value in values)))
    return tuple(dict.fromkeys(columns))


def _edges(values: Iterable[str]) -> tuple[float, ...] | None:
    numbers = [number_of(value) for value in values]
    known = np.array([number for number in numbers if number is not None])
    if len(known) < len(numbers) or len(np.unique(known)) <= MOST_NUMBERS:
        return None
    lowest, highest = float(known.min()), float(known.max())
    # Values that occur, not means of two of them.
    cuts = np.unique(np.quantile(known, QUARTERS, method="inverted_cdf"))
    return (lowest, *(float(cut) for cut in cuts if cut < highest), highest)


def stems(titles: Mapping[T, str]) -> dict[T, str]:
    """The part of a file's name for each way to break numbers down, each another one."""
    slugs = [slug(title) for title in titles.values()]
    numbers = [slugs[: place + 1].count(name) for place, name in enumerate(slugs)]
    named = [f"{name}-{number}" if number > 1 else name for name, number in zip(slugs, numbers, strict=True)]
    return dict(zip(titles, named, strict=True))
