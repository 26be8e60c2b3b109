"""Facts of a run beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safemed_eval import stats
from safemed_eval.codec import Json, encode
from safemed_eval.data.audit.training_overlap import Overlap
from safemed_eval.report.analyses.population import Population, population_of
from safemed_eval.report.findings.attack_sizes import aims_at_letters
from safemed_eval.report.findings.canvas import CanvasCost, canvas_cost, grey_levels
from safemed_eval.report.findings.checklist import Check, checklist, verdict
from safemed_eval.report.findings.degenerate import degenerate
from safemed_eval.report.findings.falsified import Falsified, falsified_of
from safemed_eval.report.findings.grounding import CertifiedGrounding, Grounding, certified_grounding, grounding
from safemed_eval.report.findings.order import Circular, Letters, circular, letters_by_condition
from safemed_eval.report.findings.sampling import Draws, draws_of, ended_wrong
from safemed_eval.report.findings.unanswered import Silence, failures, silence
from safemed_eval.report.findings.verdict import Verdict
from safemed_eval.report.load import LoadedRun
from safemed_eval.runs.tally import Tally


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Facts of a run beside its numbers; see the module of each in `findings`."""

    images: Mapping[str, int]
    overlap: Overlap | None
    failures: list[str]
    degenerate: list[str]
    silence: Silence | None
    checklist: list[Check]
    verdict: Verdict | None
    letter_only: bool

    def own_json(self) -> Json:
        """The facts that only one command has."""
        return {}

    def to_json(self) -> Json:
        return {
            "images": dict(self.images),
            "overlap": encode(self.overlap),
            **self.own_json(),
            "failures": self.failures,
            "degenerate": self.degenerate,
            "silence": encode(self.silence),
            "checklist": encode(self.checklist),
            "verdict": encode(self.verdict),
            "letter_only": self.letter_only,
        }


@dataclass(frozen=True, kw_only=True)
class EvaluateNotes(Notes):
    letters: dict[str, Letters]
    circular: Circular | None
    canvas_cost: CanvasCost | None
    grounding: Grounding | None
    planted: tuple[Tally, ...]

    def own_json(self) -> Json:
        notes: Json = {"letters": encode(self.letters), "planted": encode(self.planted)}
        if self.circular:
            notes["circular"] = encode(self.circular)
        if self.canvas_cost:
            notes["canvas_cost"] = self.canvas_cost.cost
        if self.grounding:
            notes["grounding"] = encode(self.grounding)
        return notes


@dataclass(frozen=True, kw_only=True)
class CertifyNotes(Notes):
    """Facts of a certify run.

    Attributes:
        ceiling: the largest radius that the sample budget certifies.
        grey_levels_per_radius: see `grey_levels`.
        false_certificates_expected_at_most: in expectation, by chance; _at_most_95: with 95 % confidence.
        population: what follows for further questions.
    """

    ceiling: float
    grey_levels_per_radius: float | None
    false_certificates_expected_at_most: float
    false_certificates_at_most_95: int
    falsified: Falsified | None
    draws: Draws | None
    ended_wrong: int | None
    grounding: CertifiedGrounding | None
    population: Population

    def own_json(self) -> Json:
        return {
            "ceiling": self.ceiling,
            "grey_levels_per_radius": self.grey_levels_per_radius,
            "false_certificates_expected_at_most": self.false_certificates_expected_at_most,
            "false_certificates_at_most_95": self.false_certificates_at_most_95,
            "falsified": encode(self.falsified),
            "draws": encode(self.draws),
            "ended_wrong": self.ended_wrong,
            "population": encode(self.population),
            **({"grounding": encode(self.grounding)} if self.grounding else {}),
        }


def evaluate_notes(run: LoadedRun) -> EvaluateNotes:
    """Collect the facts of an evaluate run."""
    return EvaluateNotes(
        **vars(_notes(run)),
        letters=letters_by_condition(run),
        circular=circular(run),
        canvas_cost=canvas_cost(run),
        grounding=grounding(run),
        planted=run.meta.planted,
    )


def certify_notes(run: LoadedRun) -> CertifyNotes:
    """Collect the facts of a certify run."""
    attempted, alpha = len(run.certificates), run.budget.alpha
    return CertifyNotes(
        **vars(_notes(run)),
        ceiling=run.ceiling,
        grey_levels_per_radius=grey_levels(run),
        false_certificates_expected_at_most=attempted * alpha,
        false_certificates_at_most_95=stats.false_certificates_at_most(attempted, alpha) if attempted else 0,
        falsified=falsified_of(run),
        draws=draws_of(run),
        ended_wrong=ended_wrong(run),
        grounding=certified_grounding(run),
        population=population_of(run),
    )


def _notes(run: LoadedRun) -> Notes:
    checks = checklist(run)
    return Notes(
        images=run.meta.image_notes,
        overlap=run.meta.overlap,
        failures=failures(run),
        degenerate=degenerate(run),
        silence=silence(run),
        checklist=checks,
        verdict=verdict(checks),
        letter_only=aims_at_letters(run),
    )
