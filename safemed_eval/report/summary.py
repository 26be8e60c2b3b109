"""The numbers of a run, in all and by slice. Items that failed stay in every denominator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from safemed_eval import stats
from safemed_eval.codec import Json, encode
from safemed_eval.core import CLEAN
from safemed_eval.data.audit.training_overlap import Overlap
from safemed_eval.report.analyses.population import Population, population_of
from safemed_eval.report.findings.attack_sizes import aims_at_letters, sized_attacks
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
from safemed_eval.report.rows import Answers, Certificates, Floats, Mask, Slicing
from safemed_eval.rounding import interval, percent, percent_down, radius, radius_at_least
from safemed_eval.runs.spec import EvaluateSpec
from safemed_eval.runs.tally import Tally
from safemed_eval.smoothing import NO_ANSWER, WRONG, Budget, DonorVote, Sequential

FAILED = "failed"
"""In place of a figure that nobody knows, since every item failed."""
FAILED_ITEMS = (
    "Where some items failed, the figure without them stands beside the one that counts them as wrong; where all did, "
    "nothing was measured."
)
DAGGER = "\u2020"
"""The mark of an interval of few clusters."""
FEW = "few clusters (effectively fewer than ten patients or images): do not trust the interval."
"""`Share.few` in words."""


@dataclass(frozen=True, kw_only=True)
class Rest:
    """The same share without the items that failed."""

    share: float | None
    lower: float | None
    upper: float | None
    count: int
    n: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of items in [0, 1] with its 95 % interval. Unknown is None; items that failed count against it.

    Attributes:
        count: how many of the n items.
        clusters: patients, or else images.
        few: effectively fewer than ten clusters: do not trust the interval.
        failed: how many items failed.
        all_failed: every item failed, or every one that could have been measured: nothing is known.
        without_failed: where some items failed, the share of the others.
    """

    share: float | None
    lower: float | None
    upper: float | None
    count: int | None
    n: int
    clusters: int
    few: bool
    failed: int
    all_failed: bool
    without_failed: Rest | None

    @property
    def text(self) -> str:
        """The share in percent as reports show it; "failed" where every item did, "n/a" where there is none."""
        return FAILED if self.all_failed else self._percent(self.share)

    @property
    def bounds_text(self) -> str:
        """The ends of the interval in percent, rounded outward: "90.1-94.6"; empty where unknown."""
        return interval(self.lower, self.upper)

    @property
    def rest_text(self) -> str:
        """The figure without the failed items, "2 failed, else 95.0 90.1-97.9"; empty where none or all did."""
        rest = self.without_failed
        if rest is None:
            return ""
        return f"{self.failed} failed, else {self._percent(rest.share)} {interval(rest.lower, rest.upper)}"

    def _percent(self, share: float | None) -> str:
        return percent(share)

    def to_json(self) -> Json:
        return {
            "accuracy": self.share,
            "lower": self.lower,
            "upper": self.upper,
            "correct": self.count,
            "n": self.n,
            "clusters": self.clusters,
            "few": self.few,
            "failed": self.failed,
            "all_failed": self.all_failed,
            "without_failed": encode(self.without_failed),
        }


@dataclass(frozen=True, kw_only=True)
class Answered(Share):
    """The accuracy of an evaluate run under one condition, and why answers are wrong.

    Attributes:
        no_answer: how many answers could not be read.
        abstained: how many items a smoothed model abstained on; None for a model without noise.
        median_steps: to a flip; None where nothing flipped, and for a smoothed model, on which no attack ends early.
        image_blind: under an attack so large that all images are in its ball, how many items never flipped.
        parts: of an attack made of several, the accuracy that each of them left.
        unavailable: for how many items the condition could not be had; they are not among the n.
    """

    no_answer: int
    abstained: int | None
    median_steps: float | None
    image_blind: int | None
    parts: dict[str, Share] | None
    unavailable: int

    @property
    def rest_text(self) -> str:
        """The figure without the failed items, and for how many items there is none."""
        unavailable = f"n/a for {self.unavailable}" if self.unavailable else ""
        return "; ".join(filter(None, (super().rest_text, unavailable)))

    def to_json(self) -> Json:
        return super().to_json() | {
            "no_answer": self.no_answer,
            "abstained": self.abstained,
            "median_steps": self.median_steps,
            "image_blind": self.image_blind,
            "parts": {name: share.to_json() for name, share in self.parts.items()} if self.parts else None,
            "unavailable": self.unavailable,
        }


