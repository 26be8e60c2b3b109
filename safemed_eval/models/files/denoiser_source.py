"""A denoiser's files: found, checked and hashed, all without torch."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safemed_eval.errors import CheckpointError, SpecError
from safemed_eval.models.files.contents import Json, factory_identity, hash_file, hash_files

SETTINGS = "denoiser.json"
WEIGHTS = "denoiser.safetensors"


@dataclass(frozen=True, kw_only=True)
class DenoiserSource:
    """A denoiser's name, its kind and its files."""

    name: str
    """As the user wrote it."""
    kind: Literal["trained", "program", "python"]
    path: Path | None = None
    """The folder of `train denoiser`, or the file of torch.export."""

    @property
    def identity(self) -> Json:
        """Hashes of weights and settings; for a function from Python, the hash of its module's file."""
        if self.path is None:
            return factory_identity(self.name)
        if self.kind == "program":
            return {"weights_sha256": hash_file(self.path)}
        return {
            "weights_sha256": hash_files([self.path / WEIGHTS]),
            "settings_sha256": hash_files([self.path / SETTINGS]),
        }


def resolve_denoiser(name: str, *, allow_pickle: bool = False) -> DenoiserSource:
    """Find out what `name` is: `python:module:factory`, a folder of `train denoiser`, or a program of torch.export.

    Raises:
        SpecError: not a name of any kind. CheckpointError: the folder or the file is not what it should be, or may run
            code when it is read.
    """
    if name.startswith("python:"):
        if not re.fullmatch(r"python:[\w.]+:\w+", name):
            raise SpecError(f"--denoiser {name}: write python:package.module:factory")
        return DenoiserSource(name=name, kind="python")
    path = Path(name).expanduser()
    if path.is_dir():
        for part in (SETTINGS, WEIGHTS):
            if not (path / part).is_file():
                raise CheckpointError(
                    f"--denoiser {name}: no denoiser, there is no {part} in it; `safemed-eval train denoiser` makes one"
                )
        return DenoiserSource(name=name, kind="trained", path=path)
    if not path.is_file() or path.suffix != ".pt2":
        what = "a file, but not one of torch.export (*.pt2)" if path.exists() else "no such folder or file"
        raise SpecError(f"--denoiser {name}: {what}; name a folder, a *.pt2 file, or python:module:factory")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"--denoiser {name}: not a program of torch.export, which is a zip archive")
    if not allow_pickle:
        raise CheckpointError(
            f"--denoiser {name}: torch.export unpickles parts of a program, which can run code when it is read; pass "
            "--allow-pickle if you trust it"
        )
    return DenoiserSource(name=name, kind="program", path=path)
