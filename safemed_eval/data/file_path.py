"""The way of an image file to the canvas, as the last step of an attack on the file sees it."""

from __future__ import annotations

from dataclasses import dataclass

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
        levels = (images.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        rows = np.stack([fit(row, self.canvas.size, self.canvas.fit) for row in levels])
        shown = torch.from_numpy(rows).permute(0, 3, 1, 2).to(images.device).float() / 255
        if not (images.requires_grad and torch.is_grad_enabled()):
            return shown
        resize = Resize(before=(images.shape[2], images.shape[3]), size=self.canvas.size, how=self.canvas.fit)
        linear = resize(images)
        return shown + (linear - linear.detach())  # the very same values
