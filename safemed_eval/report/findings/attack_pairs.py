"""Two attacks of one run against each other, item by item."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from safemed_eval import grammar, paired, stats
from safemed_eval.report.findings.attack_sizes import Shot, shots
from safemed_eval.report.load import LoadedRun

LEVEL = 0.01
"""Probability that chance alone makes the stronger of two attacks look weaker."""


class Duels:
    """The outcomes of a run's attacks, aligned by item. What failed is no outcome: nothing was flipped there.

    Attributes:
        shots: its attacks in a ball that have an outcome.
    """

    def __init__(self, run: LoadedRun) -> None:
        outcomes = run.frame.assign(correct=run.frame["correct"].where(run.frame["error"].isna()))
        self._right = outcomes.pivot(index="item", columns="attack", values="correct").reindex(columns=run.conditions)
        self.run, self.shots = run, [shot for shot in shots(run) if self._right[shot.condition].notna().any()]
        self._clusters = run.frame.drop_duplicates("item").set_index("item")["cluster"].reindex(self._right.index)

    def pairs(self, wanted: Callable[[Shot, Shot], bool]) -> Iterator[tuple[Shot, Shot]]:
        """All pairs of two attacks for which this holds."""
        return ((one, two) for one in self.shots for two in self.shots if one != two and wanted(one, two))

    def right(self, condition: str) -> int:
        """How many items an attack leaves right."""
        return int(self._right[condition].fillna(False).astype(bool).sum())

    def share(self, condition: str) -> float:
        """Which share of the items that it met it leaves right."""
        return float(self._right[condition].dropna().astype(bool).mean())

    def only(self, right: str, wrong: str) -> int:
        """How many items stay right under one attack and not under the other."""
        one, two = self._both(right, wrong)
        return int((one & ~two).sum())

    def beaten(self, strong: str, weak: str) -> bool:
        """Whether the stronger attack leaves more right than the weaker one, by more than chance explains."""
        one, two = self._both(strong, weak)
        if not len(one):
            return False
        codes = stats.cluster_codes(self._clusters.loc[one.index].tolist())
        drop, _ = paired.sign_flip_test(paired.cluster_sums(one.to_numpy(float) - two.to_numpy(float), codes))
        return drop < LEVEL

    def _both(self, first: str, second: str) -> tuple[pd.Series[bool], pd.Series[bool]]:
        """The outcomes of two attacks for the items that both have met."""
        both = self._right[[first, second]].dropna().astype(bool)
        return both[first], both[second]


def strength(shot: Shot) -> int:
    """How strong an untargeted attack is for its kind; -1 for one that has no place in the order."""
    return -1 if shot.facts.strength is None else shot.facts.strength


def should_flip(shot: Shot) -> bool:
    """Whether it looks for any wrong answer of the model itself: in a huge ball what it leaves right is image-blind."""
    return shot.facts.should_flip


def searches(shot: Shot) -> bool:
    """Whether it climbs the model's own gradient in many steps, wherever that leads."""
    return shot.facts.climbs


def in_one_ball(one: Shot, two: Shot) -> bool:
    return (one.norm, one.eps) == (two.norm, two.eps)


def takes_more(less: Shot, more: Shot) -> bool:
    """Whether two attacks are one, but for more steps or restarts of the second."""
    (kind, own), (other, further) = grammar.split(less.condition), grammar.split(more.condition)
    effort = ("steps", "restarts")
    if kind != other or any(own.get(key) != further.get(key) for key in {*own, *further} if key not in effort):
        return False
    counts = [[int(pairs.get(key, 1)) for key in effort] for pairs in (own, further)]
    return counts[0] != counts[1] and all(np.array(counts[0]) <= np.array(counts[1]))
