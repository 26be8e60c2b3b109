"""The typed contents of run.json: the spec of a run, its model's description, and its provenance."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge

from safemed_eval.codec import Json, decode
from safemed_eval.data import Data
from safemed_eval.data.audit.training_overlap import Overlap
from safemed_eval.errors import RunError
from safemed_eval.models import Model
from safemed_eval.runs.spec import CertifySpec, EvaluateSpec, spec_of
from safemed_eval.runs.tally import Tally

SCHEMA = 1
"""Version of run folders; incremented when a field is renamed, dropped, or changes its meaning."""

Count = Annotated[int, Ge(0)]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The training of a checkpoint that this package trained; see `Source.trained`."""

    method: str | None = None
    data: str | None = None
    modality: tuple[str, ...] = ()
    question_type: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names of model and data, as the user gave them."""

    model: str
    denoiser: str | None = None
    data: str
    commits: Mapping[str, str] = field(default_factory=dict)
    trained: Trained | None = None


@dataclass(frozen=True, kw_only=True)
class Session:
    """One start of a run; see `provenance.session`."""

    started: str | None = None
    argv: tuple[str, ...] = ()
    safemed_eval: str | None = None
    commit: str | None = None
    python: str | None = None
    platform: str | None = None
    device: str | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def command(self) -> str | None:
        """The command line; None where Python code made the run."""
        made = self.argv and self.argv[0] in ("evaluate", "certify")
        return f"safemed-eval {shlex.join(self.argv)}" if made else None


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An unusable item that was left out."""

    item: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check of the loaded model; see `models.check`."""

    name: str
    status: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class _Beside:
    """The contents of run.json besides the spec."""

    model: Mapping[str, Any]
    sessions: tuple[Session, ...]
    names: Names
    items: Count
    skipped: tuple[Skipped, ...]
    conditions: tuple[str, ...]
    sampled: str | None
    image_notes: Mapping[str, Count]
    checks: tuple[Check, ...] = ()
    overlap: Overlap | None = None
    planted: tuple[Tally, ...] = ()

    def __post_init__(self) -> None:
        shared = self.overlap
        if shared and not 0 <= shared["images"] <= min(shared["of"], shared["items"]):
            raise ValueError(f"overlap cannot be {dict(shared)}")


@dataclass(frozen=True, kw_only=True)
class RunMeta(_Beside):
    """The contents of run.json.

    Args:
        model: the loaded model's description: device, dtype, architecture, an example prompt.
        items: number of items of the complete run.
        sampled: how the items were sampled; None: all are taken.
        image_notes: number of images by each conversion step on the way to 8-bit RGB.
        planted: the tests of attacks by `evaluate --planted`.
    """

    spec: EvaluateSpec | CertifySpec

    @property
    def total(self) -> int:
        """Number of records of the complete run."""
        return self.items * max(1, len(self.conditions))


def meta_of(value: Json, where: str) -> RunMeta:
    """Parse run.json of an evaluate or certify run.

    Raises:
        RunError: it is of another command, or a field is malformed.
    """
    spec = spec_of(value["spec"], where)
    beside = decode(_Beside, {key: part for key, part in value.items() if key != "spec"}, f"{where}: run.json")
    if beside.conditions != spec.conditions:
        raise RunError(f"{where}: run.json: its conditions are not the attacks of its spec")
    return RunMeta(spec=spec, **vars(beside))


def about_of(model: Model, data: Data, conditions: Sequence[str] = ()) -> Json:
    """Collect what run.json holds besides the spec."""
    source = model.source
    return {
        "names": {
            "model": source.name,
            "denoiser": source.denoiser.name if source.denoiser else None,
            "commits": source.commits,
            "data": data.name,
            "trained": source.trained,
        },
        "sampled": data.set.sampled,
        "image_notes": dict(data.set.notes),
        "items": len(data.items),
        "skipped": [{"item": bad.id, "reason": bad.reason} for bad in data.set.bad],
        "conditions": list(conditions),
    }
