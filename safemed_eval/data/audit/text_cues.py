"""Cues that give an answer away without the image: spelling and position of the gold option, and usual answers.

Everything here is a count over the data, beside the count that is expected by chance. It shows that a model could use a
cue, not that one does.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

from safemed_eval.core import UNKNOWN, Item
from safemed_eval.seeds import seed_of

NOTABLE = 0.1
"""A cue is reported if its share differs from chance by this much, and significantly."""
USUAL = 0.5
"""An answer that is gold in this share of the questions of a type is reported."""
_LEVEL = 0.001
_FOLDS = 10


@dataclass(frozen=True, kw_only=True)
class Cue:
    """One cue in the questions of one type.

    Attributes:
        name: "lower case", "period", "longest", "in the question" (only one option is so), "letter", "twins" (two
            options say the same), "one answer", "text alone".
        question_type: None: all types together.
        questions: number of questions.
        marked: number of questions that have the cue.
        gold: number of these in which it points to the gold option; a guess between equal options counts its chance.
        expected: the same by chance; None for "twins", which are always notable.
        value: the letter, or the answer, where the cue is one.
    """

    name: str
    question_type: str | None
    questions: int
    marked: int
    gold: float
    expected: float | None
    value: str | None = None

    @property
    def share(self) -> float | None:
        return self.gold / self.marked if self.marked else None

    @property
    def notable(self) -> bool:
        """True if it differs from chance by NOTABLE either way, at level 0.001; "one answer" only from USUAL on."""
        if self.share is None or self.expected is None:
            return bool(self.marked)
        if self.name == "one answer" and self.share < USUAL:
            return False
        from safemed_eval import stats

        chance = self.expected / self.marked
        lower = stats.clopper_pearson_lower(self.gold, self.marked, _LEVEL)
        upper = stats.clopper_pearson_upper(self.gold, self.marked, _LEVEL)
        return abs(self.share - chance) >= NOTABLE and not lower <= chance <= upper

    def to_json(self) -> dict[str, object]:
        """The cue as `data audit --json` prints it."""
        return asdict(self) | {"share": self.share, "notable": self.notable}


def cues(items: Sequence[Item]) -> list[Cue]:
    """Count every cue in one item or more: first in all of them, then by question type if there are several."""
    parts: dict[str | None, list[Item]] = defaultdict(list)
    for item in items:
        parts[item.question_type or UNKNOWN].append(item)
    kinds = sorted(parts, key=str) if len(parts) > 1 else []
    return [cue for kind in (None, *kinds) for cue in _of(kind, parts[kind] if kind else items, parts)]


def _of(kind: str | None, part: Sequence[Item], parts: dict[str | None, list[Item]]) -> Iterator[Cue]:
    def cue(name: str, marked: int, gold: float, expected: float | None, value: str | None = None) -> Cue:
        return Cue(
            name=name,
            question_type=kind,
            questions=len(part),
            marked=marked,
            gold=gold,
            expected=expected,
            value=value,
        )

    for name, stands_out in _ODD_ONES.items():
        alone = [(item, places[0]) for item in part if len(places := list(stands_out(item))) == 1]
        gold = sum(place == item.label for item, place in alone)
        yield cue(name, len(alone), gold, sum(map(_chance, (item for item, _ in alone))))
    yield _letter(part, cue)
    twins = [item for item in part if len({*map(plain, item.question.options)}) < len(item.question.options)]
    gold = sum(_texts(item).count(_texts(item)[item.label]) > 1 for item in twins)
    yield cue("twins", len(twins), gold, None)
    value, most = Counter(_texts(item)[item.label] for item in part).most_common(1)[0]
    yield cue("one answer", len(part), most, sum(_chance(item) for item in part if value in _texts(item)), value)
    of_types = parts.values() if kind is None else [part]
    right = sum(map(_usual, of_types))
    yield cue("text alone", len(part), right, sum(map(_chance, part)))


def _letter(part: Sequence[Item], cue: Callable[..., Cue]) -> Cue:
    """The letter that is gold most above or below chance; only questions that have the letter are counted."""
    best = cue("letter", 0, 0, 0.0)
    for place in range(max(len(item.question.options) for item in part)):
        having = [item for item in part if place < len(item.question.options)]
        gold, expected = sum(item.label == place for item in having), sum(map(_chance, having))
        if abs(gold - expected) > abs(best.gold - (best.expected or 0)) or not best.marked:
            best = cue("letter", len(having), gold, expected, having[0].question.letters[place])
    return best


def _usual(part: Sequence[Item]) -> float:
    """Number of questions that are right without the image, by picking the option that is most often gold when offered.

    Ten-fold cross-validation over images: frequencies are learned on nine tenths and tried on the last. Options whose
    shares differ by less than two standard errors count as equally frequent, and a guess between them counts its
    chance. Otherwise data in which all answers are equally frequent would come out below chance, since leaving out a
    fold makes its own answers rarer.
    """
    folds: dict[int, list[Item]] = defaultdict(list)
    for item in part:
        folds[seed_of("cues", str(item.root), item.image) % _FOLDS].append(item)
    every, right = _tally(part), 0.0
    for fold in folds.values():
        own = _tally(fold)
        for item in fold:
            seen = [(every[text][0] - own[text][0], every[text][1] - own[text][1]) for text in _texts(item)]
            shares = [(gold + _chance(item)) / (offered + 1) for gold, offered in seen]
            errors = [share * (1 - share) / (offered + 1) for share, (_, offered) in zip(shares, seen, strict=True)]
            most = max(shares)
            room = 4 * errors[shares.index(most)]
            best = [
                place
                for place, (share, error) in enumerate(zip(shares, errors, strict=True))
                if (most - share) ** 2 <= room + 4 * error
            ]
            right += (item.label in best) / len(best)
    return right


def _tally(items: Iterable[Item]) -> dict[str, tuple[int, int]]:
    """Option -> the number of questions in which it is gold, and in which it is offered."""
    gold, offered = Counter[str](), Counter[str]()
    for item in items:
        texts = _texts(item)
        gold[texts[item.label]] += 1
        offered.update(set(texts))
    return defaultdict(lambda: (0, 0), {text: (gold[text], offered[text]) for text in offered})


def _chance(item: Item) -> float:
    return 1 / len(item.question.options)


def _texts(item: Item) -> list[str]:
    return [plain(option) for option in item.question.options]


@lru_cache(maxsize=1 << 16)
def plain(text: str) -> str:
    """The option in lower case, without final period and extra white space."""
    return " ".join(text.casefold().split()).removesuffix(".").strip()


def _lower_case(item: Item) -> Iterator[int]:
    """The options that begin with a small letter, if all options begin with a letter that has a case."""
    initials = [option[:1] for option in item.question.options]
    if all(letter.isupper() or letter.islower() for letter in initials):
        yield from (place for place, letter in enumerate(initials) if letter.islower())


def _period(item: Item) -> Iterator[int]:
    return (place for place, option in enumerate(item.question.options) if option.endswith("."))


def _longest(item: Item) -> Iterator[int]:
    lengths = [len(option) for option in item.question.options]
    return (place for place, length in enumerate(lengths) if length == max(lengths))


def _in_the_question(item: Item) -> Iterator[int]:
    """The options whose words occur in the question."""
    question = plain(item.question.text)
    for place, option in enumerate(_texts(item)):
        if option and re.search(rf"(?<!\w){re.escape(option)}(?!\w)", question):
            yield place


_ODD_ONES: dict[str, Callable[[Item], Iterator[int]]] = {
    "lower case": _lower_case,
    "period": _period,
    "longest": _longest,
    "in the question": _in_the_question,
}
"""Cue -> the options of an item that have it; it gives the answer away if only one does."""
