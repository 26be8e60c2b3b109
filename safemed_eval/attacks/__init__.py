"""Attacks: each module here whose name has no underscore is one attack of that name, with its class in `ATTACK`.

    >>> attack = parse("pgd:eps=4/255,steps=10")
    >>> result = attack(classify, canvas, labels, generators)

Importing this package, and parsing, costs no torch import, unless ART is asked for, which brings it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module

from safemed_eval import grammar
from safemed_eval.attacks._base import Attack, Attacked, Problem
from safemed_eval.core import Need
from safemed_eval.errors import SpecError, canonical, did_you_mean, shortened

__all__ = ["Attack", "Attacked", "Problem", "names", "needs_of", "parse", "parse_all"]


def names() -> list[str]:
    """The names of all attacks, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def parse(text: str) -> Attack:
    """An attack from its spec string.

    Raises:
        SpecError: unknown name or option, or a value out of range.
    """
    name, pairs = grammar.split(text)
    return grammar.build(_class(name, text), pairs, f"--attack {name}")


def parse_all(texts: Iterable[str]) -> list[Attack]:
    """The attacks of some spec strings, each once, in their order.

    A spec may stand for several: `corrupt:severity=3` for one of each kind.

    Raises:
        SpecError: as in `parse`.
    """
    found: dict[str, Attack] = {}
    for text in texts:
        name, pairs = grammar.split(text)
        cls = _class(name, text)
        for each in cls.spread(grammar.spelled(cls, pairs, f"--attack {name}")):
            attack = grammar.build(cls, each, f"--attack {name}")
            found.setdefault(str(attack), attack)
    return list(found.values())


def needs_of(chosen: Iterable[Attack], surrogate: str | None = None) -> dict[Need, str]:
    """What these attacks ask of the judged model, or of this surrogate, each with the first option that asks."""
    found: dict[Need, str] = {}
    for attack in chosen:
        if attack.surrogate == surrogate:
            found |= {need: f"--attack {attack}" for need in attack.needs if need not in found}
    return found


def _class(name: str, text: str) -> type[Attack]:
    module = canonical(name, names())
    if module is None:
        raise SpecError(
            f"--attack {shortened(text, 60)}: unknown attack '{shortened(name, 60)}'; {did_you_mean(name, names())}"
        )
    attack: type[Attack] = import_module(f"{__name__}.{module}").ATTACK
    return attack
