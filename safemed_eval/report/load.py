"""A run as it was read: what was asked, and its records, with certificates recomputed from their votes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from safemed_eval import grammar
from safemed_eval.codec import typed
from safemed_eval.core import CLEAN, GROUNDED, GROUNDING, MODALITIES, QUESTION_TYPES, UNATTACKED, UNKNOWN
from safemed_eval.errors import SpecError
from safemed_eval.report.certificates import recomputed
from safemed_eval.report.columns import Column, number_of
from safemed_eval.report.rows import Answers, Certificates, Rows, Slicing
from safemed_eval.runs import checked, read_run
from safemed_eval.runs.meta import RunMeta
from safemed_eval.runs.record import CertifyRecord, EvaluateRecord, Record
from safemed_eval.runs.spec import CertifySpec, Described, EvaluateSpec
from safemed_eval.smoothing import Budget, DonorVote, Exhaustive, Falsification, PatchSearch, Sequential, View, Voting

IN_MEMORY = "in memory"
"""In place of the folder of a run that has none."""
SLICES: dict[Slicing, str] = {"modality": "modality", "question_type": "question type"}
"""The columns that everything is broken down by, and what to call them."""
_ORDER = {name: place for place, name in enumerate((*MODALITIES, *QUESTION_TYPES))}


def in_order(names: Iterable[str]) -> list[str]:
    """Sort slices as reports list them: the eight and the five in their fixed order, numbers, others, then unknown."""

    def place(name: str) -> tuple[bool, int, float, str]:
        number = number_of(name)
        return name == UNKNOWN, _ORDER.get(name, len(_ORDER)), math.inf if number is None else number, name

    return sorted(names, key=place)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedRun:
    """A run of evaluate or certify. `Run` adds what notebooks and the command line ask of it.

    Attributes:
        out: its folder; None: it is in memory.
        name: what figures and tables call the run; that of the model, unless the user or a twin asks for more.
        records: in the order in which they were written.
        alpha: at which certificates are read; None for `evaluate`.
        with_images: whether a report may show images that the run has kept.
        radii: where certified accuracy is shown, see `grammar.radii`; None: where it usually is.
        by: columns of the data by which reports break numbers down, beside modality and question type.
    """

    out: Path | None
    name: str
    meta: RunMeta
    records: tuple[Record, ...]
    alpha: float | None
    with_images: bool = True
    radii: str | None = None
    by: tuple[Column, ...] = ()

    @classmethod
    @typed
    def read(cls, out: str | Path, *, alpha: float | None = None, name: str | None = None) -> Self:
        """Read a run folder.

        Args:
            alpha: read the certificates of a certify run at this one instead of its own; ignored for evaluate.
            name: what to call the run; by default its model.
        Raises:
            RunError: not a run folder, not a run of evaluate or certify, or a record does not fit what was asked: a
                certificate does not follow from its votes.
            SpecError: no certificate is possible at this alpha.
        """
        return cls._made(*read_run(Path(out)), out=Path(out), alpha=alpha, name=name)

    @classmethod
    def of(cls, meta: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], *, alpha: float | None = None) -> Self:
        """Make a run from what run.json and records.jsonl would hold.

        Raises:
            RunError, SpecError: as `read`.
        """
        written = (json.dumps(line, allow_nan=False).encode() for line in lines)
        return cls._made(*checked(dict(meta), written, IN_MEMORY), out=None, alpha=alpha, name=None)

    @classmethod
    def _made(
        cls, meta: RunMeta, records: Sequence[Record], *, out: Path | None, alpha: float | None, name: str | None
    ) -> Self:
        spec = meta.spec
        if isinstance(spec, CertifySpec):
            own = spec.budget
            alpha = own.alpha if alpha is None or isinstance(own, Exhaustive) else alpha
            try:
                own.at(alpha)
            except ValueError as error:
                raise SpecError(f"--alpha {alpha}: {error}") from None
            stored = [record for record in records if isinstance(record, CertifyRecord)]
            records = recomputed(stored, own, alpha, str(out or IN_MEMORY))
        else:
            alpha = None
        return cls(out=out, name=name or _model_of(meta), meta=meta, records=tuple(records), alpha=alpha)

    @property
    def spec(self) -> EvaluateSpec | CertifySpec:
        return self.meta.spec

    @property
    def kind(self) -> Literal["evaluate", "certify"]:
        return "certify" if isinstance(self.spec, CertifySpec) else "evaluate"

    @property
    def where(self) -> str:
        """The folder, or that there is none."""
        return str(self.out or IN_MEMORY)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The attacks, clean first, without the conditions of `grounding`; none for `certify`."""
        return tuple(name for name in self.spec.conditions if name not in GROUNDING)

    @property
    def grounding(self) -> bool:
        """True for an evaluate run that also asked about other images, and none."""
        return isinstance(self.spec, EvaluateSpec) and self.spec.grounding

    @property
    def donor_vote(self) -> DonorVote | None:
        """The vote on donors' images of a `certify` run; None: there was none."""
        return self.spec.grounding if isinstance(self.spec, CertifySpec) else None

    @property
    def grounded(self) -> dict[str, str]:
        """The names of grounded accuracies, each with the condition whose right answers it counts."""
        if not self.grounding:
            return {}
        attacks = [name for name in self.conditions if name not in UNATTACKED]
        return {GROUNDED: CLEAN} | {f"{GROUNDED}, {name}": name for name in attacks}

    @property
    def measures(self) -> tuple[str, ...]:
        """What an evaluate run has an accuracy of: its conditions, grounded accuracies, other images and none."""
        return (*self.conditions, *self.grounded, *GROUNDING[: len(GROUNDING) * self.grounding])

    @property
    def attacks(self) -> Mapping[str, Described]:
        """The attacks as they describe themselves, by condition; none for `certify`."""
        return self.spec.attacks if isinstance(self.spec, EvaluateSpec) else {}

    @property
    def voting(self) -> Voting | None:
        """The vote by which the model of an evaluate run answers; None for a model without noise."""
        return self.spec.smooth if isinstance(self.spec, EvaluateSpec) else None

    @property
    def quantized(self) -> bool:
        """True where attacked images are on 8-bit grey levels."""
        return isinstance(self.spec, EvaluateSpec) and self.spec.quantize

    @property
    def own_budget(self) -> Budget:
        """The sample budget of a `certify` run, as it was made."""
        assert isinstance(self.spec, CertifySpec)
        return self.spec.budget

    @cached_property
    def budget(self) -> Budget:
        """The sample budget of a `certify` run, with the alpha at which it is read."""
        assert self.alpha is not None
        return self.own_budget.at(self.alpha)

    @property
    def scale(self) -> str:
        """What the radii of a `certify` run are, on which canvas; for evaluate the canvas: runs differ or compare."""
        grid = self.spec.grid
        if self.kind == "evaluate":
            return grid
        kind = self.budget.kind
        unit = kind.unit if kind.measure == "parameter" else f"{kind.unit}, {grid}"
        return f"{kind.radius_name} ({unit})"

    @cached_property
    def ceiling(self) -> float:
        """The largest radius that the sample budget of a `certify` run certifies, on whichever of its canvases."""
        return max(self.ceilings.values(), default=0.0)

    @cached_property
    def ceilings(self) -> Mapping[View | None, float]:
        """The same for each of its canvases, and the files that they show; none where it certifies nothing."""
        views = {record.view for record in self.certificates if not record.failed} or {None}
        known = {view: self.budget.ceiling_on(view) for view in views}
        return {view: ceiling for view, ceiling in known.items() if ceiling is not None}

    @property
    def sequential(self) -> bool:
        """True for a `certify` run that draws until it has decided about its radii, and knows no others."""
        return isinstance(self.spec, CertifySpec) and isinstance(self.spec.budget, Sequential)

    @property
    def stop_when_wrong(self) -> bool:
        return isinstance(self.spec, CertifySpec) and self.spec.stop_when_wrong

    @property
    def random_order(self) -> bool:
        """True for a `certify` run whose noisy copies are each asked with their options in an order of its own."""
        return isinstance(self.spec, CertifySpec) and self.spec.option_order == "random"

    @property
    def falsification(self) -> Falsification | PatchSearch | None:
        """The attack on the certificates of a `certify` run; None: there was none."""
        return self.spec.falsify if isinstance(self.spec, CertifySpec) else None

    @cached_property
    def answers(self) -> Answers:
        """The records of an evaluate run; none of a certify run."""
        return Answers([record for record in self.records if isinstance(record, EvaluateRecord)])

    @cached_property
    def certificates(self) -> Certificates:
        """The records of a certify run; none of an evaluate run."""
        return Certificates([record for record in self.records if isinstance(record, CertifyRecord)])

    @property
    def rows(self) -> Answers | Certificates:
        """All records."""
        return self.certificates if self.kind == "certify" else self.answers

    @property
    def parts(self) -> dict[str, Rows[Any]]:
        """The rows of each condition; of a certify run all, by its own name."""
        if self.kind == "certify":
            return {self.kind: self.certificates}
        return {name: self.answers.under(name) for name in self.conditions}

    @property
    def has_images(self) -> bool:
        """True where there are kept images to show."""
        return self.with_images and self.out is not None and (self.out / "images").is_dir()

    @property
    def unfinished(self) -> int:
        """The number of records that the run still lacks."""
        return self.meta.total - len(self.records)

    @property
    def failed(self) -> int:
        """The number of items with an error in a record."""
        return self.rows.failed_items

    @property
    def all_failed(self) -> dict[str, str]:
        """The conditions under which nothing was measured, for `certify` its own name, each with its first error."""
        return {name: rows.first_error or "" for name, rows in self.parts.items() if rows.nothing_measured}

    @property
    def points(self) -> dict[str, float]:
        """The radii at which certified accuracy is shown, by name."""
        return self.budget.points(self.radii)

    @typed
    def at_alpha(self, alpha: float) -> Self:
        """The same run with its certificates read again from their votes at this alpha, if it has one.

        An evaluate run has none, nor have certificates against patches.

        Raises:
            SpecError: no certificate is possible at this alpha, or the run is read at another than its own already.
        """
        if self.kind == "evaluate" or alpha == self.alpha or isinstance(self.own_budget, Exhaustive):
            return self
        if self.alpha != self.own_budget.alpha:
            raise SpecError(f"{self.name}: is read at alpha {self.alpha:g} already; read the run folder again")
        read = self._made(self.meta, self.records, out=self.out, alpha=alpha, name=self.name)
        return replace(read, with_images=self.with_images, radii=self.radii, by=self.by)

    @typed
    def at(self, radii: str | None) -> Self:
        """The same run with certified accuracy shown at these radii, such as "0,0.5s,0.3"; s counts in sigma.

        Raises:
            SpecError: they cannot be read.
        """
        if self.kind == "certify":
            self.own_budget.points(radii)
        else:
            grammar.radii(radii or grammar.RADII, 1.0)
        return replace(self, radii=radii)

    @property
    def slicings(self) -> dict[Slicing | Column, str]:
        """All that reports break numbers down by, and what to call it: modality, question type, then `by`."""
        titles: dict[Slicing | Column, str] = dict(SLICES.items())
        return titles | {column: column.name for column in self.by if column.name not in SLICES}


def _model_of(meta: RunMeta) -> str:
    """The model's name, with its denoiser's, and whether it was smoothed: then it is another model."""
    name = " + ".join(Path(part).name for part in (meta.names.model, meta.names.denoiser) if part)
    voting = meta.spec.smooth if isinstance(meta.spec, EvaluateSpec) else None
    return f"{name}, smoothed at {voting.kind.title}" if voting else name


def radii_of(runs: Iterable[LoadedRun], radii: str | None) -> str:
    """The radii at which these runs are shown together: these, or else the usual ones and those of sequential runs."""
    if radii is not None:
        return radii
    known: dict[str, float] = {}
    for run in runs:
        if run.kind == "certify":
            points = run.own_budget.points(None)
            known |= {name: known.get(name, radius) for name, radius in points.items()}
    return ",".join(sorted(known, key=lambda name: known[name])) or grammar.RADII
