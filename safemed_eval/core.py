"""The central types: Question, Item, Certificate, and the two functions that everything else is built on.

    Classify:  (B, 3, H, W) float32 in [0, 1]  ->  (B, K) float32 option log-probabilities   differentiable
    Vote:      (B, 3, H, W) float32, unbounded ->  (B,)   int64 class ids in [0, K]; K = "no answer"

Attacks see only Classify, smoothing only Vote. Neither sees text, tokens or a model family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
Order = Sequence[int]
"""An order of the K options of a question, each of 0 .. K - 1 once: option `order[i]` stands in place i."""
OptionOrder = Literal["data", "random"]
"""How the noisy copies of an image are asked: all in the order of the data, or each in a random order of its own."""
Domain = Literal["canvas", "file"]
"""What eps and certified radii are about: the pixels of the canvas, or those of the image at its own size."""
BatchSize = int | Literal["auto"] | None
"""Batch size; None is the command's default."""
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""Number format of a model's weights; "auto": the checkpoint's own on an accelerator, float32 on the CPU."""
MAX_BATCH, MAX_WORKERS, MAX_PILOT = 65536, 4096, 1000
"""Largest batch, number of Ray's workers, and number of items that `plan` times."""
DEFAULT_NOISE = "gaussian"
"""Kind of noise under which `certify` counts votes, where the user names none; see `smoothing.noise`."""
CANVAS_SIZE = (384, 384)
"""Default height and width of the canvas, used where neither the data nor the user sets another."""
UNKNOWN = "unknown"
"""Name, in tables, of the slice of items without a known modality or question type."""
PRECISION, REPEATS = "gradients in half precision", "same input, same output"
GRADIENT_REPEATS, NOT_SHRUNK = "same input, same gradient", "the canvas is not shrunk"
"""Names of the model checks that reports look up: comparison with float32, repeatability, and the canvas."""
PLANTED = "the attack finds a planted region"
"""Name of the check in `models check --planted` and in the checklist of a run; see `runs.work.planted`."""
TRAINED_ON = "trained_on.npy"
"""File in the folder of a checkpoint trained by this package: digests of its training images."""
CLEAN = "clean"
"""The condition without an attack; every `evaluate` run has it."""
OFFICIAL = "official"
"""The condition of `--official`: the checkpoint's untouched 8-bit path, each image at its own size."""
CIRCULAR = "circular"
"""The condition of `--circular`: the clean image, asked once for each rotation of the options."""
SHUFFLED, BLANK, TEXT_ONLY = "shuffled", "blank", "text-only"
"""The conditions of `--grounding`: another patient's image, the image's mean colour, and no image at all."""
GROUNDING = (SHUFFLED, BLANK, TEXT_ONLY)
GROUNDED = "grounded"
"""Name, in tables, of the share that is right and depends on the image; under an attack "grounded, ATTACK"."""
UNATTACKED = (CLEAN, OFFICIAL, CIRCULAR, *GROUNDING)
"""The conditions that are no attacks."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with its options; the gold answer is not part of it."""

    text: str
    options: tuple[str, ...]

    @property
    def letters(self) -> str:
        """The letters of the options: "ABCD" for four."""
        return ascii_uppercase[: len(self.options)]

    @property
    def characters(self) -> int:
        """Number of characters in text and options, a rough measure of the prompt's number of tokens."""
        return len(self.text) + sum(map(len, self.options))

    def reordered(self, order: Order) -> Question:
        """Return the same question with option `order[i]` in place i."""
        return replace(self, options=tuple(self.options[place] for place in order))


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question about one image, with its gold answer and the slices that it belongs to."""

    id: str
    question: Question
    label: int
    """Index of the gold option."""
    image: str
    """Path relative to `root`, as written in the data file."""
    root: Path
    modality: str | None = None
    question_type: str | None = None
    source: str | None = None
    patient_id: str | None = None
    image_sha256: str | None = None
    """sha256 of the image file's bytes; None until the image has been read."""
    pixels_sha256: str | None = None
    """sha256 of the decoded pixels, equal for lossless copies in other formats; None until the image has been read."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Additional columns of the user's own table."""
    drawn: Callable[[], np.ndarray[Any, np.dtype[np.uint8]]] | None = field(default=None, repr=False, compare=False)
    """Draws the image, (H, W, 3) uint8, where there is no file; `image` is then only a name."""

    @property
    def path(self) -> Path:
        return self.root / self.image

    @property
    def cluster(self) -> str:
        """The patient, or else the image: items of one cluster are not independent, so intervals count clusters."""
        return self.patient_id or self.image_sha256 or self.image


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The result of Monte Carlo smoothing for one image. See `smoothing.certify`."""

    prediction: int | None
    """The certified class; None: abstained."""
    p_lower: float | None
    """Lower confidence bound of the selected class's probability; None where none was computed."""
    radius: float | None
    """Certified L2 radius in [0, 1] pixel units over the whole canvas; None: abstained."""
    abstained: str | None
    """Why there is no radius; None where there is one."""
    votes0: tuple[int, ...] | None = None
    """Selection votes for classes 0 .. K; the last entry is "no answer". None: the class was fixed beforehand."""
    votes: tuple[int, ...] | None = None
    """Estimation votes from independent draws, same layout; None: not drawn, or not counted by class."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of B rows; None for what the readout does not provide."""

    predictions: list[int | None]
    """The chosen option of each row; None: no answer."""
    log_probs: list[list[float] | None] | None = None
    """Log-probabilities of each row's own K options; None for a row that has none."""
    texts: list[str] | None = None
    """The text that the model wrote for each row."""


