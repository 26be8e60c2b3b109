"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

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
