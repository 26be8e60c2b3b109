"""A transformers checkpoint: a folder, a PEFT adapter, a hub id, or one that ships with this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safemed_eval.models.checkpoints.prompts import Asking
from safemed_eval.models.files.checkpoint import CheckpointFiles, find_checkpoint
from safemed_eval.models.files.contents import Allowed, Json
from safemed_eval.models.source import Source

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class CheckpointSource(CheckpointFiles, Source):
    """A checkpoint's files, as a kind of model."""

    takes_prompts = True
    takes_loading_options = True
    trainable = True
    has_official_path = True

    @classmethod
    def resolve(cls, name: str, allowed: Allowed) -> CheckpointSource:
        return cls(**vars(find_checkpoint(name, allowed)))

    @property
    def fingerprint(self) -> Json:
        return self.hashes

    @property
    def is_adapter(self) -> bool:
        return self.base is not None

    @property
    def parts(self) -> list[tuple[str, Path | None]]:
        return [(files.name, files.folder) for files in (self, self.base) if files] + super().parts

    def load(
        self, device: torch.device, *, dtype: str, attn: str | None, device_map: str | None, asking: Asking
    ) -> object:
        from safemed_eval.models.checkpoints.load import load_checkpoint

        return load_checkpoint(self, device, dtype=dtype, attn=attn, device_map=device_map, asking=asking)

    def load_to_train(
        self, device: torch.device, *, dtype: str, attn: str | None, asking: Asking
    ) -> tuple[Any, object]:
        from safemed_eval.models.checkpoints.load import load_trainable

        return load_trainable(self, device, dtype=dtype, attn=attn, asking=asking)
