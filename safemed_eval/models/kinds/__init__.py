"""The kinds of models, one file each; a plug-in of group `safemed_eval.models` adds one without a line here."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from safemed_eval.errors import SpecError
from safemed_eval.models.files.contents import Allowed
from safemed_eval.models.files.denoiser_source import resolve_denoiser
from safemed_eval.models.kinds.checkpoint import CheckpointSource
from safemed_eval.models.kinds.loaded import LoadedNetwork, LoadedObject, source_of
from safemed_eval.models.kinds.python import PythonSource
from safemed_eval.models.source import Source
from safemed_eval.plugins import load_plugin, plugins

KINDS: dict[str, type[Source]] = {"python": PythonSource}
"""Kinds by the prefix of a name, "python:..."; a name without such a prefix is a checkpoint's."""


def kind_of(model: object) -> type[Source]:
    """Tell the kind of a model from its name alone, or from the object itself.

    Raises:
        SpecError: the plug-in of this name cannot be used.
    """
    if not isinstance(model, (str, Path)):
        return LoadedNetwork if isinstance(model, tuple) else LoadedObject
    prefix, colon, _ = str(model).partition(":")
    if colon and prefix in KINDS:
        return KINDS[prefix]
    if not colon or prefix not in plugins("models"):
        return CheckpointSource
    kind = load_plugin("models", prefix)
    if not (isinstance(kind, type) and issubclass(kind, Source)):
        raise SpecError(f"the plug-in {prefix} of safemed_eval.models is not a subclass of safemed_eval.models.Source")
    return kind


def resolve(
    model: object,
    *,
    denoiser: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    offline: bool = False,
    base: str | None = None,
) -> Source:
    """Find a model, without torch and without loading it.

    A hub id is downloaded (weights in safetensors and settings only) unless it is in the local cache.

    Args:
        model: `builtin:NAME`, a checkpoint's or adapter's folder, `org/model[@revision]`, `python:module:factory`, a
            name of a plug-in's kind; or an object of your own (see `scorer.Scorer`), or a pair (network, processor) of
            transformers that is loaded already.
        denoiser: stands before the model; see `resolve_denoiser`.
        offline: download nothing, and stop the hub's library from asking the network for the rest of this process.
        base: the checkpoint below an adapter, where its settings name another place.
    Raises:
        SpecError: not a model of any kind. CheckpointError: the folder lacks something that it needs.
    """
    before = resolve_denoiser(denoiser, allow_pickle=allow_pickle) if denoiser is not None else None
    if offline:
        _go_offline()
    if isinstance(model, (str, Path)):
        allowed = Allowed(trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, offline=offline, base=base)
        source = kind_of(model).resolve(str(model), allowed)
    else:
        source = source_of(model)
    return replace(source, denoiser=before)


def _go_offline() -> None:
    """Set the hub's own switch, for its library and for processes that this one starts."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if constants := sys.modules.get("huggingface_hub.constants"):  # it has been read already
        vars(constants)["HF_HUB_OFFLINE"] = True
