"""phantom: a benchmark that is drawn, not read: eight modalities, five question types, nothing to download.

    phantom                                       the test split, 384 images
    phantom:split=train,images=20000,seed=1       more of it, for training

It repeats exactly (same spec, same pixels, on every machine), and text alone gives chance. It exists so that every
command has something real to chew on. It is not clinical evidence: names of organs and diseases stand for discs, rings
and stripes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from safemed_eval import grammar
from safemed_eval.core import MODALITIES, QUESTION_TYPES, Item, Question
from safemed_eval.data.canvas import Canvas
from safemed_eval.data.dataset import DataSet
from safemed_eval.data.images.picture import Pixels
from safemed_eval.data.sources._drawing import SIDE, Case, draw
from safemed_eval.seeds import seed_of

VERSION = 1
"""Part of every seed. A change of any picture or question makes another benchmark, and needs another version."""

ANATOMIES = {
    "CT": ("Brain", "Chest", "Abdomen", "Pelvis"),
    "Dermoscopy": ("Trunk", "Scalp", "Palm", "Face"),
    "Fundus Photography": ("Right eye", "Left eye", "Optic disc", "Peripheral retina"),
    "MRI": ("Brain", "Spine", "Knee", "Heart"),
    "Microscopy": ("Blood", "Liver", "Colon", "Bone marrow"),
    "OCT": ("Macula", "Optic nerve head", "Retinal periphery", "Cornea"),
    "Ultrasound": ("Fetus", "Kidney", "Heart", "Thyroid"),
    "X-Ray": ("Chest", "Hand", "Skull", "Femur"),
}
FINDINGS = {
    "CT": ("No finding", "Calcification", "Abscess", "Cyst"),
    "Dermoscopy": ("No finding", "Melanoma", "Granuloma annulare", "Vitiligo"),
    "Fundus Photography": ("No finding", "Exudate", "Chorioretinitis", "Hemorrhage"),
    "MRI": ("No finding", "Tumor", "Cavitation", "Infarct"),
    "Microscopy": ("No finding", "Inclusion", "Ring form", "Vacuole"),
    "OCT": ("No finding", "Drusen", "Cystoid edema", "Subretinal fluid"),
    "Ultrasound": ("No finding", "Fibroma", "Target lesion", "Cyst"),
    "X-Ray": ("No finding", "Nodule", "Cavity", "Osteolysis"),
}
GRADES = ("Minimal", "Mild", "Moderate", "Severe")
PLACES = ("Upper left", "Upper right", "Lower left", "Lower right")
COUNTS = ("One", "Two", "Three", "Four")
COUNTED = ("Dermoscopy", "Fundus Photography", "Microscopy", "OCT")
"""Modalities whose lesions are counted; in the others there is one lesion, and the question asks for its place."""

WORDINGS = {
    "Modality Recognition": ("Which imaging modality was used?", "How was this image taken?"),
    "Anatomy Identification": ("Which anatomy is shown?", "What does this image show?"),
    "Disease Diagnosis": ("What is the finding?", "Which diagnosis fits this image?"),
    "Lesion Grading": ("How severe is the lesion?", "What is the grade of the lesion?"),
    "place": ("Where is the lesion?", "In which part is the lesion?"),
    "count": ("How many lesions are there?", "What is the number of lesions?"),
}
MAX_IMAGES = 10**6
"""All questions are made in memory before the first one is asked."""
_NAME = re.compile(r"(?:Images/)?(train|validation|test)/(\d+)/(\d{6})\.png")
_FEW = 1 / 4
"""Share of questions with two options; the others have four."""


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """Options of the phantom benchmark.

    Args:
        split: pictures of different splits never share a seed.
        images: number of images. Modality, anatomy and finding take turns: 128 hold each combination once.
        seed: of pictures and questions.
    """

    split: Literal["train", "validation", "test"] = "test"
    images: int = 384
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.images <= MAX_IMAGES:
            raise ValueError(f"images must be at least 1, and at most {MAX_IMAGES:,}, got {self.images}")


def make(options: str) -> DataSet:
    """Make the items of these options; pictures are drawn when they are needed."""
    return DataSet(items=tuple(_items(_spec(options))), canvas=Canvas(size=(SIDE, SIDE)))


def draws(options: str, item: Item) -> bool:
    """True if these options include this item's image, by its name: in memory, or as `data export` writes it."""
    spec, name = _spec(options), _NAME.fullmatch(item.image) if item.source == "phantom" else None
    return name is not None and (name[1], int(name[2])) == (spec.split, spec.seed) and int(name[3]) < spec.images


