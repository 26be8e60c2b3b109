"""Denoisers, for models that were not trained on noisy images.

Denoised smoothing (Salman et al. 2020, arXiv:2003.01908): certificates of the model behind a denoiser are as sound as
any others, because a fixed map may follow the noise; how much they certify depends on the denoiser.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from safemed_eval.errors import CheckpointError
from safemed_eval.models.files.contents import one_line, read_json
from safemed_eval.models.files.denoiser_source import SETTINGS, WEIGHTS, DenoiserSource
from safemed_eval.models.finite import refuse_not_finite
from safemed_eval.models.kinds.python import call_factory
from safemed_eval.models.waist import Denoise


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a `ResidualDenoiser`.

    Args:
        width: channels of its inner layers.
        blocks: its residual blocks, two convolutions each.
    """

    width: int = 64
    blocks: int = 4

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, got {value!r}")


class ResidualDenoiser(nn.Module):
    """Subtracts the noise that a few 3 x 3 convolutions predict, at any image size; untrained, it is the identity.

    Source:
        DnCNN (Zhang et al. 2017, arXiv:1608.03981), which predicts the noise. Differs: it works on the four half-size
        images of every second pixel, as FFDNet (Zhang et al. 2018, arXiv:1710.04026) does, for twice the receptive
        field in a quarter of the time. Inner layers are residual blocks without batch normalization, as in EDSR (Lim et
        al. 2017, arXiv:1707.02921): they learn many times faster here, and keep the rows of a batch independent.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.head = nn.Conv2d(12, shape.width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(shape.width) for _ in range(shape.blocks))
        self.tail = _zero(nn.Conv2d(shape.width, 12, 3, padding=1))

    def forward(self, canvas: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        height, width = canvas.shape[-2:]
        even = F.pad(canvas, (0, width % 2, 0, height % 2), mode="replicate")
        hidden = self.head(F.pixel_unshuffle(even, 2))
        for block in self.blocks:
            hidden = block(hidden)
        noise = F.pixel_shuffle(self.tail(hidden), 2)
        return canvas - noise[..., :height, :width]


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = _zero(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = self.second(self.first(hidden).relu())
        return hidden + change


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    for value in layer.parameters():
        nn.init.zeros_(value)
    return layer


def save_denoiser(denoiser: ResidualDenoiser, folder: Path) -> None:
    """Write weights and settings; `--denoiser FOLDER` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in denoiser.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    (folder / SETTINGS).write_text(json.dumps(asdict(denoiser.shape)), encoding="utf-8")


def load_denoiser(source: DenoiserSource, device: torch.device) -> Denoise:
    """Load what `source` names.

    Raises:
        CheckpointError: it cannot be read, its weights are not finite, or it cannot be called.
    """
    if source.kind == "python":
        denoise = call_factory(source.name, device, option="--denoiser")
        if not callable(denoise):
            raise CheckpointError(f"--denoiser {source.name}: what the factory returned cannot be called")
        return denoise  # type: ignore[no-any-return]
    assert source.path is not None
    load = _load_program if source.kind == "program" else _load_trained
    denoise = load(source.path, device)
    refuse_not_finite(denoise, f"--denoiser {source.name}")
    denoise.requires_grad_(False)
    return denoise


def _load_trained(folder: Path, device: torch.device) -> nn.Module:
    settings = read_json(folder / SETTINGS)
    try:
        denoiser = ResidualDenoiser(Shape(**settings))
        denoiser.load_state_dict(load_file(folder / WEIGHTS))
    except (TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"--denoiser {folder}: cannot be read: {one_line(error)}") from None
    return denoiser.to(device)


def _load_program(file: Path, device: torch.device) -> nn.Module:
    from torch.export import load
    from torch.export.passes import move_to_device_pass

    try:
        with _quiet_export():
            module: Any = move_to_device_pass(load(file), device).module()
    except Exception as error:  # torch raises exceptions of every kind for an unfit file
        raise CheckpointError(f"--denoiser {file}: torch.export cannot load it: {one_line(error)}") from error
    return module  # type: ignore[no-any-return]


@contextmanager
def _quiet_export() -> Iterator[None]:
    """Silence torch.export, which logs a traceback for a broken file; our own error is enough.

    Below torch 2.12 it also warns of the weights' memory, which nothing writes to.
    """
    log = logging.getLogger("torch.export")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given buffer is not writable")
            yield
    finally:
        log.setLevel(before)
