"""The nouns: Question, Item, Certificate, and the two functions that the whole tool turns on.

    Classify:  (B, 3, H, W) float32 in [0, 1]  ->  (B, K) float32 option log-probabilities   differentiable
    Vote:      (B, 3, H, W) float32, unbounded ->  (B,)   int64 class ids in [0, K]; K = "no answer"

Attacks see only Classify, smoothing only Vote. Neither sees text, tokens or a model family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

MODALITIES = (
    "CT",
    "Dermoscopy",
    "Fundus Photography",
    "MRI",
    "Microscopy",
    "OCT",
    "Ultrasound",
    "X-Ray",
)
QUESTION_TYPES = (
    "Anatomy Identification",
    "Disease Diagnosis",
    "Lesion Grading",
    "Modality Recognition",
    "Other Biological Attributes",
)
MAX_OPTIONS = len(ascii_uppercase)
BatchSize = int | Literal["auto"] | None
"""Rows that go through a model together; None is the command's default."""
MAX_BATCH = 65536
CANVAS_SIZE = (384, 384)
"""Height and width of the canvas where neither the data nor the user says otherwise."""
UNKNOWN = "unknown"
"""The slice, in tables, of items whose modality or question type is not known."""
PRECISION, REPEATS = "gradients in half precision", "same input, same output"
GRADIENT_REPEATS = "same input, same gradient"
"""Checks of a model at its load that reports ask for: against float32, and against itself."""
TRAINED_ON = "trained_on.npy"
"""Beside a checkpoint that was trained here: digests of the images that it has seen."""
CLEAN = "clean"
"""The condition without an attack; every run has it."""
OFFICIAL = "official"
"""The condition of `--official`: the checkpoint's untouched 8-bit path, each image at its own size."""
CIRCULAR = "circular"
"""The condition of `--circular`: the clean image, asked with the options in each of their rotations."""
CLEAN = "clean"
"""The condition of the images as they are."""
UNATTACKED = (CLEAN, OFFICIAL, CIRCULAR)
"""The conditions that leave the image as it is."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the model is asked; the gold answer is not part of it."""

    text: str
    options: tuple[str, ...]

    @property
    def letters(self) -> str:
        """One letter per option, "ABCD" for four."""
        return ascii_uppercase[: len(self.options)]

    @property
    def characters(self) -> int:
        """Length of the text and the options together: a rough order of prompts by their number of tokens."""
        return len(self.text) + sum(map(len, self.options))


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question about one image, with its gold answer and the slices that it belongs to."""

    id: str
    question: Question
    label: int
    """Index of the gold option."""
    image: str
    """Path relative to `root`, as the data file writes it."""
    root: Path
    modality: str | None = None
    question_type: str | None = None
    source: str | None = None
    patient_id: str | None = None
    image_sha256: str | None = None
    """sha256 of the image file's bytes; None until the image has been read."""
    pixels_sha256: str | None = None
    """sha256 of its decoded pixels, the same for copies in other formats without loss; None as above."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further columns of the user's own table."""
    drawn: Callable[[], np.ndarray[Any, np.dtype[np.uint8]]] | None = field(default=None, repr=False, compare=False)
    """Draws the image, (H, W, 3) uint8, where it is not a file; `image` is then its name."""

    @property
    def path(self) -> Path:
        return self.root / self.image

    @property
    def cluster(self) -> str:
        """Items that share a patient, or else an image, are not independent: intervals count clusters."""
        return self.patient_id or self.image_sha256 or self.image


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What Monte Carlo smoothing can say about one image. See `smoothing.certify`."""

    prediction: int | None
    """The certified class, or None: abstained."""
    p_lower: float | None
    """Lower confidence bound of the probability of the selected class; None where none was made."""
    radius: float | None
    """Certified L2 radius in [0, 1] pixel units over the whole canvas, or None: abstained."""
    abstained: str | None
    """None, or why there is no radius."""
    votes0: tuple[int, ...] | None = None
    """Selection votes for classes 0 .. K; the last entry is "no answer". None: no class was selected, but fixed."""
    votes: tuple[int, ...] | None = None
    """Estimation votes, same layout, independent draws; None where they were not counted by class, or not drawn."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of B rows; what a readout does not have is None."""

    predictions: list[int | None]
    """The chosen option of each row; None: no answer."""
    log_probs: list[list[float] | None] | None = None
    """Log-probabilities of each row's own K options; None for a row that has none."""
    texts: list[str] | None = None
    """What the model wrote."""


class Classify(Protocol):
    """Log-probabilities of the options of B bound questions, row by row.

    Rows are independent of each other. Rows with fewer than K options hold -inf in the rest.
    """

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 in [0, 1] -> (B, K) float32, differentiable in the canvas."""
        ...

    def take(self, rows: Sequence[int]) -> Classify:
        """The same function bound to the questions of these rows only."""
        ...


class Reasons(Classify, Protocol):
    """Classify of a model that writes its answers: what it writes can be asked for, and forced upon it."""

    def take(self, rows: Sequence[int]) -> Reasons: ...

    def write(self, canvas: torch.Tensor) -> list[str]:
        """(B, 3, H, W) -> what the model writes for each row."""
        ...

    def read(self, texts: Sequence[str]) -> list[int | None]:
        """The option that each row's text answers with; None: no answer."""
        ...

    def retell(self, texts: Sequence[str], options: Sequence[int]) -> list[str]:
        """Each row's text as though it had come to this option: its rationale, bent, and then this answer."""
        ...

    def curtail(self, texts: Sequence[str], options: Sequence[int]) -> list[str]:
        """Each row's text without its rationale, and with this option as its answer."""
        ...

    def likelihood(self, canvas: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """(B, 3, H, W) and a text a row -> (B,) float32 mean log-probability of its tokens, differentiable."""
        ...

    def after(self, canvas: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """(B, 3, H, W) and a text a row -> (B, K) log-probabilities of the options after the thought in it."""
        ...


class Vote(Protocol):
    """Answers to one bound question, one per noisy copy of the image."""

    classes: int
    """K + 1: one class per option, and one for "no answer"."""

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32, unbounded -> (B,) int64 in [0, K]."""
        ...

    def count(self, batches: Iterable[torch.Tensor]) -> tuple[int, ...]:
        """How many rows of all batches vote for each class 0 .. K; what is wrong with a row is told at the end.

        The same as counting the answers of each batch, but that nothing waits for the device in between.
        """
        ...


Need = Literal["scores", "gradients", "texts"]
"""What an attack may ask of a model beside its answers: the scores of the options, their gradients at the pixels, and
what it writes and how likely it is to write a given text (see `Reasons`)."""


def item_fields(item: Item) -> dict[str, Any]:
    """What every record says of its item."""
    return {
        "item": item.id,
        "question": item.question.text,
        "options": list(item.question.options),
        "label": item.label,
        "modality": item.modality,
        "question_type": item.question_type,
        "source": item.source,
        "image": item.image,
        "image_sha256": item.image_sha256,
        "patient_id": item.patient_id,
        "extra": dict(item.extra),
    }
