"""Everything that was asked of a run and decides its numbers: typed, with its defaults, and JSON both ways.

A spec is the identity of a run folder: the same call goes on where an earlier one stopped, another spec is refused.
Options that were added later are left out of the JSON at their defaults, so that older folders keep their identity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Required

from typing_extensions import TypedDict

from safemed_eval.codec import Json, decode, encode
from safemed_eval.core import CIRCULAR, OFFICIAL, BatchSize
from safemed_eval.data import Selection
from safemed_eval.errors import RunError
from safemed_eval.smoothing import Budget, Falsification, Voting, budget_of

LATER: Mapping[str, bool] = {"later": True}
"""Metadata of a field that the JSON leaves out at its default."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """How weights are loaded, as `models.find_model` takes it."""

    dtype: str = "auto"
    attn: str | None = None
    device_map: str | None = None


class Asked(TypedDict, total=False):
    """How a checkpoint is asked; see `models.Asking.describe`."""

    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012

    readout: Required[str]
    template: dict[str, str]
    max_new_tokens: int
    temperature: float
    seed: int
    clock: str


class Described(TypedDict, total=False):
    """An attack as `Attack.described` has it: its name and its options."""

    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012

    attack: Required[str]
    eps: float | None
    norm: str
    needs_gradients: bool


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What `evaluate` and `certify` have in common.

    Args:
        model: hashes of the model's weights and settings, of its base's and its denoiser's; see `Source.identity`.
        asking: how a checkpoint is asked; None for a model that asks by itself.
        skipped: items that could not be used and were left out.
        data: identity of what is asked, a hash over questions, gold answers, slices and image bytes.
        canvas: the pixel grid on which eps, sigma and radius are measured, such as "384x384 stretch".
        batch_size: None is the command's default.
        pseudonyms: the fingerprint of the key under which ids, paths and texts are written.
        shuffle_options: the seed that orders the options of each question; None: as the data have them.
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

    def __post_init__(self) -> None:
        if not re.fullmatch(r"native|[0-9]{1,5}x[0-9]{1,5} (stretch|pad)", self.canvas):
            raise ValueError(f"canvas cannot be {self.canvas!r:.60}")

    @property
    def conditions(self) -> tuple[str, ...]:
        """What every item is asked under; none for a command that asks it once."""
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
        """Whether the checkpoint was asked for text, of which an answer is read or which an answer follows."""
        return self.readout in ("generate", "think-choice")

    def to_json(self) -> Json:
        """The spec as run.json holds it."""
        shown = [
            one for one in fields(self) if not (one.metadata.get("later") and getattr(self, one.name) == one.default)
        ]
        return {"command": self.command} | {one.name: encode(getattr(self, one.name)) for one in shown}


@dataclass(frozen=True, kw_only=True)
class EvaluateSpec(Spec):
    """What `evaluate` was asked.

    Args:
        attacks: by spec string, each as `Attack.described` has it; clean is the first.
        quantize: keep attacked canvases on 8-bit grey levels.
        official: answer through the checkpoint's untouched 8-bit path, too.
        circular: answer in every rotation of the options, too.
        keep_images: how many items of each attack are stored for figures.
        smooth: answer by the vote of a smoothed model.
    """

    command: ClassVar[str] = "evaluate"

    attacks: Mapping[str, Described]
    quantize: bool = False
    official: bool = False
    circular: bool = field(default=False, metadata=LATER)
    keep_images: int = 0
    smooth: Voting | None = field(default=None, metadata=LATER)

    @property
    def conditions(self) -> tuple[str, ...]:
        return (*self.attacks, *[OFFICIAL] * self.official, *[CIRCULAR] * self.circular)


@dataclass(frozen=True, kw_only=True)
class CertifySpec(Spec):
    """What `certify` was asked.

    Args:
        smoothing: the fields of `budget`, a `Smoothing` or a `Sequential`, as `sampling` says.
        stop_when_wrong: draw no more copies of an item whose selected answer is wrong.
        falsify: attack each certificate within its radius.
    """

    command: ClassVar[str] = "certify"

    smoothing: Mapping[str, object]
    sampling: str
    stop_when_wrong: bool = field(default=False, metadata=LATER)
    falsify: Falsification | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            _ = self.budget
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"smoothing: {error}") from None

    @property
    def recorded(self) -> tuple[str, ...]:
        return ("falsified",) if self.falsify else ()

    @cached_property
    def budget(self) -> Budget:
        """How many noisy copies an item gets, and at which confidence."""
        return budget_of({"sampling": self.sampling, "smoothing": self.smoothing})


SPECS: dict[str, type[EvaluateSpec] | type[CertifySpec]] = {spec.command: spec for spec in (EvaluateSpec, CertifySpec)}


def spec_of(value: object, where: str) -> EvaluateSpec | CertifySpec:
    """Read the spec of an evaluate or certify run.

    Raises:
        RunError: it is of another command, a field does not fit, or it asks for something that this version does not
            know.
    """
    command = value.get("command") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or command not in SPECS:
        raise RunError(f"{where}: a run of '{command}'; name one of evaluate or certify")
    asked = {key: part for key, part in value.items() if key != "command"}
    spec = decode(SPECS[str(command)], asked, f"{where}: run.json")
    for name in _unknown(value, spec.to_json()):
        raise RunError(f"{where}: run.json: {name} is not known to this version; did a newer one write it?")
    return spec


def _unknown(value: object, known: object, place: str = "") -> Iterator[str]:
    """The keys of a JSON value that are not in what was read of it."""
    if isinstance(value, Mapping) and isinstance(known, Mapping):
        for key, part in value.items():
            if key in known:
                yield from _unknown(part, known[key], f"{place}{key}: ")
            elif part not in (None, False):
                yield f"{place}{key}"


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """What a training was asked: the identity of its folder.

    Args:
        load: dtype and attn.
        template: how the model is asked; None for a model that asks by itself.
        recipe: the fields of a `train.Recipe` or `train.DenoiserRecipe`, without how often it is saved.
        processes: of `accelerate launch`; they decide which rows share a batch.
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
        """The spec as run.json holds it."""
        return {"command": "train", **encode(self)}
