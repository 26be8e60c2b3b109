"""Lossless storage of attacked images for figures."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from safemed_eval.attacks import Attack
from safemed_eval.core import CLEAN, Item
from safemed_eval.errors import RunError
from safemed_eval.runs.record import EvaluateRecord, Record

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.float32]

_ENDS = ("clean.png", "adv.npy", "adv.png")


class Keeper:
    """Stores the canvases of up to `most` items under each attack below `out/images`.

    Items that are right when clean and wrong under the attack are kept first, in the order of the data; then the
    others among the first `most` items for which the attack is available. The choice depends neither on the order in
    which work is done, nor on workers or restarts: images that were stored too early are deleted once better ones are
    known.

    `NAME.clean.png` is the canvas. The attacked canvas is `NAME.adv.png` where it is on 8-bit grey levels, else
    `NAME.adv.npy`, (3, H, W) float32 in [0, 1]: rounding would undo part of it.

    Args:
        called: maps an item's id to its name in the run folder.
        chosen: the run's attacks by spec string; one that is missing counts as available for all items.
    """

    def __init__(
        self,
        out: Path | None,
        items: Sequence[Item],
        most: int,
        *,
        quantized: bool,
        called: Callable[[str], str] = str,
        chosen: Mapping[str, Attack] | None = None,
    ) -> None:
        self._folder, self._most, self._quantized = (out or Path()) / "images", most, quantized
        self._items, self._chosen = items, chosen or {}
        self._places: dict[str, dict[str, int]] = {}
        """The place of each item among those for which a condition is available, by condition."""
        self._names = {item.id: called(item.id) for item in items}
        self._right: dict[tuple[str, str], bool | None] = {}
        """(item, condition) -> True if answered correctly; None where the item failed."""
        self._held: dict[str, set[str]] = defaultdict(set)
        """Ids of the stored items, by condition."""

    def wants(self, item: Item, condition: str, wrong: bool) -> bool:
        """Return True if the item may be kept; `wrong`: the attacked answer is wrong."""
        return condition != CLEAN and self._most > 0 and (wrong or self._place(condition, item.id) < self._most)

    def __call__(self, item: Item, condition: str, clean: torch.Tensor, attacked: torch.Tensor) -> None:
        """Store one item, unless enough better ones are stored; canvases are (3, H, W) tensors.

        Raises:
            RunError: the folder cannot be written.
        """
        best = (False, self._place(condition, item.id))
        if sum(self._rank(condition, held) < best for held in self._held[condition]) >= self._most:
            self._delete(item.id, condition)  # an earlier start may have stored it
            return
        self._held[condition].add(item.id)
        with self._written():
            stem = _stem(self._folder, self._names[item.id], condition)
            Path(stem).parent.mkdir(parents=True, exist_ok=True)
            _save_png(Path(f"{stem}.clean.png"), clean)
            if self._quantized:
                _save_png(Path(f"{stem}.adv.png"), attacked)
            else:
                np.save(f"{stem}.adv.npy", attacked.cpu().numpy())

    def resume(self, records: Iterable[Record]) -> None:
        """Restore the state that an earlier start left, from the records of the run folder."""
        items = {name: item for item, name in self._names.items()}
        known = [replace(r, item=items[r.item]) for r in records if isinstance(r, EvaluateRecord)]
        for record in known:
            if Path(f"{_stem(self._folder, self._names[record.item], record.attack)}.{_ENDS[0]}").exists():
                self._held[record.attack].add(record.item)
        self._learn(known)

    def following(self, groups: Iterable[Sequence[EvaluateRecord]]) -> Iterator[Sequence[EvaluateRecord]]:
        """Yield the groups of records unchanged, after deleting stored images that they show to be of no use."""
        for records in groups:
            self._learn(records)
            yield records

    def _learn(self, records: Iterable[EvaluateRecord]) -> None:
        self._right |= {(r.item, r.attack): None if r.failed else r.correct for r in records}
        for condition, held in self._held.items():
            known = [item for item in held if {(item, CLEAN), (item, condition)} <= self._right.keys()]
            ranks = {self._rank(condition, item): item for item in known}
            best = [rank for rank in sorted(ranks) if rank < (True, self._most)][: self._most]
            for item in (item for rank, item in ranks.items() if rank not in best):
                held.remove(item)
                self._delete(item, condition)

    def _rank(self, condition: str, item: str) -> tuple[bool, int]:
        """Return the sort key of an item, lowest kept first: False if it is known to turn wrong, then its place."""
        turned = self._right.get((item, CLEAN)) is True and self._right.get((item, condition)) is False
        return not turned, self._place(condition, item)

    def _place(self, condition: str, item: str) -> int:
        if condition not in self._places:
            attack = self._chosen.get(condition)
            met = [known.id for known in self._items if not (attack and attack.unavailable(known))]
            self._places[condition] = {name: place for place, name in enumerate(met)}
        return self._places[condition][item]

    def _delete(self, item: str, condition: str) -> None:
        stem = _stem(self._folder, self._names[item], condition)
        with self._written():
            for end in _ENDS:
                Path(f"{stem}.{end}").unlink(missing_ok=True)

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"{self._folder}: cannot be written: {error.strerror}; the same command goes on") from None


def keep_refuting(out: Path, item: str, share: float, canvas: torch.Tensor) -> None:
    """Store the (3, H, W) float32 canvas that proves an item's certificate false, as `falsified/NAME.npy`."""
    stem = Path(_stem(out / "falsified", item, f"at {share:g}"))
    stem.parent.mkdir(parents=True, exist_ok=True)
    np.save(f"{stem}.npy", canvas.cpu().numpy())


def kept(out: Path, item: str, condition: str) -> tuple[Pixels, Pixels] | None:
    """Read the clean and the attacked canvas that `Keeper` stored, (H, W, 3) float32 in [0, 1].

    Returns:
        None if nothing was stored for this item and attack.
    Raises:
        RunError: a file is damaged.
    """
    stem = _stem(out / "images", item, condition)
    clean, exact, rounded = (Path(f"{stem}.{end}") for end in _ENDS)
    try:
        if not clean.exists():
            return None
        attacked = np.moveaxis(np.load(exact), 0, 2) if exact.exists() else _read_png(rounded)
        return _read_png(clean), attacked.astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{stem}.*: an image that was kept cannot be read: {error}") from None


def _stem(folder: Path, item: str, condition: str) -> str:
    """Return the path of an item's images without their endings: readable, and unique to the item."""
    name = f"{re.sub(r'[^A-Za-z0-9.-]+', '_', item)[-60:]}-{hashlib.sha256(item.encode()).hexdigest()[:8]}"
    return str(folder / re.sub(r"[^A-Za-z0-9.=,-]+", "_", condition) / name)


def _read_png(file: Path) -> Pixels:
    with Image.open(file) as image:
        return (np.asarray(image.convert("RGB")) / 255).astype(np.float32)


def _save_png(file: Path, canvas: torch.Tensor) -> None:
    pixels = (canvas.cpu().numpy() * 255).round().astype(np.uint8)
    Image.fromarray(np.moveaxis(pixels, 0, 2)).save(file)
