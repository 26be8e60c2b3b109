"""Writes a data set that is made in memory as files, in OmniMedVQA's raw layout."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from safemed_eval.core import Item
from safemed_eval.data.canvas import pixels_of
from safemed_eval.data.dataset import DataSet
from safemed_eval.errors import DataError
from safemed_eval.progress import Tick, no_progress


def export(data: DataSet, folder: Path, progress: Tick = no_progress) -> None:
    """Write `Images/` as PNG and `QA_information/`; `omnimedvqa:FOLDER` reads the same questions and pixels back.

    Args:
        progress: called with (images done, images in all).
    Raises:
        DataError: the folder is not empty, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError(f"{folder}: not empty; name a new or empty folder")
        pictures = {item.image: item for item in data.items}
        for done, (name, item) in enumerate(pictures.items(), start=1):
            file = folder / _image(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels_of(item)).save(file)
            progress(done, len(pictures))
        records = folder / "QA_information" / "Open-access" / "questions.json"
        records.parent.mkdir(parents=True)
        records.write_text(json.dumps([_record(item) for item in data.items], indent=1), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}") from None


def _image(name: str) -> str:
    return f"Images/{name}"


def _record(item: Item) -> dict[str, str | None]:
    options = item.question.options
    return {
        "dataset": item.source,
        "question_id": item.id,
        "question_type": item.question_type,
        "question": item.question.text,
        "gt_answer": options[item.label],
        "image_path": _image(item.image),
        **{f"option_{letter}": option for letter, option in zip(item.question.letters, options, strict=True)},
        "modality_type": item.modality,
    }
