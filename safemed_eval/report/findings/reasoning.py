"""Rationales that models wrote, clean and under attack, and whether answers follow from them.

Of runs whose records hold texts, those of `--readout generate`. `models.answers` says how a text is read. Figures are
of what was written: a model need not have come to its answer in that way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from statistics import fmean, median
from typing import Literal

from safemed_eval import stats
from safemed_eval.codec import Json
from safemed_eval.core import CLEAN, Question
from safemed_eval.models.answers import Told, told
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.rows import Answers
from safemed_eval.rounding import percent
from safemed_eval.runs.record import EvaluateRecord

ShareName = Literal["parsable", "rationale", "self_consistency", "gold_agreement", "answer_alone"]
ChangeName = Literal["rationale_changed", "rationale_alone"]

SHARES: dict[ShareName, str] = {
    "parsable": "parsable",
    "rationale": "with rationale",
    "self_consistency": "self-consistent",
    "gold_agreement": "leads to gold",
    "answer_alone": "answer alone changed",
}
"""The shares that are measured, and what tables call them."""
CHANGES: dict[ChangeName, str] = {
    "rationale_changed": "rationale changed",
    "rationale_alone": "rationale alone changed",
}
"""The changes of a rationale that are measured as a distance, and what tables call them."""
NOT_MEASURED = (
    "Not measured is the quality of a rationale: whether it is medically right, complete, or why the model answered as "
    "it did."
)
MEANING = (
    "Parsable: an answer could be read; of all items, failed ones among them. With rationale: something is said before "
    "the answer, or thought after it; of all items. Self-consistent: the answer is the one that its own rationale "
    "leads to, right or wrong; of the texts with an answer and a rationale that leads to an option. Leads to gold: the "
    "rationale leads to the gold option; of the rationales that lead to written. The others are of the items with a "
    "rationale here and on the "
    "clean image. Answer alone changed: another answer than on the clean image, or none any more, after word for word "
    "the same rationale. Rationale changed: the mean distance from the rationale on the clean image, and how many "
    "changed at all; rationale alone changed: the same of those whose answer stayed. Distance: one minus the share of "
    "words that two texts have in common in the same order (difflib's ratio): 0 where all are the same, 1 where none "
    f"is; n/a under pseudonyms. Words: the median length of the texts. {NOT_MEASURED}"
)


@dataclass(frozen=True, kw_only=True)
class TextShare:
    """A share of `n` texts with its interval, see `stats.clustered_proportion`."""

    share: float | None
    lower: float | None
    upper: float | None
    count: int
    n: int
    few: bool

    def __str__(self) -> str:
        """The share with its numbers: "87.5 (21/24)"; "n/a" where there is nothing to take it of."""
        return f"{percent(self.share)} ({self.count}/{self.n})" if self.n else "n/a"


@dataclass(frozen=True, kw_only=True)
class Change(TextShare):
    """The share of rationales that changed, and the mean distance from those on the clean images; see `distance`.

    Attributes:
        distance: None where the texts are withheld.
    """

    distance: float | None

    def __str__(self) -> str:
        """The mean distance, and how many changed at all: "0.31 (12/20)"; "n/a" where there is none."""
        return f"{self.distance_words} ({self.count}/{self.n})" if self.n else "n/a"

    @property
    def distance_words(self) -> str:
        return "n/a" if self.distance is None else f"{self.distance:.2f}"


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of one condition.

    Attributes:
        n: records, `texts` among them.
        words: the median number of words, tags aside.
        parsable: texts with an answer that could be read; of all records, failed ones among them.
        rationale: with a rationale; of all records.
        self_consistency: with the answer that its own rationale leads to; of the texts with an answer and a rationale
            that leads to written.
        gold_agreement: with a rationale that leads to the gold option; of those that lead to written.
        answer_alone: with another answer than the clean text of the item, after the same rationale but for case and
            blanks; no answer is another answer than A. Of the items that have a rationale here and when clean; None for
            clean itself.
        rationale_changed: with another rationale than when clean, of the same items.
        rationale_alone: the same, of those among them with the same answer.
    """

    n: int
    texts: int
    words: float | None
    parsable: TextShare
    rationale: TextShare
    self_consistency: TextShare
    gold_agreement: TextShare
    answer_alone: TextShare | None = None
    rationale_changed: Change | None = None
    rationale_alone: Change | None = None

    @property
    def shares(self) -> dict[ShareName, TextShare | None]:
        """By the names of SHARES."""
        return {name: getattr(self, name) for name in SHARES}

    @property
    def changes(self) -> dict[ChangeName, Change | None]:
        """By the names of CHANGES."""
        return {name: getattr(self, name) for name in CHANGES}

    @property
    def words_text(self) -> str:
        return "n/a" if self.words is None else f"{self.words:g}"


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """The texts of a run by condition, in all and by slice; only conditions that have texts."""

    overall: dict[str, Texts]
    by_modality: dict[str, dict[str, Texts]]
    by_question_type: dict[str, dict[str, Texts]]

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """One record, and what its text says.

    Attributes:
        told: None where it has no text.
        readable: whether its rationale is a text, and not a pseudonym.
    """

    record: EvaluateRecord
    told: Told | None
    readable: bool

    @property
    def rationale(self) -> str | None:
        return self.told.rationale if self.told else None

    @property
    def conclusion(self) -> int | None:
        return self.told.conclusion if self.told else None


