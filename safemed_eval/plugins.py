"""Plug-ins: attacks, data formats, models and figures that other packages add through entry points.

A package names what it adds in its own pyproject.toml, under one of five groups:

    [project.entry-points."safemed_eval.attacks"]
    spiral = "my_package.spiral:Spiral"

`safemed_eval.attacks` holds subclasses of `attacks.Attack`, `.data` modules with a `load` or a `make` function,
`.models` kinds of models, `.noises` subclasses of `smoothing.Noise`, `.figures` functions that draw. `examples/plugin`
has one of each.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from safemed_eval.errors import SpecError

Group = Literal["attacks", "data", "models", "noises", "figures"]


@cache
def plugins(group: Group) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, without importing them."""
    return {point.name: point for point in entry_points(group=f"safemed_eval.{group}")}


def load_plugin(group: Group, name: str) -> Any:
    """Import the object that a plug-in registers under this name.

    Raises:
        SpecError: the plug-in cannot be imported.
    """
    point = plugins(group)[name]
    try:
        return point.load()
    except Exception as error:
        package = point.dist.name if point.dist else point.value
        raise SpecError(
            f"the plug-in {name} of {package} ({point.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
