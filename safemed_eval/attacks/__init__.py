"""Attacks: each module here whose name has no underscore is one attack of that name, with its class in `ATTACK`.

    attack = parse("pgd:eps=4/255,steps=10")
    result = attack(classify, canvas, labels, generators)

Importing this package, and parsing, costs no torch import.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from safemed_eval import grammar
from safemed_eval.attacks._base import Attack, Attacked
from safemed_eval.errors import SpecError, did_you_mean

__all__ = ["Attack", "Attacked", "names", "parse"]


def names() -> list[str]:
    """The names of all attacks, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def parse(text: str) -> Attack:
    """An attack from its spec string.

    Raises:
        SpecError: unknown name or option, or a value out of range.
    """
    name, pairs = grammar.split(text)
    if name not in names():
        raise SpecError(f"--attack {text}: unknown attack '{name}'; {did_you_mean(name, names())}")
    attack: type[Attack] = import_module(f"{__name__}.{name}").ATTACK
    return grammar.build(attack, pairs, f"--attack {name}")
