"""The note that a training here leaves beside its checkpoint or denoiser: how it was made, and how it is asked."""

from __future__ import annotations

from pathlib import Path

from safemed_eval.core import TRAINED_ON
from safemed_eval.errors import CheckpointError
from safemed_eval.models.checkpoints.prompts import Template
from safemed_eval.models.files.contents import Json, read_json

ABOUT = "safemed_eval.json"
"""The note's file name."""
SEEN_BY_NAME = "seen_by_name"
"""The note's key for what --data said of earlier trainings that left no digests of their images."""

Training = tuple[str, Path | None, tuple[str, ...]]
"""A name; the file of image digests, or None; and what --data said of the trainings that this file does not cover."""


def read_note(folder: Path | None) -> Json | None:
    """Read the note in a folder; None if there is none."""
    if folder is None or not (folder / ABOUT).is_file():
        return None
    return read_json(folder / ABOUT)


def template_in(folder: Path | None) -> Template | None:
    """Read the template that the checkpoint in a folder was trained with here; None if there is no note.

    Raises:
        CheckpointError: the note cannot be read.
    """
    note = read_note(folder)
    if note is None:
        return None
    try:
        template = note["template"]
        return Template(user=str(template["user"]), cue=str(template["cue"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: {ABOUT} holds no template with 'user' and 'cue': {error}") from None


def training_of(name: str, folder: Path | None) -> Training | None:
    """What was trained here on which data, by the note in its folder; None if there is none.

    Raises:
        CheckpointError: the note cannot be read.
    """
    note = read_note(folder)
    if note is None or folder is None:
        return None
    digests = folder / TRAINED_ON
    try:
        names = note.get("names") or {}
        named = [names.get("data"), (names.get("trained") or {}).get("data")]
        if digests.is_file():
            named = list(note.get(SEEN_BY_NAME) or ())
    except (AttributeError, TypeError) as error:
        raise CheckpointError(f"{folder / ABOUT}: does not say what it was trained on: {error}") from None
    return name, digests if digests.is_file() else None, tuple(str(data) for data in named if data)
