"""Attacked images kept for figures, without loss."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from safemed_eval.core import Item
from safemed_eval.errors import RunError

Pixels = npt.NDArray[np.float32]


class Keeper:
    """Stores these items under each attack below `out/images`, as Evaluation's `keep`.

    `NAME.clean.png` is the canvas. The attacked canvas is `NAME.adv.png` where it is on 8-bit grey levels, else
    `NAME.adv.npy`, (3, H, W) float32 in [0, 1]: rounding would undo part of it.
    """

    def __init__(self, out: Path, items: Sequence[Item], quantized: bool) -> None:
        self._folder = out / "images"
        self._ids = {item.id for item in items}
        self._quantized = quantized

    def wants(self, item: Item, condition: str) -> bool:
        """Whether it stores this item under this condition."""
        return condition != "clean" and item.id in self._ids

    def __call__(
        self, item: Item, condition: str, clean: Any, attacked: Any, *, called: Callable[[str], str] = str
    ) -> None:
        """Store one item; canvases are (3, H, W) tensors, `called` says what its records call it."""
        if not self.wants(item, condition):
            return
        try:
            self._store(called(item.id), condition, clean, attacked)
        except OSError as error:
            raise RunError(f"{self._folder}: cannot be written: {error.strerror}; the same command goes on") from None

    def _store(self, item: str, condition: str, clean: Any, attacked: Any) -> None:
        stem = _stem(self._folder, item, condition)
        Path(stem).parent.mkdir(parents=True, exist_ok=True)
        _save_png(Path(f"{stem}.clean.png"), clean)
        if self._quantized:
            _save_png(Path(f"{stem}.adv.png"), attacked)
        else:
            np.save(f"{stem}.adv.npy", attacked.cpu().numpy())


def keep_refuting(out: Path, item: str, share: float, canvas: Any) -> None:
    """Store the (3, H, W) float32 canvas that proves an item's certificate false, as `falsified/NAME.npy`."""
    stem = Path(_stem(out / "falsified", item, f"at {share:g}"))
    stem.parent.mkdir(parents=True, exist_ok=True)
    np.save(f"{stem}.npy", canvas.cpu().numpy())


def kept(out: Path, item: str, condition: str) -> tuple[Pixels, Pixels] | None:
    """What `Keeper` stored of an item under an attack: clean and attacked canvas, (H, W, 3) float32 in [0, 1].

    Returns:
        None where it stored nothing.
    Raises:
        RunError: a file is damaged.
    """
    stem = _stem(out / "images", item, condition)
    clean, exact, rounded = (Path(f"{stem}.{end}") for end in ("clean.png", "adv.npy", "adv.png"))
    try:
        if not clean.exists():
            return None
        attacked = np.moveaxis(np.load(exact), 0, 2) if exact.exists() else _read_png(rounded)
        return _read_png(clean), attacked.astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{stem}.*: an image that was kept cannot be read: {error}") from None


def _stem(folder: Path, item: str, condition: str) -> str:
    """The path of an item's images without their endings: readable, and different for different items."""
    name = f"{re.sub(r'[^A-Za-z0-9.-]+', '_', item)[-60:]}-{hashlib.sha256(item.encode()).hexdigest()[:8]}"
    return str(folder / re.sub(r"[^A-Za-z0-9.=,-]+", "_", condition) / name)


def _read_png(file: Path) -> Pixels:
    with Image.open(file) as image:
        return (np.asarray(image.convert("RGB")) / 255).astype(np.float32)


def _save_png(file: Path, canvas: Any) -> None:
    pixels = (canvas.cpu().numpy() * 255).round().astype(np.uint8)
    Image.fromarray(np.moveaxis(pixels, 0, 2)).save(file)