@dataclass(frozen=True, kw_only=True)
class Point(Share):
    """Certified accuracy at one radius: the share answered rightly with a certified radius of at least this.

    Attributes:
        asked: False at a radius that sequential certificates know nothing of.
        above_ceiling: the sample budget certifies no such radius, whatever the model.
    """

    radius: float
    asked: bool
    above_ceiling: bool

    @property
    def text(self) -> str:
        """The share in percent, rounded down, or why it is not known."""
        if self.all_failed:
            return FAILED
        if not self.asked:
            return "not asked"
        return ">ceiling" if self.above_ceiling else percent_down(self.share)

    def _percent(self, share: float | None) -> str:
        return percent_down(share)

    def to_json(self) -> Json:
        return {
            "radius": self.radius,
            "certified_accuracy": self.share,
            "lower": self.lower,
            "upper": self.upper,
            "certified": self.count,
            "above_ceiling": self.above_ceiling,
            "asked": self.asked,
            "few": self.few,
            "failed": self.failed,
            "all_failed": self.all_failed,
            "without_failed": encode(self.without_failed),
        }


@dataclass(frozen=True, kw_only=True)
class Certified:
    """The certificates of a certify run, or of a slice of it.

    Attributes:
        points: certified accuracy by the name of the radius.
        grounded: the same, of items that depend on the image, too; empty where this was not asked.
        abstained: items without a certificate; `abstention` is their share.
        no_answer: items for which "no answer" won the vote; None where draws are of the gold answer alone.
        wrong: items with a certificate of a wrong answer; None where that is not known.
        average_radius: of all items, 0 where wrong or abstained. median_radius: the largest at which half are still
            certified and right.
        at_least: both are lower bounds: sequential certificates know the radii alone that were asked for.
    """

    points: dict[str, Point]
    grounded: dict[str, Point]
    n: int
    clusters: int
    abstained: int
    abstention: float | None
    no_answer: int | None
    wrong: int | None
    average_radius: float | None
    median_radius: float | None
    failed: int
    all_failed: bool
    at_least: bool

    def radius_text(self, value: float | None) -> str:
        """The average or median radius, rounded down."""
        return radius_at_least(value) if self.at_least else radius(value)

    def to_json(self) -> Json:
        return {
            "certified": {name: point.to_json() for name, point in self.points.items()},
            **({"grounded": {name: point.to_json() for name, point in self.grounded.items()}} if self.grounded else {}),
            "n": self.n,
            "clusters": self.clusters,
            "abstained": self.abstained,
            "abstention": self.abstention,
            "no_answer": self.no_answer,
            "wrong": self.wrong,
            "average_radius": self.average_radius,
            "median_radius": self.median_radius,
            "failed": self.failed,
            "all_failed": self.all_failed,
        }


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


AnsweredBy = dict[str, Answered]
"""By condition."""
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
    """Measure a run, in all and by slice.

    Args:
        radii: of a certify run, where certified accuracy is read, by name; by default at `LoadedRun.points`.
    """
    return certify_summary(run, radii) if run.kind == "certify" else evaluate_summary(run)


def evaluate_summary(run: LoadedRun) -> EvaluateSummary:
    """Measure an evaluate run."""
    notes = EvaluateNotes(
        **vars(_notes(run)),
        letters=letters_by_condition(run),
        circular=circular(run),
        canvas_cost=canvas_cost(run),
        grounding=grounding(run),
        planted=run.meta.planted,
    )
    return EvaluateSummary(**vars(_summary(run, run.answers, answers_measure(run), notes)))


