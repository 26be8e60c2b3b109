"""A checkpoint's files: found, downloaded, checked, hashed, and their notes read, all without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from safemed_eval.core import TRAINED_ON
from safemed_eval.errors import CheckpointError, SpecError, canonical, did_you_mean
from safemed_eval.models.checkpoints.prompts import Template
from safemed_eval.models.files.contents import (
    Allowed,
    Json,
    hash_files,
    read_json,
    refuse_damaged,
    refuse_other_index,
    shards,
)
from safemed_eval.models.files.notes import ABOUT, read_note, template_in
from safemed_eval.plugins import plugins

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_BUILTIN = Path(__file__).parents[1] / "builtin"
_TOKENIZERS = ("tokenizer.json", "tekken.json", "vocab.*", "*.model", "*.tiktoken", "merges.txt")
_TEMPLATES = ("*.jinja", "chat_template.json", "tokenizer_config.json", "processor_config.json")
_CONFIG_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.py")


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """A checkpoint's name and its files.

    Args:
        name: as the user wrote it.
        folder: of a hub id, its snapshot in the local cache.
        base: the checkpoint that a PEFT adapter in `folder` belongs to.
        commit: the resolved commit of a hub id.
    """

    name: str
    folder: Path
    base: CheckpointFiles | None = None
    commit: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False

    @property
    def commits(self) -> dict[str, str]:
        """Resolved commits by name, of the model and of its base, where they come from the hub."""
        own = {self.name: self.commit} if self.commit else {}
        return {**own, **(self.base.commits if self.base else {})}

    @property
    def hashes(self) -> Json:
        """Hashes of the weights and of all settings, of the base, too; reads all files once."""
        return self._own_hashes | ({"base": self.base.hashes} if self.base else {})

    @property
    def _own_hashes(self) -> dict[str, str]:
        weights = [*self.folder.glob("*.safetensors"), *(self.pickles if self.allow_pickle else [])]
        settings = [file for pattern in _CONFIG_FILES for file in self.folder.glob(pattern) if file.name != ABOUT]
        return {"weights_sha256": hash_files(weights), "settings_sha256": hash_files(settings)}

    @property
    def weights_hashes(self) -> list[str]:
        """The hashes that an earlier run may have recorded of these weights: with pickles among them, and without."""
        ways = {False, bool(self.pickles)}
        return [replace(self, allow_pickle=way)._own_hashes["weights_sha256"] for way in sorted(ways)]

    @property
    def base_weights(self) -> str | None:
        """The hash of the weights that an adapter was trained over here; None if its note does not say it."""
        model = (read_note(self.folder) or {}).get("model")
        base = model.get("base", model) if isinstance(model, dict) else None
        known = base.get("weights_sha256") if isinstance(base, dict) else None
        return known if isinstance(known, str) else None

    @property
    def has_processor(self) -> bool:
        names = ("processor_config.json", "preprocessor_config.json")
        return any((self.folder / name).is_file() for name in names)

    @property
    def template(self) -> Template | None:
        """The template that a checkpoint was trained with here; None for any other.

        An adapter without a note was most likely trained as its base was, and has the template of its base.

        Raises:
            CheckpointError: its note cannot be read.
        """
        own = template_in(self.folder)
        return self.base.template if own is None and self.base else own

    @property
    def trained(self) -> Json | None:
        """How a checkpoint that was trained here was made: method, data, and the slice if it was trained on one."""
        note = read_note(self.folder)
        if note is None:
            return None
        chosen, recipe, names = (note.get(key) or {} for key in ("select", "recipe", "names"))
        if not all(isinstance(part, dict) for part in (chosen, recipe, names)):
            raise CheckpointError(f"{self.name}: {ABOUT} does not say how it was trained")
        return {
            "method": recipe.get("method"),
            "data": names.get("data"),
            "modality": chosen.get("modality", []),
            "question_type": chosen.get("question_type", []),
        }

    @property
    def asks_for_the_date(self) -> bool:
        """True if a chat template in its files, or in those of its base, reads the clock."""
        folders = [self.folder, *([self.base.folder] if self.base else [])]
        files = [file for folder in folders for pattern in _TEMPLATES for file in folder.glob(pattern)]
        return any(b"strftime_now" in file.read_bytes() for file in files)

    @property
    def reference(self) -> tuple[str, str | None]:
        """The name by which an adapter refers to this checkpoint as its base, valid in any folder, and its commit.

        Of an adapter, it is the reference of its base.
        """
        if self.base:
            return self.base.reference
        if self.commit:
            return self.name.partition("@")[0], self.commit
        return self.name if self.name.startswith("builtin:") else str(self.folder.resolve()), None

    @property
    def pickles(self) -> list[Path]:
        """Weights in pickle format."""
        return [file for pattern in _PICKLES for file in self.folder.glob(pattern)]


def find_checkpoint(name: str, allowed: Allowed) -> CheckpointFiles:
    """Find and check the files of `builtin:NAME`, a checkpoint's or adapter's folder, or `org/model[@revision]`.

    Raises:
        SpecError: there is no such checkpoint. CheckpointError: files are missing, damaged, or not allowed.
    """
    files = _locate(name, allowed)
    if not (files.folder / "adapter_config.json").is_file():
        if allowed.base:
            raise SpecError(f"--base {allowed.base}: --model {name} is not an adapter, and has no base")
        _check_model_files(files)
        return files
    base = _locate(allowed.base, allowed) if allowed.base else _named_base(files, allowed)
    _check_model_files(base)
    _check_weights(files, "adapter_model.safetensors")
    files = replace(files, base=base)
    _refuse_changed_base(files)
    return files


def _named_base(files: CheckpointFiles, allowed: Allowed) -> CheckpointFiles:
    """The base that the settings of an adapter name."""
    adapter = read_json(files.folder / "adapter_config.json")
    base_name, revision = adapter.get("base_model_name_or_path"), adapter.get("revision")
    if not base_name or not isinstance(base_name, str):
        raise CheckpointError(
            f"{files.folder}: adapter_config.json names no base_model_name_or_path, the checkpoint below it; name it "
            "with --base"
        )
    at = f"@{revision}" if revision and not Path(base_name).is_dir() else ""
    try:
        return _locate(f"{base_name}{at}", allowed)
    except SpecError:
        raise CheckpointError(
            f"--model {files.name}: its base {base_name} is not there; name its new place with --base"
        ) from None


def _refuse_changed_base(files: CheckpointFiles) -> None:
    """Raise CheckpointError if an adapter's note says that it was trained over other weights than its base has now.

    An adapter without a note was trained elsewhere, and nothing is known.
    """
    base, known = files.base, files.base_weights
    assert base is not None
    if known and known not in base.weights_hashes:
        raise CheckpointError(
            f"--model {files.name}: was trained over other weights than {base.name} holds now: sha256 {known[:12]} in "
            f"its {ABOUT}, {base.weights_hashes[0][:12]} there; put those weights back, or train the adapter anew"
        )


def _locate(name: str, allowed: Allowed) -> CheckpointFiles:
    """The folder that a name stands for."""
    folder, commit = Path(name).expanduser(), None
    if name.startswith("builtin:"):
        known, shipped = [place.parent.name for place in _BUILTIN.glob("*/config.json")], name.removeprefix("builtin:")
        canonical_name = canonical(shipped, known)
        if canonical_name is None:
            raise SpecError(
                f"--model {name}: no such checkpoint ships with this package; {did_you_mean(shipped, known)}"
            )
        name, folder = f"builtin:{canonical_name}", _BUILTIN / canonical_name
    elif not (name.strip() and _exists(folder) and folder.is_dir()):
        if name.strip() and _exists(folder):
            raise SpecError(f"--model {name}: is a file; name the checkpoint's folder")
        if not _HUB_ID.fullmatch(name) or name.startswith((".", "/", "~")):
            kind, colon, _ = name.partition(":")
            kinds = ("builtin", "python", *plugins("models"))
            meant = (
                f"; {kind} is no kind of model: {did_you_mean(kind, kinds)}" if colon and kind.isidentifier() else ""
            )
            raise SpecError(f"--model {name}: no such folder, and not a hub id like org/model{meant}")
        folder, commit = _snapshot(name, allowed)
    return CheckpointFiles(
        name=name,
        folder=folder,
        commit=commit,
        trust_remote_code=allowed.trust_remote_code,
        allow_pickle=allowed.allow_pickle,
    )


def _exists(place: Path) -> bool:
    """False, too, for what cannot be the name of a file."""
    try:
        return place.exists()
    except OSError:
        return False


def _check_model_files(files: CheckpointFiles) -> None:
    folder = files.folder
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: not a checkpoint, there is no config.json in it")
    if "auto_map" in read_json(folder / "config.json") and not files.trust_remote_code:
        raise CheckpointError(
            f"{folder}: the checkpoint brings its own Python code; read it, then pass --trust-remote-code"
        )
    if not files.has_processor:
        raise CheckpointError(
            f"{folder}: no processor_config.json or preprocessor_config.json; save the processor beside the model"
        )
    if not files.trust_remote_code and not any(any(folder.glob(pattern)) for pattern in _TOKENIZERS):
        raise CheckpointError(
            f"{folder}: no tokenizer (tokenizer.json); save the processor, which brings it, beside the model"
        )
    shards(folder)
    _check_weights(files)
    refuse_other_index(folder)


def _check_weights(files: CheckpointFiles, pattern: str = "*.safetensors") -> None:
    folder, pickles = files.folder, files.pickles
    weights = sorted(folder.glob(pattern))
    for file in weights:
        refuse_damaged(file)
    if not weights:
        if not pickles:
            raise CheckpointError(f"{folder}: no weights ({pattern}) in it")
        if not files.allow_pickle:
            raise CheckpointError(
                f"{folder}: weights are in pickle format ({pickles[0].name}), which can run code when it is read; "
                "convert them to safetensors, or pass --allow-pickle if you trust them"
            )


def _snapshot(name: str, allowed: Allowed) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    repo, _, revision = name.partition("@")
    patterns = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors", TRAINED_ON]
    patterns += ["*.py"] if allowed.trust_remote_code else []
    patterns += [*_PICKLES] if allowed.allow_pickle else []
    try:
        folder = Path(
            snapshot_download(
                repo, revision=revision or None, allow_patterns=patterns, local_files_only=allowed.offline
            )
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        if allowed.offline:
            raise CheckpointError(
                f"--model {name}: no such folder here, and not in the local cache; --offline forbids to download it"
            ) from None
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"--model {name}: no such folder here, and not to be had from the hub: {text}") from None
    return folder, folder.name
