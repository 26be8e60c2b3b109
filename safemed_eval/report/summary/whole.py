"""The summary of a run: its numbers in all and by slice, and the facts beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

from safemed_eval.codec import Json
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.rows import Slicing
from safemed_eval.report.summary.measure import Part, answers_measure, certificates_measure
from safemed_eval.report.summary.notes import CertifyNotes, EvaluateNotes, Notes, certify_notes, evaluate_notes
from safemed_eval.report.summary.numbers import AnsweredBy, Certified
from safemed_eval.runs.spec import EvaluateSpec
from safemed_eval.smoothing import Sequential

Numbers = TypeVar("Numbers", AnsweredBy, Certified)
Noted = TypeVar("Noted", bound=Notes)


@dataclass(frozen=True, kw_only=True)
class Summary(Generic[Numbers, Noted]):
    """The numbers of a run, in all and by slice.

    Attributes:
        items: that have all their records; `expected` are all of the run.
        all_failed: conditions under which nothing was measured, see `LoadedRun.all_failed`, each with its first error.
        skipped: bad items that were left out.
        sampled: how the items were drawn from the whole; None: all are taken.
        asked: model, data, canvas, device and options of the run, in the words of the command.
        out: the run folder.
    """

    kind: str
    items: int
    expected: int
    failed: int
    all_failed: dict[str, str]
    skipped: int
    sampled: str | None
    asked: dict[str, object]
    overall: Numbers
    by_modality: dict[str, Numbers]
    by_question_type: dict[str, Numbers]
    notes: Noted
    out: str

    def by(self, slicing: Slicing) -> dict[str, Numbers]:
        """The numbers of each slice."""
        return self.by_modality if slicing == "modality" else self.by_question_type

    def to_json(self) -> Json:
        """The summary as --json prints it."""
        return {
            "kind": self.kind,
            "items": self.items,
            "expected": self.expected,
            "failed": self.failed,
            "all_failed": self.all_failed,
            "skipped": self.skipped,
            "sampled": self.sampled,
            "asked": self.asked,
            "overall": _json_of(self.overall),
            "by_modality": {name: _json_of(numbers) for name, numbers in self.by_modality.items()},
            "by_question_type": {name: _json_of(numbers) for name, numbers in self.by_question_type.items()},
            "notes": self.notes.to_json(),
            "out": self.out,
        }


class EvaluateSummary(Summary[AnsweredBy, EvaluateNotes]):
    """The numbers of an evaluate run: by condition."""


class CertifySummary(Summary[Certified, CertifyNotes]):
    """The numbers of a certify run."""


AnySummary = EvaluateSummary | CertifySummary


def _json_of(numbers: AnsweredBy | Certified) -> Json:
    if isinstance(numbers, Certified):
        return numbers.to_json()
    return {condition: cell.to_json() for condition, cell in numbers.items()}


def summarize(run: LoadedRun, radii: Mapping[str, float] | None = None) -> AnySummary:
    """Measure a run, in all and by slice; `radii` are of a certify run, see `certify_summary`."""
    return certify_summary(run, radii) if run.kind == "certify" else evaluate_summary(run)


def evaluate_summary(run: LoadedRun) -> EvaluateSummary:
    """Measure an evaluate run."""
    return EvaluateSummary(**vars(_summary(run, run.answers, answers_measure(run), evaluate_notes(run))))


def certify_summary(run: LoadedRun, radii: Mapping[str, float] | None = None) -> CertifySummary:
    """Measure a certify run.

    Args:
        radii: where certified accuracy is read, by name; by default at `LoadedRun.points`.
    """
    return CertifySummary(**vars(_summary(run, run.certificates, certificates_measure(run, radii), certify_notes(run))))


def _summary(run: LoadedRun, rows: Part, measure: Callable[[Part], Numbers], notes: Noted) -> Summary[Numbers, Noted]:
    each, counts = max(1, len(run.spec.conditions)), Counter(rows.items)
    return Summary(
        kind=run.kind,
        items=sum(count == each for count in counts.values()),
        expected=run.meta.items,
        failed=run.failed,
        all_failed=run.all_failed,
        skipped=len(run.meta.skipped),
        sampled=run.meta.sampled,
        asked=_asked(run),
        overall=measure(rows),
        by_modality={name: measure(part) for name, part in rows.split("modality").items()},
        by_question_type={name: measure(part) for name, part in rows.split("question_type").items()},
        notes=notes,
        out=run.where,
    )


def _asked(run: LoadedRun) -> dict[str, object]:
    spec, model, names = run.spec, run.meta.model, run.meta.names
    options: dict[str, object] = {}
    if isinstance(spec, EvaluateSpec):
        options = {"quantize": spec.quantize, "smooth": smooth_words(run)}
    else:
        budget = run.budget
        options = {"sampling": budget.sampling, **asdict(budget)}
        if isinstance(budget, Sequential):
            options["radii"] = ",".join(budget.radii)
        options["stop_when_wrong"] = spec.stop_when_wrong or None
        options["option_order"] = spec.option_order
    return {
        "model": names.model,
        "denoiser": names.denoiser,
        "data": names.data,
        "canvas": spec.canvas,
        "domain": spec.domain if spec.domain != "canvas" else None,
        "readout": spec.readout,
        **options,
        "shuffle_options": spec.shuffle_options,
        "seed": spec.seed,
        "dtype": model.get("dtype"),
        "device": model.get("device"),
    }


def smooth_words(run: LoadedRun) -> str | None:
    """Write the vote of a smoothed model as --smooth has it; None for a model without noise."""
    if not run.voting:
        return None
    values = asdict(run.voting).items()
    return ",".join(f"{key}={value if isinstance(value, str) else f'{value:g}'}" for key, value in values)
