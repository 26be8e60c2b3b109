"""Load a checkpoint's files into a VLM: safetensors only and no remote code, unless the user allows more."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import transformers
from packaging.specifiers import SpecifierSet

from safemed_eval.errors import CheckpointError
from safemed_eval.models.checkpoints.generate import Thinker, Writer
from safemed_eval.models.checkpoints.prompts import Asking, Readout
from safemed_eval.models.checkpoints.protocols import AdaptedNetwork, Network, Processor
from safemed_eval.models.checkpoints.vlm import VLM
from safemed_eval.models.files.checkpoint import CheckpointFiles
from safemed_eval.models.files.contents import Json, one_line, read_json
from safemed_eval.models.files.strays import refuse_adapter_strays, refuse_strays
from safemed_eval.models.finite import refuse_not_finite

READOUTS: dict[Readout, type[VLM]] = {"choice": VLM, "generate": Writer, "think-choice": Thinker}
"""The class that reads answers, by readout."""
BROKEN = {"llama4": (SpecifierSet("==5.24.0"), "its forward asks for outputs that are not there (image_outputs)")}
"""Families that some versions of transformers cannot run, by model type: those versions, and the fault."""


def load_checkpoint(
    files: CheckpointFiles,
    device: torch.device,
    *,
    dtype: str,
    attn: str | None,
    device_map: str | None,
    asking: Asking,
) -> VLM:
    """Load model and processor; an adapter is put on its base, unmerged.

    Raises:
        CheckpointError: transformers or peft cannot load it, weights are missing, left over or not finite, or it
            cannot be asked.
    """
    model = _model(files.base or files, device, dtype, attn, device_map)
    if files.base:
        model = _with_adapter(model, files).get_base_model()
    refuse_not_finite(model, f"--model {files.name}")
    return READOUTS[asking.readout](model.eval().requires_grad_(False), _processor(files), asking)


def load_trainable(
    files: CheckpointFiles, device: torch.device, *, dtype: str, attn: str | None, asking: Asking
) -> tuple[Network, VLM]:
    """Load a checkpoint to continue its training: all of its weights, or those of the adapter.

    Returns:
        The network, or the adapter around it, for the trainer; and the same network as a VLM.
    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    model = _model(files.base or files, device, dtype, attn, device_map=None)
    policy = _with_adapter(model, files, trainable=True) if files.base else model
    refuse_not_finite(policy, f"--model {files.name}")
    return policy, VLM(model.eval(), _processor(files), asking)


def merge_adapter(files: CheckpointFiles, folder: Path) -> None:
    """Save the base of an adapter, with the adapter's changes in its weights, and the processor.

    Weights are added in float32 and rounded to the data type of the base.

    Raises:
        CheckpointError: as `load_checkpoint`, or the base is quantized.
    """
    assert files.base is not None
    config = _config(files.base)
    if "quantization_config" in config:
        raise CheckpointError(f"--model {files.name}: its base is quantized, which an adapter cannot be merged into")
    model = _model(files.base, torch.device("cpu"), "float32", attn=None, device_map=None)
    merged = _with_adapter(model, files).merge_and_unload()
    refuse_not_finite(merged, f"--model {files.name}")
    dtype: torch.dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32"))
    merged.to(dtype).save_pretrained(folder)
    _processor(files).save_pretrained(folder)


def _model(
    files: CheckpointFiles, device: torch.device, dtype: str, attn: str | None, device_map: str | None
) -> Network:
    from transformers import AutoModelForImageTextToText

    if fault := upstream_fault(_config(files).get("model_type")):
        raise CheckpointError(f"--model {files.name}: {fault}")
    quantized = "quantization_config" in _config(files)
    settings: dict[str, object] = {
        "dtype": _dtype(dtype, device, quantized),
        "trust_remote_code": files.trust_remote_code,
        "use_safetensors": not files.allow_pickle or _safetensors(files),
        "output_loading_info": True,
        "local_files_only": True,
    }
    if attn:
        settings["attn_implementation"] = attn
    if device_map or quantized:
        settings["device_map"] = device_map or {"": str(device)}
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(str(files.folder), **settings)
    except Exception as error:  # transformers raises exceptions of every kind for an unfit file
        raise CheckpointError(f"--model {files.name}: transformers cannot load it: {one_line(error)}") from error
    absent = sorted({*info.get("missing_keys", ()), *map(str, info.get("mismatched_keys", ()))})
    if absent:
        raise CheckpointError(
            f"--model {files.name}: {len(absent)} weights are missing or misshapen in its files, such as {absent[0]}; "
            "they would be random"
        )
    refuse_strays(files, model, info.get("unexpected_keys", ()))
    patches_as_products(model)
    network: Network = model if "device_map" in settings else model.to(device)
    return network


