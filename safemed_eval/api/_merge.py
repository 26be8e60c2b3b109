"""The function `merge_adapter`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safemed_eval.codec import typed
from safemed_eval.core import TRAINED_ON
from safemed_eval.data import write_seen
from safemed_eval.errors import RunError, SpecError
from safemed_eval.files import NEW, refuse_unwritable, write_whole
from safemed_eval.models import AnyModel, Model, find_model, quiet_transformers
from safemed_eval.models.files.checkpoint import CheckpointFiles
from safemed_eval.models.files.notes import ABOUT, SEEN_BY_NAME, read_note


@typed
def merge_adapter(model: AnyModel, *, out: str | Path) -> Path:
    """Merge a PEFT adapter into its base, and save the result as a plain checkpoint.

    >>> import safemed_eval as se
    >>> se.merge_adapter("ckpt-lora", out="ckpt-merged")  # doctest: +SKIP

    Args:
        model: an adapter's folder or hub id; or from `load_model`, where its base has moved.
        out: a folder that does not exist yet. It has the notes of the adapter's training, how it is asked, and digests
            of the images that the adapter and its base have seen.
    Returns:
        The folder. Its answers differ from those of adapter and base by the rounding of the sum of their weights.
    Raises:
        SpecError: the model is not an adapter. CheckpointError: it cannot be loaded or merged.
        RunError: `out` is there already, or cannot be written.
    """
    source, place = (model if isinstance(model, Model) else find_model(model)).source, Path(out)
    if not (isinstance(source, CheckpointFiles) and source.base):
        raise SpecError(f"{source.name}: is not an adapter; there is nothing to merge")
    if place.exists():
        raise RunError(f"--out {place}: is there already; choose another --out")
    refuse_unwritable(place)
    from safemed_eval.models.checkpoints import load

    quiet_transformers()
    new = place.with_name(place.name + NEW)
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        load.merge_adapter(source, new)
        note = read_note(source.folder) or read_note(source.base.folder)
        if note is not None:
            trainings = source.trainings
            write_seen(new / TRAINED_ON, [], [digests for _, digests, _ in trainings if digests])
            named = sorted({data for _, _, names in trainings for data in names})
            write_whole(new / ABOUT, json.dumps(note | {SEEN_BY_NAME: named}, indent=2, ensure_ascii=False))
        new.replace(place)
    except OSError as error:
        raise RunError(f"--out {place}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return place
