"""Weights that are sharded among processes by FSDP2 or DeepSpeed: what is supported, and whole weights for a while."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from safemed_eval.codec import Json
from safemed_eval.errors import SpecError
from safemed_eval.models.checkpoints.protocols import AdaptedNetwork, Network

if TYPE_CHECKING:
    import torch
    from transformers import Trainer


def refuse_unsupported(*, denoiser: bool, bf16: bool, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a way to shard the training that does not work here, judging by what `accelerate launch` has set.

    Args:
        bf16: the recipe computes in bfloat16.
    Raises:
        SpecError: the message names the line of accelerate's configuration file to change.
    """

    def on(name: str) -> bool:
        return environment.get(name, "").lower() in ("true", "1")

    fsdp, deepspeed = on("ACCELERATE_USE_FSDP"), on("ACCELERATE_USE_DEEPSPEED")
    if on("ACCELERATE_USE_MEGATRON_LM"):
        raise _refused("distributed_type: MEGATRON_LM", "is not supported", "use FSDP, version 2, or DeepSpeed")
    for name in ("tp", "cp", "sp"):
        if int(environment.get(f"PARALLELISM_CONFIG_{name.upper()}_SIZE") or 1) > 1:
            raise _refused(f"parallelism_config_{name}_size", "splits rows or layers", "leave it at 1")
    mixed = environment.get("ACCELERATE_MIXED_PRECISION", "no")  # transformers sets it, too, later in a training
    if "RANK" in environment and mixed not in ("no", "bf16" if bf16 else "no"):
        raise _refused(f"mixed_precision: {mixed}", "the training would not know of it", "write no, and pass --bf16")
    if denoiser and (fsdp or deepspeed):
        raise _refused(
            f"distributed_type: {'FSDP' if fsdp else 'DEEPSPEED'}",
            "a denoiser is too small to be sharded",
            "use MULTI_GPU",
        )
    if fsdp:
        if environment.get("FSDP_VERSION", "1") != "2":
            raise _refused("fsdp_version: 1", "gradients would not reach the images", "write fsdp_version: 2")
        if on("FSDP_CPU_RAM_EFFICIENT_LOADING"):
            raise _refused(
                "fsdp_cpu_ram_efficient_loading: true", "each process checks the weights that it loads", "write false"
            )
        if on("FSDP_OFFLOAD_PARAMS"):
            raise _refused("fsdp_offload_params: true", "the adversary needs the weights on the GPU", "write false")
        if on("FSDP_ACTIVATION_CHECKPOINTING"):
            raise _refused(
                "fsdp_activation_checkpointing: true",
                "it renames weights",
                "write false, and pass --gradient-checkpointing",
            )
    if deepspeed and _zero_stage(environment) == 3 and not _saves_whole(environment):
        raise _refused("zero3_save_16bit_model: false", "the checkpoint would be saved without weights", "write true")


def _refused(line: str, why: str, instead: str) -> SpecError:
    return SpecError(f"accelerate's configuration, {line}: {why}; {instead}")


def _zero(environment: Mapping[str, str]) -> Json:
    """The section of a configuration file of DeepSpeed's own on ZeRO; empty where accelerate's says all."""
    file = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "")
    if file in ("", "none"):
        return {}
    try:
        return dict(json.loads(Path(file).read_text(encoding="utf-8")).get("zero_optimization") or {})
    except (OSError, ValueError, AttributeError) as error:
        raise SpecError(f"{file}: not a configuration of DeepSpeed: {error}") from None