def patches_as_products(model: Network | torch.nn.Module) -> None:
    """Compute patch convolutions as matrix products wherever the input is a single patch, which gives the same result.

    Qwen's image encoders get one cut-out patch per row; on a CPU, the gradient of their convolution takes a quarter of
    an attack's time. The weights and their names stay.
    """
    for module in model.modules():
        if not isinstance(module, torch.nn.Conv3d) or module.groups > 1 or module.padding != (0, 0, 0):
            continue
        if module.kernel_size == module.stride and module.dilation == (1, 1, 1):
            module.forward = partial(_product, module, module.forward)  # type: ignore[method-assign]


def _product(
    module: torch.nn.Conv3d, convolve: Callable[[torch.Tensor], torch.Tensor], patches: torch.Tensor
) -> torch.Tensor:
    if patches.ndim != 5 or tuple(patches.shape[-3:]) != module.kernel_size:
        return convolve(patches)
    return torch.nn.functional.linear(patches.flatten(1), module.weight.flatten(1), module.bias)[..., None, None, None]


def _with_adapter(model: Network, files: CheckpointFiles, *, trainable: bool = False) -> AdaptedNetwork:
    try:
        from peft import PeftModel
    except ImportError:
        raise CheckpointError(
            f"--model {files.name}: a PEFT adapter needs peft; pip install 'safemed-eval[train]'"
        ) from None
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            wrapped: AdaptedNetwork = PeftModel.from_pretrained(model, str(files.folder), is_trainable=trainable)
    except Exception as error:
        raise CheckpointError(f"--model {files.name}: peft cannot load the adapter: {one_line(error)}") from error
    missing = [str(warning.message) for warning in said if "missing adapter keys" in str(warning.message)]
    if missing:
        raise CheckpointError(f"--model {files.name}: weights are missing in the adapter: {missing[0][:200]}")
    if wrapped.active_peft_config.is_prompt_learning:
        raise CheckpointError(
            f"--model {files.name}: a {wrapped.active_peft_config.peft_type.value} adapter changes the prompt; only "
            "adapters of weights, such as LoRA, can be evaluated"
        )
    refuse_adapter_strays(files, wrapped)
    return wrapped


def _processor(files: CheckpointFiles) -> Processor:
    from transformers import AutoProcessor

    place = files if files.has_processor or files.base is None else files.base
    try:
        processor: Processor = AutoProcessor.from_pretrained(
            str(place.folder), trust_remote_code=files.trust_remote_code, local_files_only=True
        )
    except Exception as error:
        raise CheckpointError(f"--model {files.name}: its processor cannot be loaded: {one_line(error)}") from error
    refuse_unusable_processor(processor, files.name)
    processor.tokenizer.init_kwargs.pop("local_files_only", None)  # ours, of this call: not to be saved with it
    if processor.tokenizer.pad_token_id is None:
        if processor.tokenizer.eos_token_id is None:
            raise CheckpointError(f"--model {files.name}: its tokenizer has neither a padding nor an end token")
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def refuse_unusable_processor(processor: Processor, name: str) -> None:
    """Raise CheckpointError if a processor lacks a part, or works on 8-bit images only; `name` is the model's."""
    for part in ("image_processor", "tokenizer"):
        if getattr(processor, part, None) is None:
            raise CheckpointError(f"--model {name}: its processor has no {part}; is it an image-text model?")
    if getattr(processor.image_processor, "backend", None) == "pil":
        raise CheckpointError(
            f"--model {name}: {type(processor.image_processor).__name__} works on 8-bit images only: neither "
            "noise nor gradients pass; for processors that resize with Lanczos, torchvision 0.27 brings another"
        )


def _dtype(name: str, device: torch.device, quantized: bool) -> torch.dtype | Literal["auto"]:
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    return torch.float32 if device.type == "cpu" and not quantized else "auto"


def _config(files: CheckpointFiles) -> Json:
    return read_json(files.folder / "config.json")


def upstream_fault(model_type: str | None) -> str | None:
    """Say why this version of transformers cannot run a family of models; None if it can."""
    versions, fault = BROKEN.get(str(model_type), (None, ""))
    if versions is None or transformers.__version__ not in versions:
        return None
    return f"transformers {transformers.__version__} breaks {model_type}: {fault}; install another version"


def _safetensors(files: CheckpointFiles) -> bool:
    return any(files.folder.glob("*.safetensors"))
