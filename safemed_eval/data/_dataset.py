"""A data set in memory, the canvas that its images are brought to, and how records become items."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safemed_eval.core import CANVAS_SIZE, Item, item_fields
from safemed_eval.data.images.files import Place, decode, fit
from safemed_eval.data.images.picture import Pixels
from safemed_eval.errors import DataError, SpecError, shortened

if TYPE_CHECKING:
    import torch

Fit = Literal["stretch", "pad"]

MAX_TEXT = 100_000
"""Characters of one text of an item. No question is longer; what is, is a broken file."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The pixel grid on which eps, sigma and radius are measured.

    `size` is (height, width), or None for each image's own size. `stretch` ignores the aspect ratio (Med-R1's
    protocol), `pad` keeps it and fills with black.
    """

    size: tuple[int, int] | None
    fit: Fit = "stretch"

    def __str__(self) -> str:
        if self.size is None:
            return "native"
        return f"{self.size[0]}x{self.size[1]} {self.fit}"


DEFAULT_CANVAS = Canvas(size=CANVAS_SIZE)


def parse_canvas(text: str | None, fit: Fit, default: Canvas) -> Canvas:
    """The canvas of `--canvas HxW|native` and `--fit`; without `--canvas`, the data set's own size."""
    if text is None:
        return replace(default, fit=fit)
    if text == "native":
        return Canvas(size=None, fit=fit)
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if not match or not all(8 <= int(side) <= 8192 for side in match.groups()):
        raise SpecError(f"--canvas {text}: write HEIGHTxWIDTH with sides of 8 to 8192, such as 384x384, or 'native'")
    return Canvas(size=(int(match[1]), int(match[2])), fit=fit)


def canvas_of(item: Item, canvas: Canvas) -> torch.Tensor:
    """The item's image on its canvas: (3, H, W) float32 in [0, 1], on 8-bit grey levels, on the CPU.

    Raises:
        DataError: the file is missing, leaves its root or cannot be decoded.
    """
    import torch

    return torch.from_numpy(_fitted(item, canvas)).permute(2, 0, 1).float() / 255


def pixels_of(item: Item) -> Pixels:
    """The item's image at its own size: (H, W, 3) uint8. Raises like `canvas_of`."""
    return item.drawn() if item.drawn else _unchanged(inside_root(item), item.image_sha256)


def _fitted(item: Item, canvas: Canvas) -> Pixels:
    # At their own size images may be huge, and are not kept; what is drawn is drawn again.
    if item.drawn or not canvas.size:
        return fit(pixels_of(item), canvas.size, canvas.fit).copy()
    return _cached(inside_root(item), item.image_sha256, canvas)


@lru_cache(maxsize=64)
def _cached(place: Place, sha256: str | None, canvas: Canvas) -> Pixels:
    """The questions about one image, and the attacks on it, tend to follow each other."""
    return fit(_unchanged(place, sha256), canvas.size, canvas.fit).copy()


def _unchanged(place: Place, sha256: str | None) -> Pixels:
    """Decode; refuse a file that is no longer the one that was verified."""
    path, frame = place
    if sha256 is not None:
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from None
        if found != sha256:
            raise DataError(f"the image has changed since the run began: {path}")
    return decode(path, frame).pixels


def inside_root(item: Item) -> Place:
    """Where the image is. Its path is refused if it is absolute or leaves its root, through `..` or a link.

    `scan.dcm#7` is the seventh frame of `scan.dcm`, unless there is a file of that very name.
    """
    named, frame = item.path, _frame_of(item.image)
    try:
        if frame is not None and not named.is_file():
            named = item.root / item.image.rpartition("#")[0]
        else:
            frame = None
        root, path = item.root.resolve(), named.resolve()
        found = path.is_file()
    except (OSError, RuntimeError) as error:  # a loop of links, a name that is too long
        raise DataError(f"image path cannot be followed: '{shortened(item.image)}': {_why(error)}") from None
    if not path.is_relative_to(root):
        raise DataError(f"image path leaves the data root: '{item.image}'")
    if not found:
        raise DataError(f"image not found: {item.path}")
    return Place(path, frame)


def _frame_of(image: str) -> int | None:
    """7 of "scan.dcm#7"; None where no frame is named."""
    match = re.search(r".#([0-9]{1,9})$", image)
    return int(match[1]) if match else None


