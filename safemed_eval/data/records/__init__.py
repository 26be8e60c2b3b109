"""The kit from which formats are written: reads records, checks their fields, and collects the items. See `sources`."""

from __future__ import annotations

from safemed_eval.data.images.paths import image_path
from safemed_eval.data.records.builder import Builder
from safemed_eval.data.records.files import (
    Row,
    fields_text,
    is_empty,
    lettered_options,
    read_json_records,
    read_table,
    without_empty_end,
)
from safemed_eval.data.records.names import canonical_modality, canonical_question_type
from safemed_eval.data.records.questions import gold_index, make_question, refuse_unaskable, same_text, sole, unlettered

__all__ = [
    "Builder",
    "Row",
    "canonical_modality",
    "canonical_question_type",
    "fields_text",
    "gold_index",
    "image_path",
    "is_empty",
    "lettered_options",
    "make_question",
    "read_json_records",
    "read_table",
    "refuse_unaskable",
    "same_text",
    "sole",
    "unlettered",
    "without_empty_end",
]
