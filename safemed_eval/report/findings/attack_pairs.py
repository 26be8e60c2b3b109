"""Two attacks of one run against each other, item by item."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from safemed_eval import grammar, paired, stats
from safemed_eval.report.findings.attack_sizes import SizedAttack, sized_attacks
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.rows import Mask

LEVEL = 0.01
"""Probability that chance alone makes the stronger of two attacks look weaker."""


class Pairs:
    """The outcomes of a run's attacks, aligned by item. What failed is no outcome: nothing was flipped there.

    Attributes:
        attacks: those in a ball under which something was measured; see `Rows.nothing_measured`.
    """

    def __init__(self, run: LoadedRun) -> None:
        items = sorted(set(run.answers.items))
        places = {item: place for place, item in enumerate(items)}
        clusters = np.empty(len(items), dtype=object)
        self._right: dict[str, Mask] = {}
        self._known: dict[str, Mask] = {}
        for condition in run.conditions:
            right, known = np.zeros(len(items), dtype=bool), np.zeros(len(items), dtype=bool)
            for record in run.answers.under(condition):
                place = places[record.item]
                right[place], known[place] = record.correct, not record.failed
                clusters[place] = record.cluster
            self._right[condition], self._known[condition] = right, known
        self.run, self._clusters = run, clusters
        self.attacks = [
            attack
            for attack in sized_attacks(run)
            if self._known[attack.condition].any() and attack.condition not in run.all_failed
        ]

    def pairs(self, wanted: Callable[[SizedAttack, SizedAttack], bool]) -> Iterator[tuple[SizedAttack, SizedAttack]]:
        """All pairs of two attacks for which this holds."""
        return (
            (first, second)
            for first in self.attacks
            for second in self.attacks
            if first != second and wanted(first, second)
        )

    def right(self, condition: str, among: str | None = None) -> int:
        """Count the items that an attack leaves right, of those alone with an outcome under the attack `among`."""
        known = True if among is None else self._known[among]
        return int((self._right[condition] & known).sum())

    def share(self, condition: str) -> float:
        """The share of the items with an outcome that an attack leaves right."""
        return float(self._right[condition][self._known[condition]].mean())

    def only(self, right: str, wrong: str) -> int:
        """Count the items that stay right under one attack and not under the other."""
        both = self._known[right] & self._known[wrong]
        return int((both & self._right[right] & ~self._right[wrong]).sum())

    def beaten(self, strong: str, weak: str) -> bool:
        """Test whether the stronger attack leaves more right than the weaker one, by more than chance explains."""
        both = self._known[strong] & self._known[weak]
        if not both.any():
            return False
        difference = self._right[strong][both].astype(float) - self._right[weak][both].astype(float)
        codes = stats.cluster_codes(self._clusters[both].tolist())
        drop, _ = paired.sign_flip_test(paired.cluster_sums(difference, codes))
        return drop < LEVEL


def in_one_ball(first: SizedAttack, second: SizedAttack) -> bool:
    a, b = first.facts, second.facts
    return (a.norm, a.eps, a.region) == (b.norm, b.eps, b.region)


def takes_more(less: SizedAttack, more: SizedAttack) -> bool:
    """Return True where two attacks are one, but for more steps or restarts of the second."""
    (kind, own), (other, further) = grammar.split(less.condition), grammar.split(more.condition)
    effort = ("steps", "restarts")
    if kind != other or any(own.get(key) != further.get(key) for key in {*own, *further} if key not in effort):
        return False
    counts = [[int(pairs.get(key, 1)) for key in effort] for pairs in (own, further)]
    return counts[0] != counts[1] and all(np.array(counts[0]) <= np.array(counts[1]))
