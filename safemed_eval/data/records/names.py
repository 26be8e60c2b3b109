"""Canonical names of modalities and question types, by their other spellings in raw data sets and in DICOM."""

from __future__ import annotations

import re

from safemed_eval.core import MODALITIES, QUESTION_TYPES

_MODALITY_SPELLINGS = {
    "ct(computed tomography)": "CT",
    "ct (computed tomography)": "CT",
    "computed tomography": "CT",
    "dermatoscopy": "Dermoscopy",
    "dermoscopic image": "Dermoscopy",
    "fundus": "Fundus Photography",
    "op": "Fundus Photography",
    "mr": "MRI",
    "mr (magnetic resonance imaging)": "MRI",
    "magnetic resonance imaging": "MRI",
    "microscopy images": "Microscopy",
    "oct (optical coherence tomography": "OCT",
    "oct (optical coherence tomography)": "OCT",
    "optical coherence tomography": "OCT",
    "opt": "OCT",
    "us": "Ultrasound",
    "cr": "X-Ray",
    "dx": "X-Ray",
    "xray": "X-Ray",
    "x ray": "X-Ray",
    "chest x-ray": "X-Ray",
    "radiograph": "X-Ray",
    "radiography": "X-Ray",
}
_CANONICAL = {name.casefold(): name for name in (*MODALITIES, *QUESTION_TYPES)}


def canonical_modality(raw: str | None) -> str | None:
    """Return the canonical modality of a raw spelling; an unknown one is kept as written, an empty one becomes None."""
    return _canonical(raw, _MODALITY_SPELLINGS)


def canonical_question_type(raw: str | None) -> str | None:
    """Return the canonical question type of a raw spelling; see `canonical_modality`."""
    return _canonical(raw, {})


def _canonical(raw: str | None, spellings: dict[str, str]) -> str | None:
    name = re.sub(r"\s+", " ", raw or "").strip()
    key = name.casefold().replace("mag-netic", "magnetic")
    return _CANONICAL.get(key) or spellings.get(key) or name or None
