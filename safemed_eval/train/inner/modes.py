"""Modes of a network in training: eval mode for a while, with or without gradient checkpointing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

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
def inner_loop(network: Network) -> Iterator[None]:
    """Put a network into the mode of the inner loop: eval, with gradient checkpointing where it is switched on.

    The weights do not require gradients meanwhile, which saves memory; only those of FSDP and DeepSpeed go on to, since
    these lose gradients where that changes.

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
    trained = [] if is_sharded() else [weight for weight in network.parameters() if weight.requires_grad]
    with in_eval_mode(network):
        for weight in trained:
            weight.requires_grad_(False)
        for layer, name, _ in rates:
            setattr(layer, name, 0.0)
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer, name, rate in rates:
                setattr(layer, name, rate)
            for weight in trained:
                weight.requires_grad_(True)


def is_sharded() -> bool:
    """Return True if `accelerate launch` shards the weights, by FSDP or DeepSpeed."""
    return any(os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() in ("true", "1") for kind in ("FSDP", "DEEPSPEED"))
