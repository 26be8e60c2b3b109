"""omnimedvqa:DIR: OmniMedVQA's raw layout, `QA_information/*/*.json` beside `Images/`.

Source:
    Hu et al. 2024 (arXiv:2402.09181). A record holds dataset, question_id, question_type, question, gt_answer,
    image_path, option_A .. option_D and modality_type (or, in a few, `modality`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from safemed_eval.core import Item
from safemed_eval.data.dataset import DataSet
from safemed_eval.data.records import (
    Builder,
    Row,
    canonical_modality,
    canonical_question_type,
    fields_text,
    gold_index,
    image_path,
    lettered_options,
    make_question,
    read_json_records,
)
from safemed_eval.errors import DataError


def load(place: Path, root: Path | None) -> DataSet:
    """Read every record; image paths are relative to DIR, or to `root` where it is given."""
    files = sorted(place.glob("QA_information/*/*.json")) if place.is_dir() else []
    if not files:
        raise DataError(f"{place}: not OmniMedVQA's raw layout, there is no QA_information/*/*.json in it")
    builder = Builder()
    for file in files:
        for index, record in enumerate(read_json_records(file)):
            text = fields_text(record, ("dataset", "question_id", "question_type", "modality_type", "modality"))
            slices = {
                "modality": canonical_modality(text["modality_type"] or text["modality"]),
                "question_type": canonical_question_type(text["question_type"]),
            }
            key = text["question_id"] or f"{file.stem}#{index}"
            source = text["dataset"] or file.stem
            builder.add(key, partial(_item, key, record, root or place, source, slices), **slices)
    return builder.done()


def _item(key: str, record: Row, root: Path, source: str, slices: dict[str, str | None]) -> Item:
    options = lettered_options(record, "option_")
    return Item(
        id=key,
        label=gold_index(record.get("gt_answer"), options),
        question=make_question(record.get("question"), options),
        image=image_path(record.get("image_path"), root),
        root=root,
        source=source,
        modality=slices["modality"],
        question_type=slices["question_type"],
    )
