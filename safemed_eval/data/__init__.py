"""Data sets: each module of `sources` that has a `load` or a `make` function is one kind of `--data`.

    >>> data = load("phantom")             # or "omnimedvqa:/data/OmniMedVQA"
    >>> data = select(data, per_group=3, seed=0)
    >>> data = verify(data)                # reads every image once; what is bad is named

No torch here: a wrong path or a broken image is told before anything heavy starts.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path

from safemed_eval.data import sources
from safemed_eval.data._dataset import DEFAULT_CANVAS, Bad, Canvas, DataSet, Fit, canvas_of, parse_canvas, pixels_of
from safemed_eval.data._export import export
from safemed_eval.data._order import reordered, rotation, shuffled
from safemed_eval.data._select import select
from safemed_eval.data.audit.cues import Cue, cues
from safemed_eval.data.audit.look import look_at_all
from safemed_eval.data.audit.near import NEAR
from safemed_eval.data.audit.seen import Training, overlap, overlap_sentences, write_seen
from safemed_eval.data.audit.sets import Audit, Counts, SharedImage, SharedPatient, Side
from safemed_eval.data.images.reader import Canvases, Reader
from safemed_eval.data.images.verify import verify
from safemed_eval.errors import DataError, SpecError, canonical, did_you_mean

__all__ = [
    "DEFAULT_CANVAS",
    "NEAR",
    "Audit",
    "Bad",
    "Canvas",
    "Canvases",
    "Counts",
    "Cue",
    "DataSet",
    "Fit",
    "Reader",
    "SharedImage",
    "SharedPatient",
    "Side",
    "Training",
    "canvas_of",
    "cues",
    "export",
    "is_made",
    "kinds",
    "load",
    "look_at_all",
    "overlap",
    "overlap_sentences",
    "parse_canvas",
    "pixels_of",
    "reordered",
    "rotation",
    "select",
    "shuffled",
    "spelled",
    "verify",
    "write_seen",
]


def kinds() -> list[str]:
    """The kinds of data that `--data` can name: KIND:PATH, or KIND alone for one that is made, not read."""
    return sorted(m.name for m in pkgutil.iter_modules(sources.__path__) if not m.name.startswith("_"))


def is_made(kind: str) -> bool:
    """Whether this kind has no files: its module has `make(options)` instead of `load(place, root)`."""
    found = canonical(kind, kinds())
    return found is not None and hasattr(import_module(f"{sources.__name__}.{found}"), "make")


def spelled(spec: str) -> str:
    """`KIND:PATH` with the kind's own spelling, and the options of a made kind in lower case, as all of them are."""
    kind, colon, rest = spec.partition(":")
    found = canonical(kind, kinds())
    if found is None:
        return spec
    return f"{found}{colon}{rest.lower() if is_made(found) else rest}"


def load(spec: str, root: Path | None = None) -> DataSet:
    """Read the questions of `kind:path`, or make those of a built-in kind; images are not opened yet.

    Args:
        root: folder that image paths are relative to, where it is not the data set's own.
    Raises:
        SpecError: unknown kind. DataError: nothing readable at the path.
    """
    kind, colon, path = spelled(spec).partition(":")
    if not colon and kind not in kinds() and Path(spec).expanduser().exists():
        known = ", ".join(f"{kind}:{spec}" for kind in kinds() if not is_made(kind))
        raise SpecError(f"--data {spec}: say what it is, {known}")
    if kind not in kinds():
        raise SpecError(f"--data {spec}: unknown kind '{kind}'; {did_you_mean(kind, kinds())}")
    module = import_module(f"{sources.__name__}.{kind}")
    if is_made(kind):
        if root is not None:
            raise SpecError(f"--data-root has no effect on --data {kind}")
        made: DataSet = module.make(path)
        return made
    if not path:
        raise SpecError(f"--data {spec}: needs a path, --data {kind}:PATH")
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(f"--data {spec}: no such file or folder: {place}")
    if root is not None and not root.is_dir():
        raise DataError(f"--data-root {root}: no such folder")
    data: DataSet = module.load(place, root)
    if not data.items and not data.bad:
        raise DataError(f"--data {spec}: found no questions in {place}")
    return data
