"""The items that a run takes: filters, a stratified sample, a limit. All are seeded by item id, none by position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from safemed_eval.core import Item
from safemed_eval.data.dataset import DataSet
from safemed_eval.data.records import canonical_modality, canonical_question_type
from safemed_eval.errors import DataError, SpecError, canonical, did_you_mean
from safemed_eval.seeds import seed_of


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The filters and counts that items were chosen by, as a run's spec records them.

    Attributes:
        modality: names in lower case, sorted; empty: all.
        question_type: the same for question types.
        per_group: items of each modality x question type.
        limit: items in all.
    """

    modality: tuple[str, ...] = ()
    question_type: tuple[str, ...] = ()
    per_group: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("modality", "question_type"):
            object.__setattr__(self, name, tuple(sorted({str(each).casefold() for each in getattr(self, name)})))


def select(
    data: DataSet,
    *,
    seed: int = 0,
    per_group: int | None = None,
    limit: int | None = None,
    modalities: Sequence[str] = (),
    question_types: Sequence[str] = (),
) -> DataSet:
    """Filter, then sample. Items keep the order of the data; samples of growing size contain each other.

    Filters apply to bad items as well, where their slices are known.

    Args:
        per_group: this many of each modality x question type, drawn at random; a smaller group is taken whole.
        limit: at most this many, drawn at random from what is left.
    Raises:
        SpecError: a filter names nothing that the data has, or a count is below 1.
    """
    items, bad = list(data.items), list(data.bad)
    for option, asked, spelling, field in (
        ("--modality", modalities, canonical_modality, "modality"),
        ("--question-type", question_types, canonical_question_type, "question_type"),
    ):
        if asked:
            known = {value for item in (*items, *bad) if (value := getattr(item, field))}
            matches = {name: canonical(name, known) for name in map(str, map(spelling, asked))}
            for name in (name for name, match in matches.items() if match is None):
                raise SpecError(f"{option} '{name}': the data has none; {did_you_mean(name, known)}")
            wanted = set(matches.values())
            items = [item for item in items if getattr(item, field) in wanted]
            bad = [item for item in bad if getattr(item, field) in (None, *wanted)]
    words = []
    if per_group is not None:
        if per_group < 1:
            raise SpecError(f"--per-group must be at least 1, got {per_group}")
        groups: dict[tuple[str | None, str | None], list[Item]] = defaultdict(list)
        for item in items:
            groups[item.modality, item.question_type].append(item)
        taken = {item.id for group in groups.values() for item in _draw(group, per_group, seed)}
        items = [item for item in items if item.id in taken]
        short = sum(len(group) < per_group for group in groups.values())
        if any(len(group) > per_group for group in groups.values()):
            words.append(f"{per_group} per modality x question type; 'all' is the sample's mean, not the data's")
            words += [f"fewer in {short} of {len(groups)} groups"] if short else []
    if limit is not None:
        if limit < 1:
            raise SpecError(f"--limit must be at least 1, got {limit}")
        if limit < len(items):
            taken = {item.id for item in _draw(items, limit, seed)}
            words.append(f"{limit} drawn at random from {len(items)}")
            items = [item for item in items if item.id in taken]
    if not items and not bad:
        raise DataError("no item is left after --modality, --question-type, --per-group and --limit")
    return replace(data, items=tuple(items), bad=tuple(bad), sampled="; ".join(words) or None)


def _draw(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    return sorted(items, key=lambda item: seed_of(seed, "sample", item.id))[:count]
