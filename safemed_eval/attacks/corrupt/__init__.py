"""corrupt: corruptions of the image that occur in practice, in two sets. The model is not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Literal, get_args

from safemed_eval import grammar
from safemed_eval.attacks._common.base import Attack, Facts
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.attacks.corrupt import medmnist_c, own
from safemed_eval.errors import canonical, did_you_mean, shortened
from safemed_eval.threat import Threat

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Item

Set = Literal["own", "medmnist-c"]

SEVERITIES = range(1, 6)
KINDS: dict[Set, Sequence[str]] = {"own": get_args(own.Kind), "medmnist-c": get_args(medmnist_c.Kind)}


@dataclass(frozen=True, kw_only=True)
class Corrupt(Attack):
    """One kind of corruption at one severity.

    - `set=own`: the kinds and strengths of `own.STRENGTHS`, for all modalities alike.
    - `set=medmnist-c`: the kinds and strengths that MedMNIST-C has for its data set of the item's modality; see
      `medmnist_c.DATA_SETS`. Where it has no such data set, or not that kind for it, the condition is unavailable.

    Noise, directions, signs, fields and places are drawn once per item and kind: only the strength grows with the
    severity, so that the points of a curve over severities share their random numbers.

    Args:
        kind: one of KINDS of the set.
        severity: 1 to 5.
    Source:
        Five severities, and kinds of the own set, after Hendrycks and Dietterich 2019 (arXiv:1903.12261). Differs:
        corruptions of medical images, with strengths of our own; lengths grow with the canvas; one draw for all
        severities. For MedMNIST-C see `medmnist_c`.
    """

    facts = Facts(
        role="corruption",
        aims_at=None,
        example="corrupt:kind=jpeg,severity=3",
        summary="without them all kinds, all five; corrupt:set=medmnist-c: those of MedMNIST-C for each modality",
    )

    kind: str
    severity: int
    set: Set = field(default="own", metadata=grammar.LATER)

    def __post_init__(self) -> None:
        kinds = KINDS[self.set]
        kind = canonical(self.kind, kinds)
        if kind is None:
            guess = did_you_mean(self.kind, kinds)
            raise ValueError(f"kind: '{shortened(self.kind, 60)}' is not a choice of set={self.set}; {guess}")
        object.__setattr__(self, "kind", kind)
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity goes from {SEVERITIES[0]} to {SEVERITIES[-1]}, got {self.severity}")

    @classmethod
    def spread(cls, pairs: Mapping[str, str]) -> list[Mapping[str, str]]:
        """Expand to all kinds of the set where none is given, and to all five severities where none is given."""
        chosen: Set = grammar.read(Set, pairs["set"], "--attack corrupt: set") if "set" in pairs else "own"
        kinds = [pairs["kind"]] if "kind" in pairs else KINDS[chosen]
        severities = [pairs["severity"]] if "severity" in pairs else map(str, SEVERITIES)
        return [{**pairs, "kind": kind, "severity": severity} for kind, severity in product(kinds, severities)]

    @property
    def threat(self) -> Threat:
        """All of [0, 1]."""
        return Threat(norm="linf", eps=1.0)

    @property
    def stream(self) -> str:
        return f"{self.name}:kind={self.kind}"

    def unavailable(self, item: Item) -> str | None:
        return None if self.set == "own" else medmnist_c.unavailable(self.kind, item.modality)

    def search(self, problem: Problem) -> Attacked:
        import torch

        rows = zip(problem.canvas, self._modalities(problem), problem.generators, strict=True)
        corrupted = torch.stack([self._corrupted(*row) for row in rows]).clamp(0, 1)
        return Attacked(canvas=problem.on_grid(corrupted, self.threat), steps=[0] * len(problem))

    def _corrupted(self, image: torch.Tensor, modality: str | None, rng: torch.Generator) -> torch.Tensor:
        if self.set == "own":
            return own.corrupted(image, self.kind, self.severity, rng)
        return medmnist_c.corrupted(image, self.kind, self.severity, rng, modality=modality)

    def _modalities(self, problem: Problem) -> Sequence[str | None]:
        """The modalities of the rows.

        Raises:
            TypeError: the set has other kinds for each modality, and they are not known.
        """
        if problem.modalities is not None:
            return problem.modalities
        if self.set != "own":
            raise TypeError(f"{self}: needs the modalities of its rows, modalities=...")
        return [None] * len(problem)


ATTACK = Corrupt
