"""A run's attacks, as figures show them: which are one curve, which stand for the others, what they are called."""

from __future__ import annotations

from collections.abc import Iterable

from safemed_eval import grammar
from safemed_eval.core import CIRCULAR, OFFICIAL, UNATTACKED
from safemed_eval.report.findings.attack_sizes import HUGE_EPS, Shot, shots
from safemed_eval.report.load import LoadedRun

CLEAN, NOISE, CORRUPT = "clean", "noise", "corrupt"
MOST_CONDITIONS = 4
"""With more, corruptions are left out, and if it takes that, too, only the largest eps of each attack is shown."""
LARGEST = f"Of each attack the largest eps (below {HUGE_EPS:g} for L-infinity)."
CORRUPTED = "Corruptions have a figure of their own."
_ACRONYM = 4


def is_noise(condition: str) -> bool:
    """Whether it is the random control and no attack."""
    return condition.partition(":")[0] == NOISE


def is_corruption(condition: str) -> bool:
    """Whether it is a natural corruption and no attack."""
    return condition.partition(":")[0] == CORRUPT


def is_search(condition: str) -> bool:
    """Whether it is an attack: something that looks for an image on which the model errs."""
    return condition not in UNATTACKED and not is_noise(condition) and not is_corruption(condition)


def chosen(run: LoadedRun) -> tuple[list[str], list[str]]:
    """The conditions that a figure with little room shows, clean first, noise last, and notes on what is left out.

    A huge eps does not stand for an attack that has a smaller one, too.
    """
    every = sorted((condition for condition in run.conditions if condition not in (OFFICIAL, CIRCULAR)), key=is_noise)
    if len(every) <= MOST_CONDITIONS:
        return every, []
    searched = [condition for condition in every if not is_corruption(condition)]
    notes = [CORRUPTED] if len(searched) < len(every) else []
    if len(searched) <= MOST_CONDITIONS:
        return searched, notes
    largest: dict[tuple[str, str], Shot] = {}
    for shot in sorted(shots(run), key=lambda shot: (shot.is_huge, -shot.eps)):
        largest.setdefault((shot.family, shot.norm), shot)
    has_eps = {shot.condition for shot in shots(run)}
    kept = {shot.condition for shot in largest.values()}
    found = [condition for condition in searched if condition in kept or condition not in has_eps]
    return found, [*([LARGEST] if len(found) < len(searched) else []), *notes]


def union(lists: Iterable[Iterable[str]]) -> list[str]:
    """Every entry once, as they come."""
    return list(dict.fromkeys(entry for entries in lists for entry in entries))


def words(condition: str) -> str:
    """ "pgd:eps=4/255,steps=10" as a legend says it: "PGD eps=4/255, steps=10"."""
    name, pairs = grammar.split(condition)
    # Short names of attacks are acronyms.
    spoken = name.upper() if len(name) <= _ACRONYM else name
    return f"{spoken} {', '.join(grammar.parts(pairs))}".rstrip()
