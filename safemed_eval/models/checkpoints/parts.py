"""The parts of a vision-language network: vision, projector and language, whatever a family calls them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, get_args

import torch

from safemed_eval.errors import SpecError
from safemed_eval.models.checkpoints.protocols import Network

Part = Literal["vision", "projector", "language"]

_IN_ENCODER = ("merger", "deepstack_merger")
"""Prefixes of the modules by which Qwen's image encoders bring patches into the space of the language model."""


def part_of(network: Network) -> dict[str, Part]:
    """Map the name of each module that has weights of its own to the part that it belongs to.

    Language is the decoder and the output head, vision the image encoder, and the projector all else: what stands
    between the two, inside or outside of the encoder.
    """
    encoder, decoder, head = (
        network.get_encoder(modality="image"),
        network.get_decoder(),
        network.get_output_embeddings(),
    )
    spoken = {id(module) for top in (decoder, head) if top is not None for module in top.modules()}
    seen = {id(module): name for name, module in encoder.named_modules()} if id(encoder) != id(network) else {}
    parts: dict[str, Part] = {}
    for name, module in network.named_modules():
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        inside = seen.get(id(module))
        if id(module) in spoken:
            parts[name] = "language"
        elif inside is not None and not inside.startswith(_IN_ENCODER):
            parts[name] = "vision"
        else:
            parts[name] = "projector"
    return parts


def freeze(network: Network, frozen: Iterable[str]) -> None:
    """Stop the training of these parts.

    Raises:
        SpecError: the network has no such part.
    """
    parts = part_of(network)
    for part in frozen:
        if part not in parts.values():
            raise SpecError(f"--freeze {part}: {type(network).__name__} has no such part")
    for name, part in parts.items():
        if part in frozen:
            network.get_submodule(name).requires_grad_(False)


def linear_layers(network: Network, targets: str) -> list[str]:
    """Name the linear layers that an adapter is put on, without the output head.

    Args:
        targets: "all", a part, or a regular expression that a layer's whole name matches.
    Raises:
        SpecError: there is no such layer, or it is the output head.
    """
    parts, head = part_of(network), network.get_output_embeddings()
    layers = {name: module for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    if targets in get_args(Part) or targets == "all":
        wanted = [name for name in layers if targets in ("all", parts[name]) and layers[name] is not head]
    else:
        wanted = [name for name in layers if re.fullmatch(targets, name)]
    if any(layers[name] is head for name in wanted):
        raise SpecError(f"--lora targets={targets}: matches the output head, which TRL would not train an adapter of")
    if not wanted:
        example = next(name for name in reversed(layers) if layers[name] is not head)
        raise SpecError(f"--lora targets={targets}: matches no linear layer; their names are like {example}")
    return wanted
