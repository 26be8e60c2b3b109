"""Attacks that are fitted on some of the items before they are tried on others: the split, the unit, the stored result.

The result is made once for a run, by one worker, and is stored in the run folder, so that all items are tried with the
same one, in all workers and after a restart.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from safemed_eval.attacks import Attack
from safemed_eval.core import Item
from safemed_eval.errors import RunError, SpecError
from safemed_eval.files import NEW
from safemed_eval.seeds import seed_of
from safemed_eval.threat import TOLERANCE

Fitted = npt.NDArray[np.float32]
"""(3, H, W), what `Attack.fit` returned."""


def half_of(items: Sequence[Item], seed: int) -> tuple[Item, ...]:
    """Return the items to fit on: those of one half of the patients, or of the images where there are no patients.

    The half is drawn by the seed alone, and is the same for all attacks. Of an odd number the larger part is tried.

    Raises:
        SpecError: all items are of one patient or image.
    """
    clusters = sorted({item.cluster for item in items}, key=lambda cluster: (seed_of(seed, "fit", cluster), cluster))
    if len(clusters) < 2:
        raise SpecError(
            "one half of the patients or images is fitted on, the other tried: there is only one in the data"
        )
    half = set(clusters[: len(clusters) // 2])
    return tuple(item for item in items if item.cluster in half)


def fitted_for(
    attacks: Iterable[Attack],
    items: Sequence[Item],
    fitted_on: Sequence[Item],
    *,
    fit: Callable[[Attack], Fitted],
    place: Path | None,
    done: Callable[[str, str], bool],
) -> dict[str, Fitted]:
    """Read, or make and store, the result of each fit that missing records need; by the attack's spec string.

    Args:
        fit: makes the result.
        place: the run folder; None: nothing is stored.
        done: tells whether an item has its record under a condition.
    Raises:
        RunError: a fit failed, or its result is missing, damaged, or cannot be written.
    """
    tried = {item.id for item in items} - {item.id for item in fitted_on}
    results = {}
    for attack in attacks:
        recorded = {item for item in tried if done(item, str(attack))}
        if recorded == tried:
            continue
        file = _file(place, attack) if place else None
        if file and file.exists():
            results[str(attack)] = _read(file, attack)
            continue
        if recorded:
            raise RunError(f"{file}: is missing, and {len(recorded)} items were tried with it; choose another --out")
        result = fit(attack)
        if file:
            _write(file, result, attack)
        results[str(attack)] = result
    return results


def _file(place: Path, attack: Attack) -> Path:
    return place / "fitted" / f"{attack.name}-{hashlib.sha256(str(attack).encode()).hexdigest()[:12]}.npz"


def _read(file: Path, attack: Attack) -> Fitted:
    try:
        with np.load(file, allow_pickle=False) as stored:
            result: Fitted = stored["fitted"]
            if str(stored["attack"]) != str(attack) or result.ndim != 3 or result.dtype != np.float32:
                raise ValueError("is of another attack")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RunError(f"{file}: cannot be read ({error}); choose another --out") from None
    size = np.abs(result).max() if attack.threat.norm == "linf" else np.linalg.norm(result.astype(np.float64))
    if not size <= attack.threat.eps + TOLERANCE * max(1.0, attack.threat.eps):
        raise RunError(f"{file}: is larger than the eps of {attack}; choose another --out")
    return result


def _write(file: Path, result: Fitted, attack: Attack) -> None:
    new = file.with_name(file.name + NEW)
    try:
        file.parent.mkdir(exist_ok=True)
        with new.open("wb") as stream:
            np.savez(stream, fitted=result, attack=np.array(str(attack)))
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror}") from None
