"""Attacked images kept for figures, without loss."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from safemed_eval.core import Item
from safemed_eval.errors import RunError


class Keeper:
    """Stores these items under each attack below `out/images`, as Evaluation's `keep`.

    `NAME.clean.png` is the canvas. The attacked canvas is `NAME.adv.png` where it is on 8-bit grey levels, else
    `NAME.adv.npy`, (3, H, W) float32 in [0, 1]: rounding would undo part of it.
    """

    def __init__(self, out: Path, items: Sequence[Item], quantized: bool) -> None:
        self._folder = out / "images"
        self._ids = {item.id for item in items}
        self._quantized = quantized

    def __call__(self, item: Item, condition: str, clean: Any, attacked: Any) -> None:
        """Store one item; canvases are (3, H, W) tensors."""
        if condition == "clean" or item.id not in self._ids:
            return
        try:
            self._store(item, condition, clean, attacked)
        except OSError as error:
            raise RunError(f"{self._folder}: cannot be written: {error.strerror}; the same command goes on") from None

    def _store(self, item: Item, condition: str, clean: Any, attacked: Any) -> None:
        folder = self._folder / re.sub(r"[^A-Za-z0-9.=,-]+", "_", condition)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{re.sub(r'[^A-Za-z0-9.-]+', '_', item.id)[-60:]}-{hashlib.sha256(item.id.encode()).hexdigest()[:8]}"
        _save_png(folder / f"{name}.clean.png", clean)
        if self._quantized:
            _save_png(folder / f"{name}.adv.png", attacked)
        else:
            np.save(folder / f"{name}.adv.npy", attacked.cpu().numpy())


def _save_png(file: Path, canvas: Any) -> None:
    pixels = (canvas.cpu().numpy() * 255).round().astype(np.uint8)
    Image.fromarray(np.moveaxis(pixels, 0, 2)).save(file)
