"""Models that are in memory already: an object of your own, or a network and processor of transformers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from safemed_eval.errors import CheckpointError, SpecError
from safemed_eval.models.checkpoints.prompts import Asking, Template
from safemed_eval.models.files.contents import Json, hash_files
from safemed_eval.models.files.notes import template_in
from safemed_eval.models.source import Source

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedObject(Source):
    """An object of yours with the methods that `scorer.Scorer` describes.

    Its weights are not known, so two runs of it never count as runs of the same weights.
    """

    disregards = "an object of your own; let it decide"
    can_be_sent = False

    model: object

    @property
    def fingerprint(self) -> Json:
        return {"object": f"{type(self.model).__module__}.{type(self.model).__qualname__}"}

    @property
    def device(self) -> str | None:
        return _device_of(self.model)

    def load(
        self, device: torch.device, *, dtype: str, attn: str | None, device_map: str | None, asking: Asking
    ) -> object:
        _refuse_not_finite(self.model, self.name)
        return self.model


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedNetwork(Source):
    """A network for image-text-to-text and its processor, as transformers loads them.

    The network must be in eval mode. Its weights, its gradients' settings and its generation settings are afterwards
    what they were before: what this package changes during a call it puts back.
    """

    takes_prompts = True
    has_official_path = True
    can_be_sent = False
    disregards = "a network that is loaded already; load it so"

    network: PreTrainedModel
    processor: ProcessorMixin

    @cached_property
    def _hashes(self) -> Json:
        return {"weights_sha256": _hash_weights(self.network), "settings_sha256": self._hash_settings()}

    @property
    def fingerprint(self) -> Json:
        """Hashes of the weights and buffers, and of the settings of network and processor."""
        return self._hashes

    def _hash_settings(self) -> str:
        config = {key: value for key, value in self.network.config.to_dict().items() if key != "_name_or_path"}
        with TemporaryDirectory() as folder:
            self.processor.save_pretrained(folder)
            (Path(folder) / "config.json").write_text(json.dumps(config, sort_keys=True, default=str))
            return hash_files(file for file in Path(folder).rglob("*") if file.is_file())

    @property
    def template(self) -> Template | None:
        """The template that the network was trained with here, by the note in the folder that it was loaded from."""
        return template_in(Path(self.network.name_or_path)) if self.network.name_or_path else None

    @property
    def asks_for_the_date(self) -> bool:
        return "strftime_now" in str(getattr(self.processor, "chat_template", None))

    @property
    def device(self) -> str | None:
        return str(self.network.device)

    def load(
        self, device: torch.device, *, dtype: str, attn: str | None, device_map: str | None, asking: Asking
    ) -> object:
        from safemed_eval.models.checkpoints.load import READOUTS, refuse_unusable_processor

        if self.network.training:
            raise CheckpointError(
                f"--model {self.name}: the network is in training mode, in which dropout makes its answers random; "
                "call its eval() before"
            )
        if str(device) != self.device:
            raise CheckpointError(
                f"--device {device}: the network {self.name} is on {self.device} already; move it there, or leave the "
                "device to it"
            )
        refuse_unusable_processor(self.processor, self.name)
        if self.processor.tokenizer.pad_token_id is None:
            raise CheckpointError(
                f"--model {self.name}: its tokenizer has no padding token; set processor.tokenizer.pad_token, to its "
                "eos_token for example"
            )
        _refuse_not_finite(self.network, self.name)
        return READOUTS[asking.readout](self.network, self.processor, asking)


def source_of(model: object) -> LoadedObject | LoadedNetwork:
    """Describe an object that the user passed in place of a name.

    Raises:
        SpecError: it is neither a model nor a pair of network and processor.
    """
    if isinstance(model, tuple):
        if len(model) != 2 or not hasattr(model[0], "parameters") or not hasattr(model[1], "tokenizer"):
            raise SpecError(
                "a model that is loaded already is a pair (network, processor) of transformers, got "
                f"({', '.join(type(part).__name__ for part in model)})"
            )
        network, processor = model
        return LoadedNetwork(name=type(network).__name__, network=network, processor=processor)
    from safemed_eval.models.scorer import ANSWERING

    if any(callable(getattr(model, method, None)) for method in ANSWERING):
        return LoadedObject(name=type(model).__name__, model=model)
    hint = "; pass a network of transformers with its processor, (network, processor)"
    raise SpecError(
        f"a model has at least one of {', '.join(map(repr, ANSWERING))}, and {type(model).__name__} has none"
        + hint * hasattr(model, "generate")
    )


def _device_of(model: object) -> str | None:
    """The device of a module's weights; None for what is no module, or has none."""
    import torch

    weights = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
    first = next(weights, None)
    return None if first is None else str(first.device)


def _refuse_not_finite(model: object, name: str) -> None:
    import torch

    from safemed_eval.models.finite import refuse_not_finite

    if isinstance(model, torch.nn.Module):
        refuse_not_finite(model, f"--model {name}")


def _hash_weights(network: torch.nn.Module) -> str:
    """sha256 over name, type, shape and bytes of every parameter and buffer, in the network's own order."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.is_meta:
            raise CheckpointError(f"the weight {name} is offloaded: the network cannot be identified by its weights")
        digest.update(f"{name}\n{tensor.dtype}\n{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