def for_tests(options: str) -> bool:
    """True for the test split, on which checkpoints are compared."""
    return _spec(options).split == "test"


def _spec(options: str) -> Phantom:
    return grammar.build(Phantom, grammar.split(f"phantom:{options}")[1], "--data phantom")


def case_of(spec: Phantom, index: int) -> Case:
    """Return the contents of the picture with this index."""
    rng = _rng(spec, index, "case")
    modality = MODALITIES[index % 8]
    return Case(
        modality=modality,
        anatomy=index // 8 % 4,
        finding=index // 32 % 4,
        grade=int(rng.integers(4)),
        place=int(rng.integers(4)),
        counted=modality in COUNTED,
    )


def _items(spec: Phantom) -> Iterator[Item]:
    gold: dict[tuple[str, int], Iterator[int]] = defaultdict()
    for index in range(spec.images):
        case, rng = case_of(spec, index), _rng(spec, index, "questions")
        image = f"{spec.split}/{spec.seed}/{index:06}.png"
        for question_type, (wording, answer, values) in _asked(case).items():
            count = 2 if rng.random() < _FEW else 4
            slot = (question_type, count)
            label = next(gold.setdefault(slot, _positions(spec, question_type, count)))
            others = rng.permutation([value for value in values if value != answer])[: count - 1].tolist()
            options = (*others[:label], answer, *others[label:])
            text = WORDINGS[wording][int(rng.integers(len(WORDINGS[wording])))]
            yield Item(
                id=f"phantom-{spec.split}-{spec.seed}-{index:06}-{QUESTION_TYPES.index(question_type)}",
                question=Question(text=text, options=options),
                label=label,
                image=image,
                root=Path("phantom"),
                modality=case.modality,
                question_type=question_type,
                source="phantom",
                drawn=partial(_picture, spec, index),
            )


def _asked(case: Case) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Question type -> (key of its wordings, right answer, all answers of its kind)."""
    anatomies, findings = ANATOMIES[case.modality], FINDINGS[case.modality]
    asked = {
        "Modality Recognition": ("Modality Recognition", case.modality, MODALITIES),
        "Anatomy Identification": ("Anatomy Identification", anatomies[case.anatomy], anatomies),
        "Disease Diagnosis": ("Disease Diagnosis", findings[case.finding], findings),
    }
    if case.finding:
        values = COUNTS if case.counted else PLACES
        asked["Lesion Grading"] = ("Lesion Grading", GRADES[case.grade], GRADES)
        asked["Other Biological Attributes"] = ("count" if case.counted else "place", values[case.place], values)
    return asked


def _positions(spec: Phantom, question_type: str, count: int) -> Iterator[int]:
    """Yield positions of gold answers: every letter once in each run of `count`, in seeded order."""
    rng = _rng(spec, question_type, "letters", count)
    while True:
        yield from rng.permutation(count).tolist()


def _picture(spec: Phantom, index: int) -> Pixels:
    return draw(case_of(spec, index), _rng(spec, index, "picture"))


def _rng(spec: Phantom, *parts: str | int) -> np.random.Generator:
    return np.random.default_rng(seed_of("phantom", VERSION, spec.split, spec.seed, *parts))
