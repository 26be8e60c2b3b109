"""What `--model` names, checked as far as files can tell before torch is imported."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safemed_eval.errors import CheckpointError, SpecError

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_CONFIG_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.py")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model's name, its kind and its files."""

    name: str
    """As the user wrote it."""
    kind: Literal["checkpoint", "python"]
    folder: Path | None = None
    """The checkpoint's folder; of a hub id, its snapshot in the local cache."""
    base: Source | None = None
    """The checkpoint that a PEFT adapter in `folder` belongs to."""
    commit: str | None = None
    """The resolved commit of a hub id."""
    trust_remote_code: bool = False
    allow_pickle: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """Hashes of weights and of all that decides how they are used; reads the files once through.

        A model from Python has no weights file that we know of: the hash of its module's file stands in.
        """
        if self.folder is None:
            return {"factory": self.name, "module_sha256": _module_hash(self.name)}
        weights = [*self.folder.glob("*.safetensors"), *(self._pickles() if self.allow_pickle else [])]
        settings = [file for pattern in _CONFIG_FILES for file in self.folder.glob(pattern)]
        found: dict[str, Any] = {
            "weights_sha256": _hash(weights),
            "settings_sha256": _hash(settings),
        }
        if self.base:
            found["base"] = self.base.identity
        return found

    def _pickles(self) -> list[Path]:
        return [file for pattern in _PICKLES for file in (self.folder or Path()).glob(pattern)]


def resolve(name: str, *, trust_remote_code: bool = False, allow_pickle: bool = False) -> Source:
    """Find out what `name` is: a checkpoint folder, an adapter folder, `org/model[@revision]`, or
    `python:module:factory`.

    A hub id is downloaded (weights in safetensors and settings only) unless it is in the local cache.

    Raises:
        SpecError: not a name of any kind. CheckpointError: the folder lacks something that it needs.
    """
    trust = {"trust_remote_code": trust_remote_code, "allow_pickle": allow_pickle}
    if name.startswith("python:"):
        if not re.fullmatch(r"python:[\w.]+:\w+", name):
            raise SpecError(f"--model {name}: write python:package.module:factory")
        return Source(name=name, kind="python")
    folder, commit = Path(name).expanduser(), None
    if not folder.is_dir():
        if folder.exists():
            raise SpecError(f"--model {name}: is a file; name the checkpoint's folder")
        if not _HUB_ID.fullmatch(name) or name.startswith((".", "/", "~")):
            raise SpecError(f"--model {name}: no such folder, and not a hub id like org/model")
        folder, commit = _snapshot(name, trust_remote_code, allow_pickle)
    base = None
    if (folder / "adapter_config.json").is_file():
        base_name = _json(folder / "adapter_config.json").get("base_model_name_or_path")
        if not base_name:
            raise CheckpointError(f"{folder}: adapter_config.json names no base_model_name_or_path")
        base = resolve(str(base_name), **trust)
    source = Source(name=name, kind="checkpoint", folder=folder, base=base, commit=commit, **trust)
    _check_files(source)
    return source


def _check_files(source: Source) -> None:
    folder = source.folder
    assert folder is not None
    if not source.base:
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder}: not a checkpoint, there is no config.json in it")
        if "auto_map" in _json(folder / "config.json") and not source.trust_remote_code:
            raise CheckpointError(
                f"{folder}: the checkpoint brings its own Python code; read it, then pass --trust-remote-code"
            )
        if not any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
            raise CheckpointError(
                f"{folder}: no processor_config.json or preprocessor_config.json; save the processor beside the model"
            )
        index = folder / "model.safetensors.index.json"
        if index.is_file():
            shards = set(_json(index).get("weight_map", {}).values())
            missing = sorted(shard for shard in shards if not (folder / shard).is_file())
            if missing:
                raise CheckpointError(f"{folder}: incomplete, {len(missing)} weight files are missing: {missing[0]}")
    if not any(folder.glob("*.safetensors")):
        pickles = source._pickles()
        if not pickles:
            raise CheckpointError(f"{folder}: no weights (*.safetensors) in it")
        if not source.allow_pickle:
            raise CheckpointError(
                f"{folder}: weights are in pickle format ({pickles[0].name}), which can run code when it is read; "
                "convert them to safetensors, or pass --allow-pickle if you trust them"
            )


def _snapshot(name: str, trust_remote_code: bool, allow_pickle: bool) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    repo, _, revision = name.partition("@")
    patterns = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors"]
    patterns += ["*.py"] if trust_remote_code else []
    patterns += [*_PICKLES] if allow_pickle else []
    try:
        folder = Path(snapshot_download(repo, revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, OSError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"--model {name}: no such folder here, and not to be had from the hub: {text}") from None
    return folder, folder.name


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: expected an object")
    return content


def _module_hash(name: str) -> str | None:
    import sys
    from importlib.util import find_spec

    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        spec = find_spec(name.split(":")[1])
    except ModuleNotFoundError:
        spec = None
    return _hash([Path(spec.origin)]) if spec and spec.origin and Path(spec.origin).is_file() else None


def _hash(files: Iterable[Path]) -> str:
    """sha256 over the names and contents of the files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(set(files)):
        with file.open("rb") as stream:
            digest.update(f"{file.name}\n{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
