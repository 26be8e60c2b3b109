"""Atomic writing of files, and an early check that a folder can be written."""

from __future__ import annotations

import os
from pathlib import Path

from safemed_eval.errors import RunError

NEW = ".new"
"""Suffix of a file that is still being written."""


def write_whole(file: Path, text: str) -> None:
    """Write a file atomically, and force it to the disk so that it survives a power failure."""
    new = file.with_name(file.name + NEW)
    with new.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)


def refuse_unwritable(place: Path) -> None:
    """Raise RunError, before anything is computed, if the folder cannot be created or written."""
    try:
        nearest = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    except OSError as error:
        raise RunError(f"--out {place}: {error.strerror}; choose another --out") from None
    if not nearest.is_dir():
        raise RunError(f"--out {place}: {nearest} is a file, not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RunError(f"--out {place}: {nearest} cannot be written; choose another --out")