def reasoning(run: LoadedRun) -> Reasoning | None:
    """Read the texts of a run; None where it has none."""
    rows = run.answers
    if all(record.text is None and record.told is None for record in rows):
        return None
    read = {id(record): _read(record) for record in rows}
    if all(written.told is None for written in read.values()):
        return None
    conditions = [name for name in run.conditions if any(read[id(record)].told for record in rows.under(name))]
    clean = {record.item: read[id(record)] for record in rows.under(CLEAN)}

    def measured(part: Answers) -> dict[str, Texts]:
        return {name: _texts([read[id(record)] for record in part.under(name)], clean) for name in conditions}

    return Reasoning(
        overall=measured(rows),
        by_modality={name: measured(part) for name, part in rows.split("modality").items()},
        by_question_type={name: measured(part) for name, part in rows.split("question_type").items()},
    )


def _read(record: EvaluateRecord) -> _Read:
    """Read the text of a record, or take what was read of it before it was withheld."""
    if record.text is None:
        return _Read(record=record, told=record.told, readable=False)
    question = Question(text=record.question, options=record.options)
    return _Read(record=record, told=told(record.text, question), readable=True)


def _texts(read: Sequence[_Read], clean: Mapping[str, _Read]) -> Texts:
    records = [written.record for written in read]
    texts = [written.told for written in read if written.told is not None]
    led = [written for written in read if written.conclusion is not None]
    concluded = [written for written in led if written.record.prediction is not None]
    answer_alone: TextShare | None = None
    changed: Change | None = None
    alone: Change | None = None
    if not any(record.attack == CLEAN for record in records):
        pairs = [
            (clean[written.record.item], written)
            for written in read
            if written.rationale and written.record.item in clean
        ]
        pairs = [(before, after) for before, after in pairs if before.rationale]
        other = [before.record.prediction != after.record.prediction for before, after in pairs]
        answer_alone = _share(
            [after for _, after in pairs],
            [new and before.rationale == after.rationale for (before, after), new in zip(pairs, other, strict=True)],
        )
        changed = _changed(pairs)
        alone = _changed([pair for pair, new in zip(pairs, other, strict=True) if not new])
    return Texts(
        n=len(read),
        texts=len(texts),
        words=median(text.words for text in texts) if texts else None,
        parsable=_share(read, [record.prediction is not None for record in records]),
        rationale=_share(read, [written.rationale is not None for written in read]),
        self_consistency=_share(concluded, [written.record.prediction == written.conclusion for written in concluded]),
        gold_agreement=_share(led, [written.conclusion == written.record.label for written in led]),
        answer_alone=answer_alone,
        rationale_changed=changed,
        rationale_alone=alone,
    )


def _changed(pairs: Sequence[tuple[_Read, _Read]]) -> Change:
    """Compare the rationales of these items with those on their clean images."""
    changed = [before.rationale != after.rationale for before, after in pairs]
    known = all(before.readable and after.readable for (before, after), new in zip(pairs, changed, strict=True) if new)
    mean = None
    if pairs and known:
        mean = fmean(distance(before.rationale or "", after.rationale or "") for before, after in pairs)
    return Change(**vars(_share([after for _, after in pairs], changed)), distance=mean)


@lru_cache(maxsize=2**16)
def distance(one: str, other: str) -> float:
    """Return how far two texts differ in their words: 0 where these are the same, 1 where none is common to both.

    One minus the ratio of `difflib.SequenceMatcher` over words: twice the words in common, in the same order, over all
    words of both (Ratcliff and Metzener 1988).
    """
    return 1 - SequenceMatcher(None, one.split(), other.split(), autojunk=False).ratio()


def _share(read: Sequence[_Read], successes: Sequence[bool]) -> TextShare:
    share = stats.clustered_proportion(successes, [written.record.cluster for written in read])
    return TextShare(
        share=share.estimate, lower=share.lower, upper=share.upper, count=share.count, n=share.n, few=share.few
    )


def reasoning_sentences(reasoning: Reasoning) -> Iterator[str]:
    """All items in three lines of plain text, and what they do not say."""
    texts, changes = [], []
    for condition, cell in reasoning.overall.items():
        texts.append(
            f"{condition} {cell.words_text} words, rationale {cell.rationale}, self-consistent "
            f"{cell.self_consistency}, leads to gold {cell.gold_agreement}"
        )
        if cell.answer_alone and cell.answer_alone.n:
            alone = f"rationale {cell.rationale_changed}, where the answer stayed {cell.rationale_alone}"
            changes.append(f"{condition} {alone}; answer alone {cell.answer_alone}")
    yield (
        f"Texts: {'; '.join(texts)}. Words: the median; rationale: % of items with one; of those that lead to an "
        "option % that are self-consistent (lead to the one that is answered), and % that lead to the gold written."
    )
    if changes:
        yield (
            "Changed, of the items with a rationale here and when clean: "
            f"{'; '.join(changes)}. Of rationales the mean distance in words, from 0 to 1, and how many changed at "
            "all; answer alone: % after the same rationale."
        )
    yield NOT_MEASURED
