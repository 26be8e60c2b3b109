"""Attacks: each module here whose name has no underscore is one attack of that name, with its class in `ATTACK`.

    >>> attack = parse("pgd:eps=4/255,steps=10")
    >>> result = attack(classify, canvas, labels, generators)

Other packages add attacks through the entry points `safemed_eval.attacks`; see `safemed_eval.plugins`. Importing this
package, and parsing, costs no torch import, unless ART is asked for, which brings it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module

from safemed_eval import grammar, plugins
from safemed_eval.attacks._common.base import Attack, BallAttack, Facts, Role
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.core import UNATTACKED, Need
from safemed_eval.errors import SpecError, canonical, did_you_mean, shortened

__all__ = [
    "Attack",
    "Attacked",
    "BallAttack",
    "Facts",
    "Problem",
    "example_of",
    "facts_of",
    "help_text",
    "name_of",
    "names",
    "needs_of",
    "parse",
    "parse_all",
]


def names() -> list[str]:
    """The names of all attacks, those of plug-ins included, sorted."""
    return sorted({*_built_in(), *plugins.plugins("attacks")})


def parse(text: str) -> Attack:
    """Build an attack from its spec string.

    Raises:
        SpecError: unknown name or option, or a value out of range.
    """
    name, pairs = grammar.split(text)
    return grammar.build(_class_for(name, text), pairs, f"--attack {name}")


def parse_all(texts: Iterable[str]) -> list[Attack]:
    """Build the attacks of several spec strings, each once, in their order.

    A spec may stand for several: `corrupt:severity=3` for one of each kind.

    Raises:
        SpecError: as in `parse`.
    """
    parsed: dict[str, Attack] = {}
    for text in texts:
        name, pairs = grammar.split(text)
        cls = _class_for(name, text)
        for options in cls.spread(grammar.spelled(cls, pairs, f"--attack {name}")):
            attack = grammar.build(cls, options, f"--attack {name}")
            parsed.setdefault(str(attack), attack)
    return list(parsed.values())


def needs_of(chosen: Iterable[Attack], surrogate: str | None = None) -> dict[Need, str]:
    """The needs of these attacks of the judged model, or of this surrogate, each with the first option that has it."""
    needs: dict[Need, str] = {}
    for attack in chosen:
        if surrogate in (attack.surrogates or (None,)):
            needs |= {need: f"--attack {attack}" for need in attack.needs if need not in needs}
    return needs


def facts_of(condition: str, described: Mapping[str, object]) -> Facts:
    """Facts about one condition of a run, read from what the run folder stores.

    Args:
        condition: the spec string, or one of the conditions of UNATTACKED.
        described: the attack's entry in the run's spec, see `Attack.described`; empty for OFFICIAL and CIRCULAR.
    Returns:
        The facts that the attack's class declares, completed with its size, family and target. An attack that is not
        installed here counts as one on the letter, without a place in the order of strengths.
    """
    if condition in UNATTACKED:
        return Facts(role="clean", aims_at=None, family=condition)
    name, pairs = grammar.split(condition)
    declared = _declared_by(name)
    eps, severity = described.get("eps"), described.get("severity")
    targeted = described.get("target", "none") != "none"
    rest = grammar.parts({key: value for key, value in pairs.items() if key not in ("eps", "norm")})
    return replace(
        declared,
        role="control" if pairs.get("control") == "yes" else declared.role,
        strength=None if targeted else declared.strength,
        black_box=declared.black_box or described.get("needs_gradients") is False,
        family=f"{name}:{','.join(rest)}".rstrip(":"),
        norm="l2" if described.get("norm") == "l2" else "linf",
        eps=float(eps) if isinstance(eps, (int, float)) else None,
        targeted=targeted,
        region=str(described["region"]) if described.get("region") else None,
        kind=str(described["kind"]) if "kind" in described else None,
        severity=severity if isinstance(severity, int) else None,
        set=str(described["set"]) if "set" in described else None,
    )


def example_of(*, role: Role = "attack", strength: int | None = None, on_surrogate: bool = False) -> str:
    """The example spec of the first built-in attack with these facts, as advice names it: `example_of(strength=1)`.

    Args:
        strength: any, where it is None.
    """
    return next(
        facts.example
        for facts in _in_order()
        if (facts.role, facts.on_surrogate) == (role, on_surrogate) and strength in (None, facts.strength)
    )


def name_of(*, role: Role = "attack", strength: int | None = None, on_surrogate: bool = False) -> str:
    """The name alone of the attack of `example_of`."""
    return grammar.split(example_of(role=role, strength=strength, on_surrogate=on_surrogate))[0]


def help_text() -> str:
    """The attacks by their example specs, weak ones first. Plug-ins are named, and not imported for it."""
    shown = [f"{facts.example} ({facts.summary})" if facts.summary else facts.example for facts in _in_order()]
    return "; ".join([*shown, *(f"{name} (a plug-in)" for name in names() if name not in _built_in())])


def _in_order() -> list[Facts]:
    """The facts of the built-in attacks: attacks by strength, then those without a place, controls and corruptions."""
    declared = [_class_of(name).facts for name in sorted(_built_in(), key=len) if name not in UNATTACKED]
    unplaced = max(facts.strength or 0 for facts in declared) + 1
    roles = ("attack", "control", "corruption", "prompt")
    return sorted(
        declared,
        key=lambda facts: (roles.index(facts.role), unplaced if facts.strength is None else facts.strength),
    )


@cache
def _built_in() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]


def _class_for(name: str, text: str) -> type[Attack]:
    """The class of the attack that a spec names, in whatever case."""
    known = canonical(name, names())
    if known is None:
        raise SpecError(
            f"--attack {shortened(text, 60)}: unknown attack '{shortened(name, 60)}'; {did_you_mean(name, names())}"
        )
    return _class_of(known)


def _class_of(name: str) -> type[Attack]:
    if name in _built_in():
        attack: type[Attack] = import_module(f"{__name__}.{name}").ATTACK
        return attack
    loaded = plugins.load_plugin("attacks", name)
    if not (isinstance(loaded, type) and issubclass(loaded, Attack)):
        raise SpecError(f"the plug-in {name} is not a subclass of safemed_eval.attacks.Attack: {loaded!r:.60}")
    return loaded


def _declared_by(name: str) -> Facts:
    """The facts that an attack's class declares; the defaults where it is not installed, or not importable."""
    try:
        return _class_of(name).facts if name in names() else Facts()
    except SpecError:
        return Facts()
