"""From options to the items of a run: they are chosen and verified, and bad ones are refused or left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from safemed_eval import data as datasets
from safemed_eval.cli._options import DataOptions
from safemed_eval.cli._show import listed, progress
from safemed_eval.data import DataSet
from safemed_eval.errors import DataError

_BAD_SHOWN = 1000


def load_usable(loaded: DataSet, options: DataOptions, seed: int) -> DataSet:
    """Select and verify; refuse bad items, or under --skip-bad draw others for them as far as there are any."""
    while True:
        with progress("reading images", transient=True) as tick:
            chosen = datasets.verify(select(loaded, options, seed), tick)
        if chosen.bad and not options.skip_bad:
            raise DataError(_bad_items(chosen, options.data))
        new = {bad.id for bad in chosen.bad} - {bad.id for bad in loaded.bad}
        if not new:
            break
        kept = tuple(item for item in loaded.items if item.id not in new)
        loaded = replace(loaded, items=kept, bad=chosen.bad)
    if not chosen.items:
        raise DataError(f"--data {options.data}: none of the {len(chosen.bad)} items can be used: {chosen.bad[0]}")
    return chosen


def select(loaded: DataSet, options: DataOptions, seed: int) -> DataSet:
    return datasets.select(
        loaded,
        seed=seed,
        per_group=options.per_group,
        limit=options.limit,
        modalities=options.modality or (),
        question_types=options.question_type or (),
    )


def selection(options: DataOptions) -> dict[str, Any]:
    """Which items were asked for, for a spec."""
    return {
        "modality": sorted({name.casefold() for name in options.modality or ()}),
        "question_type": sorted({name.casefold() for name in options.question_type or ()}),
        "per_group": options.per_group,
        "limit": options.limit,
    }


def _bad_items(chosen: DataSet, name: str) -> str:
    return (
        f"--data {name}: {len(chosen.bad)} of {len(chosen.bad) + len(chosen.items)} items cannot be used; mend them, "
        "or pass --skip-bad to run without them and have them counted:\n"
        + listed([str(bad) for bad in chosen.bad], _BAD_SHOWN)
    )