class Classify(Protocol):
    """Computes the log-probabilities of the options of B bound questions, row by row.

    Rows are independent of each other. Rows with fewer than K options hold -inf in the rest.
    """

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 in [0, 1] -> (B, K) float32, differentiable in the canvas."""
        ...

    def take(self, rows: Sequence[int]) -> Classify:
        """Return the same function bound to the questions of these rows only."""
        ...


class Reasons(Classify, Protocol):
    """A `Classify` of a model that writes text: it can generate a text, and score a given one."""

    def take(self, rows: Sequence[int]) -> Reasons: ...

    def write(self, canvas: torch.Tensor) -> list[str]:
        """Generate the text of each row: (B, 3, H, W) -> B texts."""
        ...

    def read(self, texts: Sequence[str]) -> list[int | None]:
        """Parse the option that each row's text answers with; None: no answer."""
        ...

    def retell(self, texts: Sequence[str], options: Sequence[int]) -> list[str]:
        """Rewrite each row's text to answer with this option: the same rationale, edited to conclude with it."""
        ...

    def curtail(self, texts: Sequence[str], options: Sequence[int]) -> list[str]:
        """Rewrite each row's text to answer with this option, without any rationale."""
        ...

    def likelihood(self, canvas: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Mean log-probability of each row's text per token: (B, 3, H, W) -> (B,) float32, differentiable."""
        ...

    def after(self, canvas: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Log-probabilities of the options after the thought in each row's text: (B, 3, H, W) -> (B, K)."""
        ...


class Decides(Classify, Protocol):
    """A `Classify` of a model without scores: it can decide on an answer, and raises CheckpointError when called."""

    options: Sequence[int]
    """The number of options of each row's question."""

    def take(self, rows: Sequence[int]) -> Decides: ...

    def decide(self, canvas: torch.Tensor) -> torch.Tensor:
        """Answer each row: (B, 3, H, W) -> (B,) int64 class ids in [0, K] of its own K options; K means "no answer"."""
        ...


class Vote(Protocol):
    """Answers one bound question once per noisy copy of the image."""

    classes: int
    """K + 1: one class per option, and one for "no answer"."""

    def __call__(self, canvas: torch.Tensor, orders: Sequence[Order] | None = None) -> torch.Tensor:
        """(B, 3, H, W) float32, unbounded -> (B,) int64 in [0, K].

        Args:
            orders: of the options, one for each row; None: the question's own. It changes how a row is asked, not what
                its vote means: class k stands for option k of the bound question in every row.
        """
        ...

    def count(self, batches: Iterable[torch.Tensor], orders: Iterable[Order] | None = None) -> tuple[int, ...]:
        """Count the votes of all batches for each class 0 .. K.

        Equal to counting the answers batch by batch, but without waiting for the device in between; an error in a row
        is therefore raised only after the last batch.

        Args:
            orders: of the options, one for each row of all batches in turn; None: the question's own.
        """
        ...


Need = Literal["votes", "scores", "gradients", "texts", "features"]
"""What an attack may need from a model: its answers alone, which every model gives (see `Decides`), option scores,
their gradients with respect to the pixels, generated text and the likelihood of a given text (see `Reasons`), or the
features that scores are read from."""


def item_fields(item: Item) -> dict[str, Any]:
    """Return the fields that every record copies from its item."""
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
