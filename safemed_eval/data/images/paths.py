"""Paths of images: they stay inside the data root, and may name a frame, such as `scan.dcm#7`."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from safemed_eval.core import Item
from safemed_eval.errors import DataError, shortened


class Place(NamedTuple):
    """An image file, and which of its frames, counted from 1; None: the middle one."""

    path: Path
    frame: int | None = None


def inside_root(item: Item) -> Place:
    """Locate the item's image file.

    `scan.dcm#7` is the seventh frame of `scan.dcm`, unless a file has that very name. Where no file has a name as it is
    written, its accents may be encoded in another way, and backslashes may separate its folders.

    Raises:
        DataError: no such file, or a path that leaves its root: an absolute one, or one through `..` or a link.
    """
    frame = frame_of(item.image)
    try:
        named = _existing(item.root, item.image)
        if named is None and frame is not None:
            named = _existing(item.root, item.image.rpartition("#")[0])
        else:
            frame = None
        named = named or item.path
        root, path = item.root.resolve(), named.resolve()
        exists = path.is_file()
    except (OSError, RuntimeError) as error:  # a loop of links, a name that is too long
        reason = getattr(error, "strerror", None) or shortened(str(error))  # without the path, which may be endless
        raise DataError(f"image path cannot be followed: '{shortened(item.image)}': {reason}") from None
    if not path.is_relative_to(root):
        raise DataError(f"image path leaves the data root: '{item.image}'")
    if not exists:
        raise DataError(f"image not found: {item.path}")
    return Place(path, frame)


def _existing(root: Path, image: str) -> Path | None:
    """The file that is meant by this path; None if there is none."""
    slashed = image.replace("\\", "/")
    names = [image, *(unicodedata.normalize(form, name) for name in (image, slashed) for form in ("NFC", "NFD"))]
    return next((root / name for name in names if (root / name).is_file()), None)


def frame_of(image: str) -> int | None:
    """7 for "scan.dcm#7"; None where no frame is named."""
    match = re.search(r".#([0-9]{1,9})$", image)
    return int(match[1]) if match else None


def image_path(value: object, root: Path) -> str:
    """A record's image path, relative to the root.

    Raises:
        DataError: the value is no path, or an absolute one outside the root.
    """
    if not (isinstance(value, str) and value.strip()):
        raise DataError("no image path")
    if "\0" in value:
        raise DataError(f"not an image path: {value!r}")
    if not Path(value).is_absolute():
        return value
    if not Path(value).is_relative_to(root.absolute()):
        raise DataError(f"image path '{value}' is not inside {root.absolute()}; name its folder with --data-root")
    return str(Path(value).relative_to(root.absolute()))
