"""Refuse files of a checkpoint or an adapter with tensors that have no place in the model.

A tensor that is silently left out may be the very result of the training. Only tensors that transformers itself
declares useless (`_keys_to_ignore_on_load_unexpected`, buffers that it computes) are accepted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from safemed_eval.errors import CheckpointError
from safemed_eval.models.checkpoints.protocols import AdaptedNetwork, Network
from safemed_eval.models.files.checkpoint import CheckpointFiles
from safemed_eval.models.files.contents import WEIGHTS, shards, tensor_names

_ADAPTER = "default"
"""PEFT's name of an adapter without a name of its own."""


def refuse_strays(files: CheckpointFiles, model: Network, unexpected: Collection[str]) -> None:
    """Raise CheckpointError if a tensor of the checkpoint fits nowhere, or two of them are the same weight.

    Args:
        model: as transformers loaded it.
        unexpected: names of the tensors that transformers found no place for.
    """
    if unexpected:
        raise CheckpointError(
            f"--model {files.name}: {len(unexpected)} tensors in its files fit nowhere in {type(model).__name__}, "
            f"such as {min(unexpected)}; they would be left out. Is config.json of another model? Else save it anew "
            "without them"
        )
    single = files.folder / WEIGHTS
    parts = [single] if single.is_file() else shards(files.folder)
    for weight, names in _places(model, (name for file in parts for name in tensor_names(file))).items():
        if len(names) > 1:
            raise CheckpointError(
                f"--model {files.name}: its files hold {weight} under two names, {names[0]} and {names[1]}, of which "
                "one would be left out; save the checkpoint with the one that is meant"
            )


def _places(model: Network, names: Iterable[str]) -> dict[str, list[str]]:
    """Map each weight to the tensors of the files that it is read from, with transformers' renaming.

    Weights that transformers combines from several tensors are left out.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, dot_natural_key, rename_source_key

    mapping = get_model_conversion_mapping(model, None, getattr(model, "hf_quantizer", None))
    converters = [rule for rule in mapping if isinstance(rule, WeightConverter)]
    renamings = [rule for rule in mapping if not isinstance(rule, WeightConverter)]
    weights, prefix = model.state_dict(), getattr(model, "base_model_prefix", "")
    places: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names, key=dot_natural_key):
        weight, made = rename_source_key(name, renamings, converters, prefix, weights)
        if weight not in weights and name in weights:
            weight, made = rename_source_key(name, [], [], prefix, weights)
        if weight in weights and made is None:
            places[weight].append(name)
    return places


def refuse_adapter_strays(files: CheckpointFiles, wrapped: AdaptedNetwork) -> None:
    """Raise CheckpointError if a tensor of the adapter fits nowhere; PEFT leaves it out silently.

    Args:
        wrapped: the model with the adapter, as PEFT loaded it. The tensors are loaded into it once more, because only
            that call reports them.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    tensors = load_peft_weights(str(files.folder), device="cpu")
    left = [name.replace(f".{_ADAPTER}", "") for name in set_peft_model_state_dict(wrapped, tensors).unexpected_keys]
    if left:
        raise CheckpointError(
            f"--model {files.name}: {len(left)} tensors of the adapter fit nowhere in its base, such as {min(left)}; "
            "they would be left out. Is the base that adapter_config.json names, or its target_modules, another one?"
        )
