"""Files and modules that make a model what it is: read, and hashed. No torch here."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safemed_eval.errors import CheckpointError

_LFS_POINTER = b"version "
_LONGEST_HEADER = 100_000_000
"""Of a safetensors file, in bytes: what its own library reads."""


def read_json(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds, or CheckpointError."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: expected an object")
    return content


def refuse_damaged(file: Path) -> None:
    """Raise CheckpointError where a safetensors file is cut off, or is something else: told by its header and size.

    Source:
        The format (huggingface/safetensors): eight bytes, the length of the header; the header, a JSON object that
        names for each tensor where its bytes lie behind the header.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = int.from_bytes(head, "little")
        header = stream.read(length) if length <= _LONGEST_HEADER else b""
    if not size:
        raise CheckpointError(f"{file}: is empty; download it again")
    if head == _LFS_POINTER:
        raise CheckpointError(f"{file}: is a pointer of git-lfs, not the weights; fetch them with git lfs pull")
    if length <= _LONGEST_HEADER and len(header) < length:
        raise CheckpointError(f"{file}: is cut off inside its header; download it again")
    try:
        tensors = [about for name, about in json.loads(header).items() if name != "__metadata__"]
        end = 8 + length + max((int(about["data_offsets"][1]) for about in tensors), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise CheckpointError(f"{file}: is no safetensors file; download it again, or save it as one") from None
    if size < end:
        raise CheckpointError(f"{file}: is cut off, it holds {size:,} of {end:,} bytes; download it again")


def hash_files(files: Iterable[Path]) -> str:
    """sha256 over the names and contents of the files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(set(files)):
        digest.update(f"{file.name}\n{hash_file(file)}\n".encode())
    return digest.hexdigest()


def hash_file(file: Path) -> str:
    """sha256 over the content of a file, whatever its name."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def factory_identity(name: str) -> dict[str, Any]:
    """Of `python:module:factory`: the name, and the hash of the module's file; None where there is no such file.

    What the factory reads from elsewhere is not known here.
    """
    look_here_for_modules()
    try:
        spec = find_spec(name.split(":")[1])
    except ModuleNotFoundError:
        spec = None
    file = Path(spec.origin) if spec and spec.origin else None
    return {"factory": name, "module_sha256": hash_files([file]) if file and file.is_file() else None}


def look_here_for_modules() -> None:
    """Python modules are looked up from the current folder too."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def one_line(error: Exception) -> str:
    """What a library raised over a file, for a message of ours."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
