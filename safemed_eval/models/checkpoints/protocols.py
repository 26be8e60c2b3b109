"""The parts of transformers' networks, processors and tokenizers that this package uses, as protocols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    import torch

Tensors: TypeAlias = "Mapping[str, torch.Tensor]"


class Output(Protocol):
    """What a network's forward returns."""

    logits: torch.Tensor


class GenerationSettings(Protocol):
    """A network's settings for generating text."""

    bos_token_id: int | None
    eos_token_id: int | Sequence[int] | None


class Network(Protocol):
    """A transformers model for image-text-to-text."""

    config: Any
    generation_config: GenerationSettings
    training: bool

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def __call__(self, **inputs: object) -> Output: ...
    def forward(self, **inputs: object) -> Output: ...
    def generate(self, **inputs: object) -> torch.Tensor: ...
    def get_output_embeddings(self) -> torch.nn.Module | None: ...
    def get_decoder(self) -> Any: ...
    def eval(self) -> Self: ...
    def requires_grad_(self, requires_grad: bool = ...) -> Self: ...
    def to(self, place: torch.device | torch.dtype) -> Self: ...
    def state_dict(self) -> Mapping[str, torch.Tensor]: ...
    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]: ...
    def named_buffers(self) -> Iterator[tuple[str, torch.Tensor]]: ...
    def train(self, mode: bool = ...) -> object: ...
    def modules(self) -> Iterator[torch.nn.Module]: ...
    def named_modules(self) -> Iterator[tuple[str, torch.nn.Module]]: ...
    def get_submodule(self, name: str) -> torch.nn.Module: ...
    def get_encoder(self, modality: str) -> torch.nn.Module: ...
    def parameters(self) -> Iterator[torch.nn.Parameter]: ...
    def buffers(self) -> Iterator[torch.Tensor]: ...
    def save_pretrained(self, folder: Path) -> object: ...


class AdaptedNetwork(Network, Protocol):
    """A network with a PEFT adapter on it."""

    active_peft_config: Any

    def get_base_model(self) -> Network: ...
    def merge_and_unload(self) -> Network: ...


class Tokenizer(Protocol):
    """A tokenizer of transformers."""

    added_tokens_decoder: Mapping[int, Any]
    all_special_tokens: Sequence[str]
    bos_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token: str | None
    pad_token_id: int | None
    eos_token: str | None
    init_kwargs: dict[str, object]
    unk_token_id: int | None

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, list[int]]: ...
    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = ...) -> str: ...
    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]: ...
    def convert_tokens_to_ids(self, tokens: str) -> int: ...


class ImageProcessor(Protocol):
    """The part of a processor that turns images into tensors.

    One that normalises has `do_normalize` and `image_mean`, a number for each channel in [0, 1] units; see
    `processor.mean_colour`.
    """

    def __call__(self, images: Sequence[Any], **settings: object) -> Tensors: ...


class Processor(Protocol):
    """A processor of transformers: a tokenizer and an image processor."""

    tokenizer: Tokenizer
    image_processor: ImageProcessor

    def __call__(self, *, text: Sequence[str], images: Sequence[Any] = ..., **settings: object) -> Tensors: ...
    def save_pretrained(self, folder: Path) -> object: ...
    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], **settings: object) -> str: ...
