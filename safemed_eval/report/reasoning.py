"""What models wrote, clean and under attack: rationales, and whether answers go with them.

Of runs whose records hold texts, those of `--readout generate`. `models.answers` says how a text is read. Figures are
of what was written: a model need not have come to its answer in that way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import pandas as pd

from safemed_eval import stats
from safemed_eval.core import Question
from safemed_eval.models.answers import Told, told
from safemed_eval.report.load import SLICES, Json, LoadedRun
from safemed_eval.rounding import percent

CLEAN = "clean"
COLUMNS = {
    "parsable": "parsable",
    "rationale": "with rationale",
    "agreement": "agreement",
    "answer_alone": "answer alone changed",
    "rationale_alone": "rationale alone changed",
}
"""The shares that are measured, and what tables call them."""
MEANING = (
    "Parsable: an answer could be read; of all items, failed ones among them. With rationale: something is said before "
    "the answer; of all items. Agreement: the rationale leads to the option that is answered; of the texts with an "
    "answer and a rationale that leads to an option. Answer alone changed: another answer than on the clean image, or "
    "none any more, after the same rationale; rationale alone changed: the same answer after another one; both of the "
    "items with a rationale here and on the clean image. Words: the median length of the texts."
)


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """What the texts of a run are like, ready for JSON.

    `overall`, and each entry of `by_modality` and `by_question_type`, hold for each condition that has texts `n`
    records, `texts` among them, the median number of `words`, tags aside, and shares:

    - `parsable`: with an answer that could be read; of all records, failed ones among them.
    - `rationale`: with a rationale; of all records.
    - `agreement`: with the answer that the rationale leads to; of the texts with an answer and a rationale that leads
      to one.
    - `answer_alone`: with another answer than the clean text of the item, after the same rationale but for case and
      blanks; no answer is another answer than A. `rationale_alone`: with the same answer, after another rationale. Both
      of the items that have a rationale here and when clean; None for clean itself.

    A share is {"share", "lower", "upper", "count", "n", "few"}, see `stats.clustered_proportion`; `n` is of how many.
    """

    overall: Json
    by_modality: dict[str, Json]
    by_question_type: dict[str, Json]

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Record:
    """One record of a run with texts."""

    item: str
    condition: str
    slices: tuple[str, str]
    cluster: str
    answer: int | None
    told: Told | None
    """What its text is like; None where it has none."""

    @property
    def rationale(self) -> str | None:
        return self.told.rationale if self.told else None

    @property
    def conclusion(self) -> int | None:
        return self.told.conclusion if self.told else None


def reasoning(run: LoadedRun) -> Reasoning | None:
    """Read the texts of a run; None where it has none."""
    if all(name not in run.frame or run.frame[name].isna().all() for name in ("text", "told")):
        return None
    records = _records(run.frame)
    conditions = [
        name for name in run.conditions if any(one.told is not None for one in records if one.condition == name)
    ]
    clean = {one.item: one for one in records if one.condition == CLEAN}
    by_modality, by_question_type = (
        {
            name: _measured([one for one in records if one.slices[place] == name], conditions, clean)
            for name in sorted({one.slices[place] for one in records})
        }
        for place in range(len(SLICES))
    )
    overall = _measured(records, conditions, clean)
    return Reasoning(overall=overall, by_modality=by_modality, by_question_type=by_question_type)


def _records(frame: pd.DataFrame) -> list[_Record]:
    found = []
    names = ["item", "attack", *SLICES, "cluster", "prediction"]
    for (item, attack, modality, kind, cluster, answer), read in zip(
        frame[names].itertuples(index=False), _told(frame), strict=True
    ):
        found.append(
            _Record(
                item=item,
                condition=attack,
                slices=(modality, kind),
                cluster=cluster,
                answer=None if pd.isna(answer) else int(answer),
                told=read,
            )
        )
    return found


def _told(frame: pd.DataFrame) -> Iterator[Told | None]:
    """What the text of each row is like: read from it, or as it was read before the text was withheld."""
    asked = frame[["question", "options"]].itertuples(index=False)
    texts, kept = (frame[name] if name in frame else [None] * len(frame) for name in ("text", "told"))
    for text, read, (question, options) in zip(texts, kept, asked, strict=True):
        if isinstance(text, str):
            yield told(text, Question(text=question, options=tuple(options)))
        else:
            yield Told(**read) if isinstance(read, dict) else None


def _measured(records: Sequence[_Record], conditions: Sequence[str], clean: Mapping[str, _Record]) -> Json:
    return {name: _cell([one for one in records if one.condition == name], clean) for name in conditions}


def _cell(records: Sequence[_Record], clean: Mapping[str, _Record]) -> Json:
    texts = [one.told for one in records if one.told is not None]
    concluded = [one for one in records if one.answer is not None and one.conclusion is not None]
    cell = {
        "n": len(records),
        "texts": len(texts),
        "words": median(text.words for text in texts) if texts else None,
        "parsable": _share(records, [one.answer is not None for one in records]),
        "rationale": _share(records, [one.rationale is not None for one in records]),
        "agreement": _share(concluded, [one.answer == one.conclusion for one in concluded]),
    }
    if any(one.condition == CLEAN for one in records):
        return cell | {"answer_alone": None, "rationale_alone": None}
    pairs = [(clean[one.item], one) for one in records if one.rationale and one.item in clean]
    pairs = [(before, after) for before, after in pairs if before.rationale]
    changed = [(before.answer != after.answer, before.rationale != after.rationale) for before, after in pairs]
    here = [after for _, after in pairs]
    return cell | {
        "answer_alone": _share(here, [answer and not thought for answer, thought in changed]),
        "rationale_alone": _share(here, [thought and not answer for answer, thought in changed]),
    }


def _share(records: Sequence[_Record], successes: Sequence[bool]) -> Json:
    found = asdict(stats.clustered_proportion(successes, [one.cluster for one in records]))
    return {"share": found["estimate"]} | {key: found[key] for key in ("lower", "upper", "count", "n", "few")}


def shown(share: Json | None) -> str:
    """A share with its numbers: "87.5 (21/24)"; "n/a" where there is nothing to take it of."""
    return f"{percent(share['share'])} ({share['count']}/{share['n']})" if share and share["n"] else "n/a"


def reasoning_sentences(found: Reasoning) -> Iterator[str]:
    """All items in two lines of plain text."""
    texts, changes = [], []
    for condition, cell in found.overall.items():
        length = "n/a" if cell["words"] is None else f"{cell['words']:g}"
        texts.append(
            f"{condition} {length} words, rationale {shown(cell['rationale'])}, agreement {shown(cell['agreement'])}"
        )
        if cell["answer_alone"] and cell["answer_alone"]["n"]:
            alone = f"answer {shown(cell['answer_alone'])}, rationale {shown(cell['rationale_alone'])}"
            changes.append(f"{condition} {alone}")
    yield (
        f"Texts: {'; '.join(texts)}. Words: the median; rationale: % of items with one; agreement: % of the rationales "
        "that lead to an option, and to the one that is answered."
    )
    if changes:
        yield (
            "Changed alone, % of the items with a rationale here and when clean, the other one the same: "
            f"{'; '.join(changes)}."
        )
