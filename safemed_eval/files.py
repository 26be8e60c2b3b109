"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from safemed_eval.errors import RunError

NEW = ".new"
"""Ends the name of a file that is still being written."""


def write_whole(file: Path, text: str) -> None:
    """Write all of it or nothing, and keep it through a power cut."""
    new = file.with_name(file.name + NEW)
    with new.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)


def refuse_unwritable(place: Path) -> None:
    """Raise RunError where a folder cannot be made or written, before anything is computed for it."""
    try:
        there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    except OSError as error:
        raise RunError(f"--out {place}: {error.strerror}; choose another --out") from None
    if not there.is_dir():
        raise RunError(f"--out {place}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"--out {place}: {there} cannot be written; choose another --out")
