"""A run's conditions as reports speak of them: their names, their roles, and the strongest attack."""

from __future__ import annotations

from safemed_eval import grammar
from safemed_eval.attacks import facts_of
from safemed_eval.report.findings.attack_sizes import sized_attacks
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.summary import AnsweredBy

_ACRONYM = 4


def role_of(condition: str) -> str:
    """The role of a condition, or of a family of attacks."""
    return facts_of(condition, {}).role


def is_control(condition: str) -> bool:
    """Tell whether a condition is the random control of an attack."""
    return role_of(condition) == "control"


def words(condition: str) -> str:
    """Write a condition as a legend does: "ABC eps=4/255, steps=10" for "abc:eps=4/255,steps=10"."""
    name, pairs = grammar.split(condition)
    # Short names of attacks are acronyms.
    spoken = name.upper() if len(name) <= _ACRONYM else name
    return f"{spoken} {', '.join(grammar.parts(pairs))}".rstrip()


def strongest(run: LoadedRun, numbers: AnsweredBy) -> str | None:
    """The attack that leaves the lowest accuracy, failed items aside; one of huge eps only where there is no other."""
    left: dict[str, float] = {}
    for name in run.conditions:
        cell = numbers[name]
        share = cell.without_failed.share if cell.without_failed else cell.share
        if role_of(name) == "attack" and share is not None:
            left[name] = share
    huge = {attack.condition for attack in sized_attacks(run) if attack.is_huge}
    return min(left.keys() - huge or left, key=lambda name: (left[name], name), default=None)
