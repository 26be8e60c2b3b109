"""Modes of a network in training: eval mode for a while, with or without gradient checkpointing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from safemed_eval.models.checkpoints.protocols import Network


@contextmanager
def in_eval_mode(network: Network) -> Iterator[None]:
    """Put a network into eval mode for a while; afterwards each module has its own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def checkpointing(network: Network) -> Iterator[None]:
    """Put a network into eval mode for a while, in which gradient checkpointing goes on where it is switched on.

    transformers checkpoints a layer only if the layer itself is in training mode. Those layers are, here, and nothing
    in them: dropout is off and statistics are frozen. What such a layer drops out by itself has its rate set to 0.
    """
    layers = [module for module in network.modules() if getattr(module, "gradient_checkpointing", False)]
    rates = [
        (layer, name, rate)
        for layer in layers
        for name, rate in vars(layer).items()
        if "drop" in name and isinstance(rate, float)
    ]
    with in_eval_mode(network):
        for layer, name, _ in rates:
            setattr(layer, name, 0.0)
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer, name, rate in rates:
                setattr(layer, name, rate)


def checkpoints(network: torch.nn.Module | Network) -> bool:
    """Return True if gradient checkpointing is switched on in any layer."""
    return any(getattr(module, "gradient_checkpointing", False) for module in network.modules())