def _why(error: Exception) -> str:
    """Without the path, which may be endless."""
    return getattr(error, "strerror", None) or shortened(str(error))


@dataclass(frozen=True, kw_only=True)
class Bad:
    """An item that cannot be used, why, and its slices where they are known."""

    id: str
    reason: str
    modality: str | None = None
    question_type: str | None = None

    def __str__(self) -> str:
        return f"{self.id}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Items that can be used, items that cannot, and the canvas that belongs to this data."""

    items: tuple[Item, ...]
    bad: tuple[Bad, ...] = ()
    canvas: Canvas = DEFAULT_CANVAS
    notes: Mapping[str, int] = field(default_factory=dict)
    """What was done to how many images on the way to 8-bit RGB, e.g. {"16-bit greys scaled to 8 bits": 3}."""
    sampled: str | None = None
    """How the items were drawn from the whole, in words; None when all are taken."""

    @property
    def sha256(self) -> str:
        """Identity of what is asked: ids, questions, gold answers, slices and image bytes, in order."""
        digest = hashlib.sha256()
        for item in self.items:
            q = item.question
            row = (item.id, q.text, q.options, item.label, item.modality, item.question_type)
            frame = _frame_of(item.image)
            image = item.image_sha256 if frame is None else f"{item.image_sha256}#{frame}"
            digest.update(json.dumps([*row, item.patient_id, image]).encode())
        return digest.hexdigest()


_ALIKE = 3
"""Notes that differ in numbers alone and are named."""
_LONGEST_REASON = 600
"""In characters: a reason may quote what the file says."""


class Builder:
    """Collects a loader's records: each becomes an item, or is named as bad with its reason."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.bad: list[Bad] = []
        self._seen: set[str] = set()

    def add(
        self,
        id: str,
        make: Callable[[], Item],
        *,
        modality: str | None = None,
        question_type: str | None = None,
    ) -> None:
        """Add the item that `make` returns, or name the record as bad if it raises DataError."""
        try:
            if id in self._seen:
                raise DataError("the id occurs twice; only the first of them is used")
            self._seen.add(id)
            item = make()
            fields = item_fields(item)
            json.dumps(fields, ensure_ascii=False).encode()
            _refuse_endless(fields)
            self.items.append(item)
        except UnicodeEncodeError:
            name = shortened(repr(id)[1:-1])
            self.bad.append(Bad(id=name, reason="its text holds half a character (a lone surrogate)"))
        except DataError as error:
            about = {"id": shortened(id), "reason": shortened(str(error), _LONGEST_REASON)}
            self.bad.append(Bad(**about, modality=_not_endless(modality), question_type=_not_endless(question_type)))

    def done(self) -> DataSet:
        return DataSet(items=tuple(self.items), bad=tuple(self.bad))


def _refuse_endless(fields: Mapping[str, Any]) -> None:
    """Raise DataError where one of the fields is, or holds, a text that is too long."""
    for name, value in fields.items():
        texts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
        if longest > MAX_TEXT:
            raise DataError(f"the {name.replace('_', ' ')} has {longest:,} characters, over the limit of {MAX_TEXT:,}")


def _not_endless(name: str | None) -> str | None:
    return None if name is None or len(name) > MAX_TEXT else name


def image_path(value: Any, root: Path) -> str:
    """A record's image path, relative to the root; an absolute one must lie in it. Raises DataError."""
    if not (isinstance(value, str) and value.strip()):
        raise DataError("no image path")
    if "\0" in value:
        raise DataError(f"not an image path: {value!r}")
    if not Path(value).is_absolute():
        return value
    if not Path(value).is_relative_to(root.absolute()):
        raise DataError(f"image path '{value}' is not inside {root.absolute()}; name its folder with --data-root")
    return str(Path(value).relative_to(root.absolute()))


def count_notes(notes: Iterable[str]) -> dict[str, int]:
    """How often each note occurs, most frequent first.

    Of notes that differ in their numbers alone, such as windows, at most three are named; the rest are one.
    """
    alike: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for note, count in Counter(notes).most_common():
        alike[re.sub(r"-?[0-9.]+(e[+-]?[0-9]+)?", "#", note)].append((note, count))
    counts = Counter[str]()
    for found in alike.values():
        counts.update(dict(found[:_ALIKE]))
        if rest := found[_ALIKE:]:
            counts[f"{len(rest)} more like '{found[0][0]}'"] = sum(count for _, count in rest)
    return dict(counts.most_common())
