"""The kinds of data that `--data` names: the modules of `sources`, and plug-ins of the group `safemed_eval.data`.

A kind is a module, or any object, with one of two functions: `load(place, root)` reads files, `make(options)` makes
its data from the options behind the colon. See `sources` on how to write one.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from safemed_eval.core import Item
from safemed_eval.data import sources
from safemed_eval.data.dataset import DataSet
from safemed_eval.errors import DataError, SpecError, canonical, did_you_mean, shortened
from safemed_eval.plugins import load_plugin, plugins


@runtime_checkable
class Reads(Protocol):
    """A kind of data that is read from files."""

    def load(self, place: Path, root: Path | None) -> DataSet:
        """Read the questions; images are not opened yet.

        Args:
            place: an existing file or folder.
            root: folder that image paths are relative to, where it is not the data's own.
        Raises:
            DataError: nothing readable at the place.
        """
        ...


@runtime_checkable
class Makes(Protocol):
    """A kind of data that is made, not read."""

    def make(self, options: str) -> DataSet:
        """Make the data of these options, the text behind `KIND:`, in lower case.

        Raises:
            SpecError: an option is unknown or wrong.
        """
        ...


@runtime_checkable
class Draws(Makes, Protocol):
    """A kind of data that is made, and whose images are drawn by a program: they show nobody, and are known by name."""

    def draws(self, options: str, item: Item) -> bool:
        """True if the data of these options include this item's image.

        Raises:
            SpecError: an option is unknown or wrong.
        """
        ...

    def for_tests(self, options: str) -> bool:
        """True if checkpoints are compared on the data of these options: nothing may be trained on them.

        Raises:
            SpecError: an option is unknown or wrong.
        """
        ...


def kinds() -> list[str]:
    """The kinds of data that `--data` can name: KIND:PATH, or KIND alone for one that is made, not read."""
    return sorted({*_built_in(), *plugins("data")})


def is_made(kind: str) -> bool:
    """True if the kind is made, not read from files."""
    name = canonical(kind, kinds())
    return name is not None and isinstance(_imported(name), Makes)


def drawer_of(spec: str) -> tuple[Draws, str] | None:
    """The kind that draws the images of `KIND:OPTIONS`, with its options; None where images are no drawings."""
    kind, _, options = spec.partition(":")
    source = _imported(kind) if kind in kinds() else None
    return (source, options) if isinstance(source, Draws) else None


def spelled(spec: str) -> str:
    """Return `KIND:PATH` in the kind's own spelling; the options of a made kind are in lower case."""
    kind, colon, rest = spec.partition(":")
    name = canonical(kind, kinds())
    if name is None:
        return spec
    return f"{name}{colon}{rest.lower() if is_made(name) else rest}"


def load(spec: str, root: Path | None = None) -> DataSet:
    """Read the questions of `kind:path`, or make those of a kind that is made; images are not opened yet.

    Args:
        root: folder that image paths are relative to, where it is not the data set's own.
    Raises:
        SpecError: unknown kind. DataError: nothing readable at the path.
    """
    kind, colon, path = spelled(spec).partition(":")
    if not colon and kind not in kinds() and Path(spec).expanduser().exists():
        readers = ", ".join(f"{name}:{spec}" for name in kinds() if not is_made(name))
        raise SpecError(f"--data {spec}: say what it is, {readers}")
    if kind not in kinds():
        raise SpecError(f"--data {spec}: unknown kind '{kind}'; {did_you_mean(kind, kinds())}")
    source = _imported(kind)
    if isinstance(source, Makes):
        if root is not None:
            raise SpecError(f"--data-root has no effect on --data {kind}")
        return source.make(path)
    if not path:
        raise SpecError(f"--data {spec}: needs a path, --data {kind}:PATH")
    place = Path(path).expanduser()
    try:
        there = place.exists()
    except (OSError, ValueError) as error:  # a name that is too long, or holds the character NUL
        raise DataError(f"--data {shortened(spec)}: {getattr(error, 'strerror', None) or error}") from None
    if not there:
        raise DataError(f"--data {spec}: no such file or folder: {place}")
    if root is not None and not root.is_dir():
        raise DataError(f"--data-root {root}: no such folder")
    data = source.load(place, root)
    if not data.items and not data.bad:
        raise DataError(f"--data {spec}: found no questions in {place}")
    return data


def load_readable(spec: str, root: Path | None = None) -> DataSet:
    """Load the data set as `load` does, and raise DataError if no question of it can be read."""
    data = load(spec, root)
    if not data.items:
        raise DataError(f"{spec}: none of its {len(data.bad)} questions can be read: {data.bad[0]}")
    return data


def _built_in() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(sources.__path__) if not module.name.startswith("_")]


def _imported(kind: str) -> Reads | Makes:
    built_in = kind in _built_in()
    source: object = import_module(f"{sources.__name__}.{kind}") if built_in else load_plugin("data", kind)
    if not isinstance(source, Reads | Makes):
        raise SpecError(f"--data {kind}: this plug-in has neither load(place, root) nor make(options)")
    return source
