"""The way of an image file to the canvas, as the last step of an attack on the file sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from safemed_eval.data.canvas import Canvas
from safemed_eval.data.images.files import fit
from safemed_eval.data.images.resample import Resize


@dataclass(frozen=True)
class FilePath:
    """Shows images of any size on a canvas as `canvas_of` shows files: rounded to 8 bits, resized by Pillow.

    Gradients go through the linear map behind it, see `Resize`: rounding and clipping count as the identity
    (straight through).
    """

    canvas: Canvas

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 in [0, 1] -> (B, 3, h, w) float32 on 8-bit grey levels, differentiable."""
        assert self.canvas.size is not None
        resize = Resize(before=(images.shape[2], images.shape[3]), size=self.canvas.size, how=self.canvas.fit)
        shown: torch.Tensor = _Shown.apply(images, resize)
        return shown


class _Shown(torch.autograd.Function):
    """`files.fit` forward, the transpose of `Resize` backward."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, resize: Resize) -> torch.Tensor:
        ctx.resize = resize
        levels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        shown = np.stack([fit(row, resize.size, resize.how) for row in levels])
        return torch.from_numpy(shown).permute(0, 3, 1, 2).to(images.device).float() / 255

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.resize.transposed(gradient), None
