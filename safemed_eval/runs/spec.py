"""Specs: all settings of a run that decide its numbers, typed, with defaults, and converted to and from JSON.

A spec is the identity of a run folder: the same call resumes it, another spec is refused. Options that were added
later are left out of the JSON at their defaults, so that older folders keep their identity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar, Required

from annotated_types import Ge
from typing_extensions import TypedDict

from safemed_eval.attacks import facts_of
from safemed_eval.codec import Json, decode, encode
from safemed_eval.core import CIRCULAR, GROUNDING, OFFICIAL, BatchSize, Domain, OptionOrder
from safemed_eval.data import Selection
from safemed_eval.errors import RunError, SpecError
from safemed_eval.grammar import LATER
from safemed_eval.smoothing import FLOAT32, Budget, DonorVote, Falsification, PatchSearch, Voting, budget_of


@dataclass(frozen=True, kw_only=True)
class Load:
    """Options for loading weights, as `models.find_model` takes them."""

    dtype: str = "auto"
    attn: str | None = None
    device_map: str | None = None
    compile: bool = field(default=False, metadata=LATER)


class Asked(TypedDict, total=False):
    """Prompt and readout of a checkpoint; see `models.Asking.describe`."""

    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012

    readout: Required[str]
    template: dict[str, str]
    max_new_tokens: int
    temperature: Annotated[float, Ge(0)]
    seed: int
    clock: str


class Described(TypedDict, total=False):
    """Name and options of an attack, from `Attack.described`."""

    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012

    attack: Required[str]
    eps: Annotated[float, Ge(0)] | None
    norm: str
    needs_gradients: bool


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The settings that `evaluate` and `certify` share.

    Args:
        model: hashes of weights and settings of the model, its base and its denoiser; see `Source.identity`.
        asking: prompt and readout of a checkpoint; None for a model that makes its own prompts.
        skipped: number of unusable items that were left out.
        data: hash of questions, gold answers, slices and image bytes.
        canvas: the pixel grid on which eps, sigma and radius are measured, such as "384x384 stretch".
        batch_size: None is the command's default.
        pseudonyms: fingerprint of the key under which ids, paths and texts are pseudonymized.
        shuffle_options: seed for the order of each question's options; None: the order of the data.
        domain: "file": eps and radius are measured on each image's own pixels, which are then shown on the canvas.
    """

    command: ClassVar[str]

    model: Mapping[str, Any]
    load: Load = field(default_factory=Load)
    asking: Asked | None = None
    select: Selection = field(default_factory=Selection)
    skipped: int = 0
    data: str
    canvas: str
    seed: int = 0
    batch_size: BatchSize = None
    pseudonyms: str | None = field(default=None, metadata=LATER)
    shuffle_options: int | None = field(default=None, metadata=LATER)
    domain: Domain = field(default="canvas", metadata=LATER)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"native|[0-9]{1,5}x[0-9]{1,5} (stretch|pad)", self.canvas):
            raise ValueError(f"canvas cannot be {self.canvas!r:.60}")
        if self.domain == "file" and self.canvas == "native":
            raise ValueError("domain cannot be file: the canvas is the file already")

    @property
    def grid(self) -> str:
        """The pixels on which eps and radius are measured; lengths on different grids do not compare."""
        shown = f"canvas {self.canvas}".removesuffix(" stretch")
        return f"the file's own pixels, {shown}" if self.domain == "file" else shown

    @property
    def canvas_size(self) -> tuple[int, int] | None:
        """Height and width of the canvas; None where each image has its own."""
        size = re.match(r"([0-9]+)x([0-9]+)", self.canvas)
        return (int(size[1]), int(size[2])) if size else None

    @property
    def asks_grounding(self) -> bool:
        """True if the run measures whether answers depend on the image."""
        return False

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions under which every item is answered; empty for a command without any."""
        return ()

    @property
    def recorded(self) -> tuple[str, ...]:
        """Fields that every record of the run has, whether or not there is something in them."""
        return ()

    @property
    def readout(self) -> str | None:
        return self.asking["readout"] if self.asking else None

    @property
    def writes(self) -> bool:
        """True if the checkpoint generates text, either with the answer in it or before the answer."""
        return self.readout in ("generate", "think-choice")

    def to_json(self) -> Json:
        """Convert the spec to its JSON in run.json."""
        return {"command": self.command, **encode(self)}


@dataclass(frozen=True, kw_only=True)
class EvaluateSpec(Spec):
    """The settings of an `evaluate` run.

    Args:
        attacks: `Attack.described` of each attack, by spec string; clean is the first.
        quantize: keep attacked canvases on 8-bit grey levels.
        official: also answer through the checkpoint's unmodified 8-bit path.
        circular: also answer in every rotation of the options.
        keep_images: number of items per attack whose images are stored for figures.
        smooth: answer by the vote of a smoothed model.
        masks: hash of the mask files that attacks are confined to; see `data.verify_masks`.
        grounding: also answer under the conditions of `core.GROUNDING`.
        planted: number of items on which each attack by gradients is tested; see `runs.work.planted`.
    """

    command: ClassVar[str] = "evaluate"

    attacks: Mapping[str, Described]
    quantize: bool = False
    official: bool = False
    circular: bool = field(default=False, metadata=LATER)
    keep_images: int = 0
    smooth: Voting | None = field(default=None, metadata=LATER)
    masks: str | None = field(default=None, metadata=LATER)
    grounding: bool = field(default=False, metadata=LATER)
    planted: int = field(default=0, metadata=LATER)

    @property
    def asks_grounding(self) -> bool:
        return bool(self.grounding)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, attack in self.attacks.items():
            facts = facts_of(name, attack)
            if facts.role == "corruption" and facts.kind and facts.severity is None:
                raise ValueError(f"attacks: {name}: a corruption has no severity")

    @property
    def conditions(self) -> tuple[str, ...]:
        return (
            *self.attacks,
            *[OFFICIAL] * self.official,
            *[CIRCULAR] * self.circular,
            *GROUNDING[: len(GROUNDING) * self.grounding],
        )


@dataclass(frozen=True, kw_only=True)
class CertifySpec(Spec):
    """The settings of a `certify` run.

    Args:
        smoothing: the fields of `budget`, a `Smoothing`, `Sequential` or `Exhaustive`, depending on `sampling`.
        stop_when_wrong: draw no more copies of an item whose selected answer is wrong.
        falsify: attack each certificate within its radius.
        option_order: "random": each noisy copy is asked with its options in an order of its own.
        grounding: ask the smoothed model about each item with its donor's image, too.
    """

    command: ClassVar[str] = "certify"

    smoothing: Mapping[str, object]
    sampling: str
    stop_when_wrong: bool = field(default=False, metadata=LATER)
    falsify: Falsification | PatchSearch | None = field(default=None, metadata=LATER)
    option_order: OptionOrder = field(default="data", metadata=LATER)
    grounding: DonorVote | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            _ = self.budget
        except (AttributeError, SpecError, TypeError, ValueError) as error:
            raise ValueError(f"smoothing: {error}") from None

    @property
    def asks_grounding(self) -> bool:
        return bool(self.grounding)

    @property
    def recorded(self) -> tuple[str, ...]:
        return ("falsified",) if self.falsify else ()

    @cached_property
    def budget(self) -> Budget:
        """The number of noisy copies per item, and the confidence level."""
        return budget_of({"sampling": self.sampling, "smoothing": self.smoothing})


SPECS: dict[str, type[EvaluateSpec] | type[CertifySpec]] = {spec.command: spec for spec in (EvaluateSpec, CertifySpec)}


def spec_of(value: object, where: str) -> EvaluateSpec | CertifySpec:
    """Parse the spec of an evaluate or certify run.

    Raises:
        RunError: it is of another command, a field is malformed, or this version does not know an option in it.
    """
    command = value.get("command") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(command, str) or command not in SPECS:
        raise RunError(f"{where}: a run of '{command}'; name one of evaluate or certify")
    asked = {key: part for key, part in value.items() if key != "command"}
    if isinstance(smooth := asked.get("smooth"), Mapping):
        asked["smooth"] = {"noise": FLOAT32, **smooth}
    spec = decode(SPECS[command], asked, f"{where}: run.json")
    for name in _unknown(value, spec.to_json()):
        raise RunError(f"{where}: run.json: {name} is not known to this version; did a newer one write it?")
    return spec


def _unknown(value: object, known: object, place: str = "") -> Iterator[str]:
    """Yield the keys of a JSON value that were ignored when it was parsed."""
    if isinstance(value, Mapping) and isinstance(known, Mapping):
        for key, part in value.items():
            if key in known:
                yield from _unknown(part, known[key], f"{place}{key}: ")
            elif part not in (None, False):
                yield f"{place}{key}"


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """The settings of a training, which are the identity of its folder.

    Args:
        load: dtype and attn.
        template: prompt template; None for a model that makes its own prompts.
        recipe: the fields of a `train.Recipe` or `train.DenoiserRecipe`, without `save_every`.
        processes: number of processes of `accelerate launch`, which decides which rows share a batch.
    """

    model: Mapping[str, object]
    load: Mapping[str, str | None]
    template: Mapping[str, str] | None
    select: Selection
    skipped: int
    data: str
    canvas: str
    recipe: Mapping[str, object]
    processes: int

    def to_json(self) -> Json:
        """Convert the spec to its JSON in run.json."""
        return {"command": "train", **encode(self)}