def _zero_stage(environment: Mapping[str, str]) -> int:
    stage = _zero(environment).get("stage", environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", 2))
    return int(stage) if str(stage).isdigit() else 0


def _saves_whole(environment: Mapping[str, str]) -> bool:
    own = environment.get("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL", "false")
    return str(_zero(environment).get("stage3_gather_16bit_weights_on_model_save", own)).lower() == "true"


@contextmanager
def whole_weights(trainer: Trainer) -> Iterator[None]:
    """Hold the whole weights in every process for a while, in the data type of the computation.

    Inside, a forward pass and its gradient need no other process: processes may make any number of passes, and texts
    of any length. Without this, one that attacks fewer rows or ends its texts sooner than another would wait for it
    forever, or compute with wrong weights. Weights, their gradients, and gradients that are still being accumulated
    stay as they are. Without sharding this does nothing.
    """
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if not sharded or getattr(trainer, "_is_whole", False):
        yield
        return
    trainer._is_whole = True
    try:
        whole = _whole_of_deepspeed if trainer.is_deepspeed_enabled else _whole_of_fsdp
        with whole(trainer), _generating_alone(trainer.accelerator.unwrap_model(trainer.model_wrapped)):
            yield
    finally:
        trainer._is_whole = False


@contextmanager
def _generating_alone(policy: Network | AdaptedNetwork) -> Iterator[None]:
    """Let `generate` of the network, and of an adapter around it, neither wait for other processes nor shard weights.

    By itself, it asks all processes at each token whether they are done, and FSDP2 shards the weights when it returns.
    """
    inner: Network = getattr(policy, "get_base_model", lambda: policy)()
    own = [(vars(network), network) for network in {id(network): network for network in (policy, inner)}.values()]
    before = [attributes.get("generate") for attributes, _ in own]
    for attributes, network in own:
        attributes["generate"] = functools.partial(type(network).generate, network, synced_gpus=False)
    try:
        yield
    finally:
        for (attributes, _), generate in zip(own, before, strict=True):
            del attributes["generate"]
            if generate is not None:
                attributes["generate"] = generate


@contextmanager
def _whole_of_fsdp(trainer: Trainer) -> Iterator[None]:
    import torch
    from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

    model = trainer.model_wrapped
    modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if modules and not hasattr(model, "_unchanged"):
        model._unchanged = lambda value: value
        register_fsdp_forward_method(model, "_unchanged")

    def pass_through() -> torch.Tensor:
        """A forward of the whole model that computes nothing."""
        value = torch.zeros(1, device=trainer.accelerator.device, requires_grad=True)
        return cast("torch.Tensor", model._unchanged(value))

    if modules:
        pass_through()  # a part must not run before the whole has set itself up
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.set_reshard_after_backward(False, recurse=False)
        module.set_requires_gradient_sync(False, recurse=False)
        module.unshard()
    try:
        yield
        if modules:
            # FSDP2 keeps the order of all forwards until the next backward, in which each part gathers the one before
            # it. After forwards that other processes have not made, it would gather what they do not.
            with torch.enable_grad():
                pass_through().backward()  # type: ignore[no-untyped-call]
    finally:
        for module in modules:
            frees = trainer.accelerator.state.fsdp_plugin.reshard_after_forward and module is not model
            module.reshard()
            module.set_reshard_after_forward(bool(frees), recurse=False)
            module.set_reshard_after_backward(True, recurse=False)
            module.set_requires_gradient_sync(trainer.accelerator.sync_gradients, recurse=False)


@contextmanager
def _whole_of_deepspeed(trainer: Trainer) -> Iterator[None]:
    engine = trainer.model_wrapped
    if engine.zero_optimization_stage() < 3:
        yield
        return
    import deepspeed
    from trl.models.utils import add_hooks, remove_hooks

    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        remove_hooks(engine)
        hooks = engine.module._forward_pre_hooks
        left = dict(hooks)  # DeepSpeed's own count of the forwards, which waits for all processes at each
        hooks.clear()
        try:
            yield
        finally:
            hooks.update(left)
            add_hooks(engine)


def part_here(weight: torch.Tensor) -> torch.Tensor:
    """Return the part of a weight that this process holds: all of it, unless it is sharded."""
    from torch.distributed.tensor import DTensor

    here: torch.Tensor = weight.to_local() if isinstance(weight, DTensor) else getattr(weight, "ds_tensor", weight)
    return here


def save_whole(trainer: Trainer, place: Path) -> None:
    """Save the whole model or adapter, also where intermediate checkpoints hold a part for each process."""
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None:
        plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(place))


def gather_head(trainer: Trainer) -> None:
    """Let FSDP2 gather the output head before a forward that reads the head's weights without calling it.

    TRL computes log-probabilities from `lm_head.weight`. Of a head that is sharded by itself, TRL 1.16 gathers the
    weights in a way whose gradient is only that of this process's rows.
    """
    from torch.distributed.fsdp import FSDPModule

    head = trainer.accelerator.unwrap_model(trainer.model_wrapped).get_output_embeddings()
    if isinstance(head, FSDPModule):
        head.unshard()
