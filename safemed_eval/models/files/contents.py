"""Read and hash the files that define a model: settings, weights, and Python modules. No torch here."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safemed_eval.errors import CheckpointError, SafemedError, did_you_mean
from safemed_eval.faults import place_of


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What the user allows when files are looked for and read.

    Args:
        trust_remote_code: run Python code that comes with a checkpoint.
        allow_pickle: read pickled files, which can run code.
        offline: download nothing.
        base: the checkpoint below an adapter, in place of the one that its settings name.
    """

    trust_remote_code: bool = False
    allow_pickle: bool = False
    offline: bool = False
    base: str | None = None


Json = dict[str, Any]
"""A JSON object."""

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""A checkpoint's single file of weights, and the index of several. If both are there, transformers reads the first."""
_TORN = "index and shards are of two checkpoints: download them again, or save them anew"
_LFS_POINTER = b"version "
_LONGEST_HEADER = 100_000_000
"""The longest header of a safetensors file, in bytes, that its own library reads."""


def read_json(file: Path) -> Json:
    """Read the object in a JSON file; raises CheckpointError if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: expected an object")
    return content


def refuse_damaged(file: Path) -> None:
    """Raise CheckpointError if a safetensors file is cut off, or is something else, judging by its header and size.

    Source:
        The format (huggingface/safetensors): eight bytes, the length of the header; the header, a JSON object that
        names for each tensor the place of its bytes after the header.
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
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError):
        raise CheckpointError(f"{file}: is no safetensors file; download it again, or save it as one") from None
    if size < end:
        raise CheckpointError(f"{file}: is cut off, it holds {size:,} of {end:,} bytes; download it again")


def tensor_names(file: Path) -> list[str]:
    """Names of the tensors in a safetensors file that is not damaged."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return [name for name in header if name != "__metadata__"]


def shards(folder: Path) -> list[Path]:
    """The files that the index of a checkpoint's folder names, in order; none if it has no index.

    Raises:
        CheckpointError: the index cannot be read, or names files that are not there.
    """
    index = folder / INDEX
    if not index.is_file():
        return []
    weights = read_json(index).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(shard, str) for shard in weights.values()):
        raise CheckpointError(f"{index}: its weight_map does not name a file for each weight")
    named = sorted(set(weights.values()))
    if strange := [shard for shard in named if Path(shard).name != shard]:
        raise CheckpointError(f"{index}: its weight_map names {strange[0]}, which is not a file beside it")
    if missing := [shard for shard in named if not (folder / shard).is_file()]:
        raise CheckpointError(f"{folder}: incomplete, {len(missing)} weight files are missing: {missing[0]}")
    return [folder / shard for shard in named]


def refuse_other_index(folder: Path) -> None:
    """Raise CheckpointError if an index and its shards, none of them damaged, do not hold the same tensors."""
    if not (files := shards(folder)):
        return
    if (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: holds {WEIGHTS} and {INDEX}, which are two checkpoints; remove the one that is not meant"
        )
    holders: dict[str, Path] = {}
    for file in files:
        for name in tensor_names(file):
            if name in holders:
                raise CheckpointError(
                    f"{folder}: the tensor {name} is in {holders[name].name} and in {file.name}, of which one would be "
                    "left out; save the checkpoint anew"
                )
            holders[name] = file
    named = read_json(folder / INDEX)["weight_map"]
    if absent := sorted(named.keys() - holders.keys()):
        raise CheckpointError(
            f"{folder / INDEX}: names {len(absent)} tensors that no shard holds, such as {absent[0]} in "
            f"{named[absent[0]]}; {_TORN}"
        )
    if unnamed := sorted(holders.keys() - named.keys()):
        raise CheckpointError(
            f"{folder / INDEX}: does not name {len(unnamed)} tensors that its shards hold, such as {unnamed[0]} in "
            f"{holders[unnamed[0]].name}; {_TORN}"
        )


def hash_files(files: Iterable[Path]) -> str:
    """sha256 over the names and contents of the files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(set(files)):
        digest.update(f"{file.name}\n{hash_file(file)}\n".encode())
    return digest.hexdigest()


def hash_file(file: Path) -> str:
    """sha256 over the content of a file, without its name."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def factory_identity(name: str) -> Json:
    """The name `python:module:factory`, and the hash of the module's file; None if there is no such file.

    Other files that the factory reads are not known.
    """
    look_here_for_modules()
    try:
        spec = find_spec(name.split(":")[1])
    except ModuleNotFoundError:
        spec = None
    file = Path(spec.origin) if spec and spec.origin else None
    return {"factory": name, "module_sha256": hash_files([file]) if file and file.is_file() else None}


def look_here_for_modules() -> None:
    """Let Python modules be found in the current folder, too."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def one_line(error: Exception) -> str:
    """An exception of a library in one line, for a message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def import_function(name: str, error: type[SafemedError], *, option: str) -> Callable[..., object]:
    """Import the function that `python:module:function` names; modules are looked up from the current folder, too.

    Args:
        error: raised, with `option` at its beginning, where there is no such module or function.
    """
    _, module_name, function_name = name.split(":")
    look_here_for_modules()
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as missing:
        raise error(f"{option} {name}: {missing}; it is looked up from {Path.cwd()}") from None
    except (Exception, SystemExit) as broken:
        raise error(f"{option} {name}: '{module_name}' cannot be imported: {place_of(broken)}") from broken
    function: object = getattr(module, function_name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise error(
            f"{option} {name}: '{module_name}' has no function '{function_name}'; {did_you_mean(function_name, known)}"
        )
    return function
