"""Whether answers hang on the place of an option: letters that are preferred, and options that are rotated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase

import numpy as np
import pandas as pd

from safemed_eval import stats
from safemed_eval.core import CIRCULAR
from safemed_eval.report.load import Json, LoadedRun
from safemed_eval.rounding import accuracy, percent

NOTABLE = 0.1
"""A letter's share above what is expected, from which a report speaks of it."""
_LEVEL = 0.001
"""Probability at most that one condition of a model without preference is spoken of."""


def order_notes(run: LoadedRun) -> Json:
    """What an `evaluate` run tells of the order of options.

    Returns:
        "letters": by condition what `letters` finds, where there are answers. "circular", of a run that has that
        condition: how many of its `n` items are right in their own order but not in every rotation.
    """
    found: Json = {"letters": {}}
    for condition in run.conditions:
        answered = _answered(run.under(condition))
        if answered[0]:
            found["letters"][condition] = letters(*answered)
    if CIRCULAR in run.conditions:
        part = run.under(CIRCULAR)
        asked = [] if part.empty else part.loc[part["error"].isna(), ["rotations", "label"]].to_numpy().tolist()
        dependent = sum(answers[0] == label and set(answers) != {label} for answers, label in asked)
        found["circular"] = {"n": len(asked), "order_dependent": dependent}
    return found


Answered = tuple[list[int], list[int], list[int], list[str]]
"""The arguments of `letters`."""


def _answered(part: pd.DataFrame) -> Answered:
    """The answers of one condition by place; each rotation of an item is an answer of its own."""
    found: Answered = ([], [], [], [])
    places, gold, counts, clusters = found
    if part.empty:
        return found
    circular = part["attack"].iloc[0] == CIRCULAR
    given = part["rotations"] if circular else part["prediction"]
    for answers, label, options, cluster in zip(given, part["label"], part["options"], part["cluster"], strict=True):
        for by, answer in enumerate(answers if isinstance(answers, list) else [answers]):
            if not pd.isna(answer):
                places.append((int(answer) - by) % len(options))
                gold.append((label - by) % len(options))
                counts.append(len(options))
                clusters.append(cluster)
    return found


def letters(answers: Sequence[int], gold: Sequence[int], counts: Sequence[int], clusters: Sequence[str]) -> Json:
    """The letters that are answered, against those that are gold.

    `expected` are the shares of a model that is right as often as this one, among questions of as many options, and
    else errs without regard to letters. It is not `gold`: where most gold answers are A, errors are others. An attack
    that makes a model err makes it leave the letters that are gold.

    Args:
        answers: the place of the option that is answered, for each answer.
        gold: the place of the gold option.
        counts: how many options there are.
        clusters: labels; answers of one cluster may be dependent.
    Returns:
        `n` answers; `answered`, `gold` and `expected`, shares by letter; `total_variation`, half the sum of the
        absolute differences between `answered` and `gold`; `letter`, the one that is furthest above `expected`, and
        `notable`: whether that is by at least NOTABLE, and more than chance makes it, at a level of 0.001 for all
        letters together: an exact binomial bound on the effective sample size, see `stats.clustered_proportion`.
    """
    chosen, right, options = (np.asarray(values) for values in (answers, gold, counts))
    accuracy = np.empty(len(chosen))
    for count in np.unique(options):
        same = options == count
        accuracy[same] = (chosen[same] == right[same]).mean()
    shares: dict[str, dict[str, float]] = {"answered": {}, "gold": {}, "expected": {}}
    for place, letter in enumerate(ascii_uppercase[: options.max()]):
        other = np.where(place < options, (1 - accuracy) / (options - 1), 0.0)
        shares["answered"][letter] = float((chosen == place).mean())
        shares["gold"][letter] = float((right == place).mean())
        shares["expected"][letter] = float(np.where(right == place, accuracy, other).mean())
    answered, expected = shares["answered"], shares["expected"]
    most = max(answered, key=lambda letter: answered[letter] - expected[letter])
    share = stats.clustered_proportion(
        chosen == ascii_uppercase.index(most), clusters, alpha=2 * _LEVEL / len(answered)
    )
    assert share.lower is not None
    return {
        "n": len(chosen),
        **shares,
        "total_variation": sum(abs(answered[one] - shares["gold"][one]) for one in answered) / 2,
        "letter": most,
        "notable": share.lower > expected[most] and answered[most] - expected[most] >= NOTABLE,
    }


def order_sentences(notes: Mapping[str, Json], overall: Mapping[str, Json]) -> Iterator[str]:
    """What a person must know of it, as plain text.

    Args:
        notes: of `order_notes`. overall: the accuracy of each condition.
    """
    preferred = [
        f"{condition}: {one['letter']} is answered in {percent(one['answered'][one['letter']])} %, gold in "
        f"{percent(one['gold'][one['letter']])} %, expected in {percent(one['expected'][one['letter']])} % (total "
        f"variation from gold {percent(one['total_variation'])} points)"
        for condition, one in notes["letters"].items()
        if one["notable"]
    ]
    if preferred:
        yield (
            f"Letters are preferred. {'; '.join(preferred)}. Expected: of a model that is right as often and errs "
            "without regard to letters. Where the data favours a letter, --circular and --shuffle-options tell whose "
            "preference it is."
        )
    if circular := notes.get("circular"):
        clean, all_orders = (overall[name]["accuracy"] for name in ("clean", CIRCULAR))
        change = "n/a" if None in (clean, all_orders) else f"{100 * (all_orders - clean):+.1f} points"
        yield (
            f"Right in every order of the options (circular): {accuracy(overall[CIRCULAR])} %, against clean {change}. "
            f"{circular['order_dependent']} of {circular['n']} items are right in their own order but not in all."
        )
