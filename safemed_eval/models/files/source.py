"""What `--model` names, checked as far as files can tell before torch is imported."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safemed_eval.core import TRAINED_ON
from safemed_eval.errors import CheckpointError, SpecError, canonical, did_you_mean
from safemed_eval.models.checkpoints.prompts import CLOCK, Asking, Template, default_template
from safemed_eval.models.files.contents import (
    factory_identity,
    hash_files,
    read_json,
    refuse_damaged,
    refuse_other_index,
    shards,
)
from safemed_eval.models.files.denoiser_source import DenoiserSource, resolve_denoiser

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
ABOUT = "safemed_eval.json"
"""In a checkpoint that was trained here: how it is asked, and how it was made."""
SEEN_BY_NAME = "seen_by_name"
"""In it: what --data said of earlier trainings that left no digests of their images."""

_BUILTIN = Path(__file__).parents[1] / "builtin"
_TOKENIZERS = ("tokenizer.json", "tekken.json", "vocab.*", "*.model", "*.tiktoken", "merges.txt")
_TEMPLATES = ("*.jinja", "chat_template.json", "tokenizer_config.json", "processor_config.json")
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
    denoiser: DenoiserSource | None = None
    """What every image goes through before the model sees it."""
    commit: str | None = None
    """The resolved commit of a hub id."""
    trust_remote_code: bool = False
    allow_pickle: bool = False

    @property
    def commits(self) -> dict[str, str]:
        """Resolved commits by name, of the model and of its base, where they come from the hub."""
        own = {self.name: self.commit} if self.commit else {}
        return {**own, **(self.base.commits if self.base else {})}

    @property
    def identity(self) -> dict[str, Any]:
        """Hashes of weights and of all that decides how they are used; reads the files once through.

        A model from Python has no weights file that we know of: the hash of its module's file stands in.
        """
        found = factory_identity(self.name) if self.folder is None else self._hashes(self.folder)
        parts = {"base": self.base, "denoiser": self.denoiser}
        return found | {name: part.identity for name, part in parts.items() if part}

    def _hashes(self, folder: Path) -> dict[str, Any]:
        weights = [*folder.glob("*.safetensors"), *(self.pickles if self.allow_pickle else [])]
        settings = [f for pattern in _CONFIG_FILES for f in folder.glob(pattern) if f.name != ABOUT]
        return {"weights_sha256": hash_files(weights), "settings_sha256": hash_files(settings)}

    @property
    def weights_hashes(self) -> list[str]:
        """What `identity` may have said of the weights in its folder, with pickles among them and without."""
        ways = {False, bool(self.pickles)}
        return [replace(self, allow_pickle=way).identity["weights_sha256"] for way in sorted(ways)]

    @property
    def base_weights(self) -> str | None:
        """Of an adapter that was trained here: the hash of its base's weights then; None where its note has none."""
        model = (self._about or {}).get("model")
        base = model.get("base", model) if isinstance(model, dict) else None
        known = base.get("weights_sha256") if isinstance(base, dict) else None
        return known if isinstance(known, str) else None

    @property
    def has_processor(self) -> bool:
        names = ("processor_config.json", "preprocessor_config.json")
        return self.folder is not None and any((self.folder / name).is_file() for name in names)

    @property
    def template(self) -> Template | None:
        """How a checkpoint that was trained here was asked; None for any other.

        An adapter that does not say it was most likely trained as its base was, and is asked so.

        Raises:
            CheckpointError: its note cannot be read.
        """
        about = self._about
        if about is None:
            return self.base.template if self.base else None
        try:
            found = about["template"]
            return Template(user=str(found["user"]), cue=str(found["cue"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.name}: {ABOUT} holds no template with 'user' and 'cue': {error}") from None

    def asked(self, asking: Asking | None = None, *, to_train: bool = False) -> Asking:
        """How this checkpoint is asked, by `load`, by `load_to_train` and by every command.

        Args:
            asking: what the caller chose. A template in it wins; without one the checkpoint is asked as it was trained,
                and one that does not say how, as `default_template` has it.
            to_train: for a training, in which a checkpoint learns to write its answer.
        Raises:
            CheckpointError: its note on how it was trained cannot be read.
        """
        asking = asking or Asking()
        default = default_template("generate" if to_train else asking.readout)
        clock = CLOCK.isoformat() if self._asks_for_the_date else None
        return replace(asking, template=asking.template or self.template or default, clock=clock)

    @property
    def trained(self) -> dict[str, Any] | None:
        """How a checkpoint that was trained here was made: method, data, and the slice, where it was one."""
        about = self._about
        if about is None:
            return None
        chosen, recipe, names = (about.get(key) or {} for key in ("select", "recipe", "names"))
        if not all(isinstance(part, dict) for part in (chosen, recipe, names)):
            raise CheckpointError(f"{self.name}: {ABOUT} does not say how it was trained; was it edited?")
        return {
            "method": recipe.get("method"),
            "data": names.get("data"),
            "modality": chosen.get("modality", []),
            "question_type": chosen.get("question_type", []),
        }

    @property
    def trainings(self) -> list[tuple[str, Path | None, tuple[str, ...]]]:
        """What the checkpoint, its base and the denoiser before it were trained on here.

        Returns:
            For each of them that was: its name; the file of image digests, or None; and what --data said of the
            trainings that this file does not cover.
        Raises:
            CheckpointError: a note of how it was made cannot be read.
        """
        parts = [(one.name, one.folder) for one in (self, self.base) if one]
        parts += [(self.denoiser.name, self.denoiser.path)] if self.denoiser else []
        found: list[tuple[str, Path | None, tuple[str, ...]]] = []
        for name, folder in parts:
            if folder is None or not (folder / ABOUT).is_file():
                continue
            about, digests = read_json(folder / ABOUT), folder / TRAINED_ON
            try:
                names = about.get("names") or {}
                named = [names.get("data"), (names.get("trained") or {}).get("data")]
                if digests.is_file():
                    named = list(about.get(SEEN_BY_NAME) or ())
            except (AttributeError, TypeError) as error:
                raise CheckpointError(f"{folder / ABOUT}: does not say what it was trained on: {error}") from None
            found.append((name, digests if digests.is_file() else None, tuple(str(data) for data in named if data)))
        return found

    @property
    def _asks_for_the_date(self) -> bool:
        """Whether a chat template in its files, or in those of its base, reads the clock."""
        folders = [one.folder for one in (self, self.base) if one and one.folder]
        files = [file for folder in folders for pattern in _TEMPLATES for file in folder.glob(pattern)]
        return any(b"strftime_now" in file.read_bytes() for file in files)

    @property
    def _about(self) -> dict[str, Any] | None:
        if self.folder is None or not (self.folder / ABOUT).is_file():
            return None
        return read_json(self.folder / ABOUT)

    @property
    def reference(self) -> tuple[str, str | None]:
        """What an adapter over this checkpoint names as its base, and a commit of the hub: true in any folder."""
        if self.commit:
            return self.name.partition("@")[0], self.commit
        return self.name if self.name.startswith("builtin:") else str((self.folder or Path()).resolve()), None

    @property
    def pickles(self) -> list[Path]:
        """Weights in pickle format."""
        return [file for pattern in _PICKLES for file in (self.folder or Path()).glob(pattern)]


@dataclass(frozen=True, kw_only=True)
class _Leave:
    """What the user allows."""

    trust_remote_code: bool
    allow_pickle: bool
    offline: bool


def resolve(
    name: str,
    *,
    denoiser: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    offline: bool = False,
) -> Source:
    """Find out what `name` is: `builtin:NAME`, a checkpoint's or adapter's folder, `org/model[@revision]`, or
    `python:module:factory`.

    A hub id is downloaded (weights in safetensors and settings only) unless it is in the local cache.

    Args:
        denoiser: what stands before the model; see `resolve_denoiser`.
        offline: download nothing, and have the hub's library ask for nothing for the rest of this process.
    Raises:
        SpecError: not a name of any kind. CheckpointError: the folder lacks something that it needs.
    """
    before = resolve_denoiser(denoiser, allow_pickle=allow_pickle) if denoiser is not None else None
    if offline:
        _go_offline()
    leave = _Leave(trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, offline=offline)
    return replace(_resolve(name, leave), denoiser=before)


def _go_offline() -> None:
    """The hub's own switch, for its library and for processes that this one starts."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if constants := sys.modules.get("huggingface_hub.constants"):  # it has been read already
        vars(constants)["HF_HUB_OFFLINE"] = True


def _resolve(name: str, leave: _Leave) -> Source:
    if name.startswith("python:"):
        if not re.fullmatch(r"python:[\w.]+:\w+", name):
            raise SpecError(f"--model {name}: write python:package.module:factory")
        return Source(name=name, kind="python")
    source = _locate(name, leave)
    assert source.folder is not None
    if (source.folder / "adapter_config.json").is_file():
        adapter = read_json(source.folder / "adapter_config.json")
        base_name, revision = adapter.get("base_model_name_or_path"), adapter.get("revision")
        if not base_name or not isinstance(base_name, str):
            raise CheckpointError(
                f"{source.folder}: adapter_config.json names no base_model_name_or_path, the checkpoint below it"
            )
        at = f"@{revision}" if revision and not Path(base_name).is_dir() else ""
        base = _locate(f"{base_name}{at}", leave)
        _check_model_files(base)
        _check_weights(source, "adapter_model.safetensors")
        source = replace(source, base=base)
        _refuse_changed_base(source)
        return source
    _check_model_files(source)
    return source


def _refuse_changed_base(source: Source) -> None:
    """Raise CheckpointError where an adapter's note says that it was trained over other weights than its base's.

    An adapter without a note, trained elsewhere, does not say.
    """
    base, known = source.base, source.base_weights
    assert base is not None
    if known and known not in base.weights_hashes:
        raise CheckpointError(
            f"--model {source.name}: was trained over other weights than {base.name} holds now: sha256 {known[:12]} in "
            f"its {ABOUT}, {base.weights_hashes[0][:12]} there; put those weights back, or train the adapter anew"
        )


def _locate(name: str, leave: _Leave) -> Source:
    """The folder that a name stands for."""
    folder, commit = Path(name).expanduser(), None
    if name.startswith("builtin:"):
        known, shipped = [place.parent.name for place in _BUILTIN.glob("*/config.json")], name.removeprefix("builtin:")
        found = canonical(shipped, known)
        if found is None:
            raise SpecError(
                f"--model {name}: no such checkpoint ships with this package; {did_you_mean(shipped, known)}"
            )
        name, folder = f"builtin:{found}", _BUILTIN / found
    elif not (name.strip() and _exists(folder) and folder.is_dir()):
        if name.strip() and _exists(folder):
            raise SpecError(f"--model {name}: is a file; name the checkpoint's folder")
        if not _HUB_ID.fullmatch(name) or name.startswith((".", "/", "~")):
            raise SpecError(f"--model {name}: no such folder, and not a hub id like org/model")
        folder, commit = _snapshot(name, leave)
    return Source(
        name=name,
        kind="checkpoint",
        folder=folder,
        commit=commit,
        trust_remote_code=leave.trust_remote_code,
        allow_pickle=leave.allow_pickle,
    )


def _exists(place: Path) -> bool:
    """False, too, for what cannot be the name of a file."""
    try:
        return place.exists()
    except OSError:
        return False


def _check_model_files(source: Source) -> None:
    folder = source.folder
    assert folder is not None
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: not a checkpoint, there is no config.json in it")
    if "auto_map" in read_json(folder / "config.json") and not source.trust_remote_code:
        raise CheckpointError(
            f"{folder}: the checkpoint brings its own Python code; read it, then pass --trust-remote-code"
        )
    if not source.has_processor:
        raise CheckpointError(
            f"{folder}: no processor_config.json or preprocessor_config.json; save the processor beside the model"
        )
    if not source.trust_remote_code and not any(any(folder.glob(pattern)) for pattern in _TOKENIZERS):
        raise CheckpointError(
            f"{folder}: no tokenizer (tokenizer.json); save the processor, which brings it, beside the model"
        )
    shards(folder)
    _check_weights(source)
    refuse_other_index(folder)


def _check_weights(source: Source, pattern: str = "*.safetensors") -> None:
    folder, pickles = source.folder, source.pickles
    assert folder is not None
    found = sorted(folder.glob(pattern))
    for file in found:
        refuse_damaged(file)
    if not found:
        if not pickles:
            raise CheckpointError(f"{folder}: no weights ({pattern}) in it")
        if not source.allow_pickle:
            raise CheckpointError(
                f"{folder}: weights are in pickle format ({pickles[0].name}), which can run code when it is read; "
                "convert them to safetensors, or pass --allow-pickle if you trust them"
            )


def _snapshot(name: str, leave: _Leave) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    repo, _, revision = name.partition("@")
    patterns = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors", TRAINED_ON]
    patterns += ["*.py"] if leave.trust_remote_code else []
    patterns += [*_PICKLES] if leave.allow_pickle else []
    try:
        folder = Path(
            snapshot_download(repo, revision=revision or None, allow_patterns=patterns, local_files_only=leave.offline)
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        if leave.offline:
            raise CheckpointError(
                f"--model {name}: no such folder here, and not in the local cache; --offline forbids to download it"
            ) from None
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"--model {name}: no such folder here, and not to be had from the hub: {text}") from None
    return folder, folder.name