def certify_summary(run: LoadedRun, radii: Mapping[str, float] | None = None) -> CertifySummary:
    """Measure a certify run."""
    attempted, alpha = len(run.certificates), run.budget.alpha
    notes = CertifyNotes(
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
    return CertifySummary(**vars(_summary(run, run.certificates, certificates_measure(run, radii), notes)))


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


Part = TypeVar("Part", Answers, Certificates)


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


def answers_measure(run: LoadedRun) -> Callable[[Answers], AnsweredBy]:
    """Make the function that measures some of the rows of an evaluate run."""
    huge = {attack.condition for attack in sized_attacks(run) if attack.is_huge and attack.facts.should_flip}
    parts = {name: _parts_of(run.answers.under(name)) for name in run.conditions}
    voted = run.voting is not None

    def measure(part: Answers) -> AnsweredBy:
        right = {record.item for record in part.under(CLEAN) if record.correct}
        return {
            name: _answered(
                part.all_under(run.grounded.get(name, name)),
                right=right,
                voted=voted,
                grounded=name in run.grounded,
                huge=name in huge,
                parts=parts.get(name, ()),
            )
            for name in run.measures
        }

    return measure


def _parts_of(rows: Answers) -> list[str]:
    """The names of the parts of an attack that is made of several."""
    return list(dict.fromkeys(name for record in rows for name in record.parts or ()))


def _answered(
    rows: Answers, *, right: Set[str], voted: bool, grounded: bool, huge: bool, parts: Sequence[str]
) -> Answered:
    """Measure the rows of one condition.

    Args:
        right: the items that are answered rightly on clean images: only these can flip.
        grounded: count only the answers that depend on the image, and say nothing of the attack's steps.
    """
    unavailable = int(rows.unavailable.sum())
    rows = rows.where(~rows.unavailable)
    successes = rows.correct & rows.dependent if grounded else rows.correct
    share = _share(rows, successes)
    was_right = np.array([record.item in right for record in rows], dtype=bool)
    flipped = rows.steps[was_right & ~rows.correct & (rows.steps > 0)]
    if voted:
        silent = sum(record.abstained == NO_ANSWER for record in rows)
    else:
        silent = int((~rows.answered & ~rows.failed).sum())
    return Answered(
        **vars(share),
        no_answer=silent,
        abstained=sum(record.abstained is not None for record in rows) if voted and len(rows) else None,
        median_steps=None if voted or grounded or not len(flipped) else float(np.median(flipped)),
        image_blind=share.count if huge else None,
        parts={name: _share(rows, _left_right(rows, name)) for name in parts} or None,
        unavailable=unavailable,
    )


def _left_right(rows: Answers, part: str) -> Mask:
    """Return which items were right after this part of an attack; one that did not meet it was wrong before."""
    return np.array([(record.parts or {}).get(part, False) for record in rows], dtype=bool)


def _share(rows: Answers | Certificates, successes: Mask, *, known: bool = True) -> Share:
    """The share of successes.

    Args:
        known: whether it says anything; else the share and its bounds are None.
    """
    share, failed = rows.share(successes), rows.failed
    count, nothing, rest = int(failed.sum()), rows.nothing_measured, None
    known = known and not nothing
    if count and known:
        others = rows.where(~failed).share(successes[~failed])
        rest = Rest(share=others.estimate, lower=others.lower, upper=others.upper, count=others.count, n=others.n)
    return Share(
        share=share.estimate if known else None,
        lower=share.lower if known else None,
        upper=share.upper if known else None,
        count=share.count if known else None,
        n=share.n,
        clusters=share.clusters,
        few=known and share.few,
        failed=count,
        all_failed=nothing,
        without_failed=rest,
    )


def certificates_measure(
    run: LoadedRun, radii: Mapping[str, float] | None = None
) -> Callable[[Certificates], Certified]:
    """Make the function that measures some of the rows of a certify run; see `summarize` for its radii."""
    points = radii or run.points
    return partial(_certified, points=points, budget=run.budget, ceiling=run.ceiling, donor_vote=run.donor_vote)


def _certified(
    rows: Certificates,
    points: Mapping[str, float],
    budget: Budget,
    ceiling: float,
    donor_vote: DonorVote | None,
) -> Certified:
    n, nothing = len(rows), rows.nothing_measured
    right = rows.right_radii
    grounded = rows.grounded_radii(donor_vote) if donor_vote else None
    reached = np.nan_to_num(right, nan=0.0)
    abstained = [record.abstained for record in rows]
    none = sum(reason is not None for reason in abstained)
    half = float(np.quantile(np.nan_to_num(right, nan=-1.0), 0.5, method="higher")) if n else -1.0
    # Sequential certificates are of the gold answer alone; where draws end with a wrong selection, so are fixed ones.
    gold_only = isinstance(budget, Sequential)
    unseen = gold_only or nothing or WRONG in abstained
    return Certified(
        points={name: _point(rows, right, value, budget, ceiling) for name, value in points.items()},
        grounded={}
        if grounded is None
        else {name: _point(rows, grounded, value, budget, ceiling) for name, value in points.items()},
        n=n,
        clusters=int(rows.clusters.max()) + 1 if n else 0,
        abstained=none,
        abstention=none / n if n and not nothing else None,
        no_answer=None if gold_only else abstained.count(NO_ANSWER),
        wrong=None if unseen else int((~np.isnan(rows.radii) & ~rows.correct).sum()),
        average_radius=float(reached.mean()) if n and not nothing else None,
        median_radius=half if half >= 0 else None,
        failed=int(rows.failed.sum()),
        all_failed=nothing,
        at_least=gold_only,
    )


def _point(rows: Certificates, right: Floats, value: float, budget: Budget, ceiling: float) -> Point:
    asked = budget.asked(value) if isinstance(budget, Sequential) else value
    above = asked is not None and asked > ceiling
    share = _share(rows, right >= (value if asked is None else asked), known=asked is not None and not above)
    return Point(**vars(share), radius=value, asked=asked is not None, above_ceiling=above)
