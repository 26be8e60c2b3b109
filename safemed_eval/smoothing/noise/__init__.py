"""Kinds of noise: each module here whose name has no underscore is one kind of that name, with its class in `NOISE`.

    >>> noise = parse("gaussian", sigma=0.25)
    >>> round(noise.radius(0.99), 3)
    0.582

Other packages add kinds through the entry points `safemed_eval.noises`; see `safemed_eval.plugins`. Importing this
package, and parsing, costs no torch import: reports read stored votes again.
"""

from __future__ import annotations

import pkgutil
from dataclasses import fields
from functools import cache, lru_cache
from importlib import import_module

from safemed_eval import grammar, plugins
from safemed_eval.core import DEFAULT_NOISE
from safemed_eval.errors import SpecError, canonical, did_you_mean, shortened
from safemed_eval.smoothing.noise._base import FileView, Kind, Noise, View
from safemed_eval.smoothing.noise._lattice import rounded
from safemed_eval.smoothing.noise._normal import Normal
from safemed_eval.smoothing.noise._parameter import Parameter

__all__ = ["FLOAT32", "FileView", "Kind", "Noise", "Normal", "Parameter", "View", "names", "parse", "rounded"]

FLOAT32 = "float32"
"""The noise of runs that do not say which: those of versions that knew no other."""


def names() -> list[str]:
    """The names of all kinds, those of plug-ins included, sorted."""
    return sorted({*_built_in(), *plugins.plugins("noises")})


@lru_cache(maxsize=256)
def parse(text: str, sigma: float | None) -> Kind:
    """Build the noise of a spec string such as "gaussian" or "contrast:grey=0.5".

    Args:
        sigma: standard deviation of the noise, which is an option of its own; None for a kind without any.
    Raises:
        SpecError: unknown name or option, a value out of range, or a sigma where there is none, or none where one is
            needed.
    """
    name, pairs = grammar.split(text)
    where = "--sigma" if text == DEFAULT_NOISE else f"--noise {shortened(text, 60)}"
    known = canonical(name, names())
    if known is None:
        raise SpecError(f"{where}: unknown noise '{shortened(name, 60)}'; {did_you_mean(name, names())}")
    cls = _class_of(known)
    if "sigma" in pairs:
        raise SpecError(f"{where}: sigma is an option of its own, --sigma")
    random = "sigma" in {field.name for field in fields(cls)}  # type: ignore[arg-type]
    if random and sigma is None:
        raise SpecError(f"{where}: write --sigma 0.25, say: it is the standard deviation of {cls.randomness}")
    if sigma is not None and not random:
        raise SpecError(f"{where}: has no --sigma: {cls.randomness}")
    return grammar.build(cls, pairs | ({"sigma": repr(float(sigma))} if sigma is not None else {}), where)


@cache
def _built_in() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]


def _class_of(name: str) -> type[Kind]:
    if name in _built_in():
        noise: type[Kind] = import_module(f"{__name__}.{name}").NOISE
        return noise
    loaded = plugins.load_plugin("noises", name)
    if not (isinstance(loaded, type) and issubclass(loaded, Noise)):
        raise SpecError(f"the plug-in {name} is not a subclass of safemed_eval.smoothing.Noise: {loaded!r:.60}")
    return loaded
