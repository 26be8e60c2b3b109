"""A run's attacks in figures: the choice of those that are shown where room is short."""

from __future__ import annotations

from collections.abc import Iterable

from safemed_eval.core import CIRCULAR, OFFICIAL
from safemed_eval.report.conditions import is_control, role_of
from safemed_eval.report.findings.attack_sizes import HUGE_EPS, SizedAttack, sized_attacks
from safemed_eval.report.run import Run

MOST_CONDITIONS = 4
"""With more, corruptions are left out, and if it takes that, too, only the largest eps of each attack is shown."""
LARGEST = f"Of each attack the largest eps (below {HUGE_EPS:g} for L-infinity)."
CORRUPTED = "Corruptions have a figure of their own."


def chosen(run: Run) -> tuple[list[str], list[str]]:
    """The conditions that a figure with little room shows, clean first, the control last, and notes on those left out.

    A huge eps does not stand for an attack that has a smaller one, too.
    """
    shown = [condition for condition in run.conditions if condition not in (OFFICIAL, CIRCULAR)]
    every = sorted(shown, key=is_control)
    if len(every) <= MOST_CONDITIONS:
        return every, []
    searched = [condition for condition in every if role_of(condition) != "corruption"]
    notes = [CORRUPTED] if len(searched) < len(every) else []
    if len(searched) <= MOST_CONDITIONS:
        return searched, notes
    sized = sized_attacks(run)
    largest: dict[tuple[str, str], SizedAttack] = {}
    for attack in sorted(sized, key=lambda attack: (attack.is_huge, -attack.eps)):
        largest.setdefault((attack.family, attack.norm), attack)
    smaller = {attack.condition for attack in sized} - {attack.condition for attack in largest.values()}
    picked = [condition for condition in searched if condition not in smaller]
    return picked, [*([LARGEST] if len(picked) < len(searched) else []), *notes]


def union(lists: Iterable[Iterable[str]]) -> list[str]:
    """Every entry once, in the order of first occurrence."""
    return list(dict.fromkeys(entry for entries in lists for entry in entries))
