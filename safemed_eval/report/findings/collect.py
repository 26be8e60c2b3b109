"""Every finding of a run, in the order in which reports show them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from safemed_eval.core import NOT_SHRUNK
from safemed_eval.data import overlap_sentences
from safemed_eval.report.findings.canvas import file_findings, own_pixel_findings, region_findings
from safemed_eval.report.findings.cells import cell_findings
from safemed_eval.report.findings.checklist import count_words, unproved
from safemed_eval.report.findings.finding import Finding, counted, failure, note, warning
from safemed_eval.report.findings.grounding import certified_grounding_findings, grounding_findings
from safemed_eval.report.findings.sampling import draws_words
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.summary import FAILED_ITEMS, FEW, AnySummary, CertifySummary, EvaluateSummary
from safemed_eval.rounding import ceil_to, floor_to
from safemed_eval.runs.spec import EvaluateSpec
from safemed_eval.smoothing import Sequential

MADE = "phantom"
"""The kind of data whose images are drawn by a program."""


def findings_of(run: LoadedRun, summary: AnySummary) -> tuple[Finding, ...]:
    """Collect the findings of a run.

    Args:
        summary: its numbers.
    """
    if isinstance(summary, CertifySummary):
        return (*_of_any_run(run, summary), *_certify_findings(run, summary), *own_pixel_findings(run))
    own = (*_evaluate_findings(run, summary), *region_findings(run), *file_findings(run))
    return (*_of_any_run(run, summary), *own)


def _of_any_run(run: LoadedRun, summary: AnySummary) -> Iterator[Finding]:
    notes = summary.notes
    if run.meta.names.data.startswith(MADE):
        yield warning(
            "made-images",
            f"the images are drawn by a program ({MADE}): discs, rings and stripes. This is not clinical evidence.",
        )
    for sentence in overlap_sentences(notes.overlap):
        yield warning("trained-on", sentence)
    for check in run.meta.checks:
        if check.name == NOT_SHRUNK and check.status == "warn":
            yield warning("shrunk-canvas", f"{check.detail}.")
    for sentence in notes.degenerate:
        yield warning("degenerate", sentence)
    if notes.silence:
        yield warning("silence", str(notes.silence))
    if run.spec.pseudonyms:
        yield note("pseudonyms", "ids, paths and texts are pseudonyms, which whoever has the key can tell.")
    if run.unfinished:
        missing = f"{run.unfinished:,} of {run.meta.total:,} records are missing"
        yield warning("unfinished", f"not finished: {missing}, and the numbers will change.")
    if notes.failures:
        yield warning("failed", " ".join(notes.failures))
        yield note("failed-items", FAILED_ITEMS)
    for condition, error in summary.all_failed.items():
        yield failure("first-error", f"{condition}: failed, nothing was measured; the first error: {error}")
    if summary.skipped:
        yield note("skipped", f"without {counted(summary.skipped, 'item')} that could not be used.")
    yield from sampled(run)
    if isinstance(run.spec, EvaluateSpec) and run.spec.keep_images and run.with_images and not run.has_images:
        yield warning("lost-images", "its kept images are not there and are left out.")


def sampled(run: LoadedRun) -> Iterator[Finding]:
    """Say how the items were drawn, where not all are taken."""
    if run.meta.sampled:
        yield note("sample", f"a sample of the items: {run.meta.sampled}.")


def sequential_bounds(run: LoadedRun) -> Iterator[Finding]:
    """Say what sequential certificates do not know."""
    if run.sequential:
        budget = run.budget
        assert isinstance(budget, Sequential)
        yield note(
            "sequential",
            f"sequential certificates, of the gold answer and at the radii {', '.join(budget.radii)} only: in "
            "between, and for the average and median radius, lower bounds (>=) are shown.",
        )


def _evaluate_findings(run: LoadedRun, summary: EvaluateSummary) -> Iterator[Finding]:
    cost, checks = summary.notes.canvas_cost, summary.notes.checklist
    if any(check.status == "fail" for check in checks):
        yield failure(
            "failed-check",
            "the attacks are not to be believed, they fail a check: do not take accuracy under them for robustness "
            "before that is fixed.",
        )
    if cost and cost.cost is not None and cost.notable:
        yield warning(
            "canvas-cost",
            f"the canvas costs {100 * cost.cost:.1f} points of accuracy against the checkpoint's official path.",
        )
    yield from cell_findings(run, summary)
    if summary.notes.grounding:
        yield from grounding_findings(summary.notes.grounding)
    for check in checks:
        if check.status in ("warn", "fail"):
            make = failure if check.status == "fail" else warning
            yield make("check", f"attack check '{check.name}': {check.status}, {check.detail}")
    if judged := summary.notes.verdict:
        advice = "".join(f"; {what}" for what in unproved(checks))
        yield note(
            "checks",
            f"can these attacks be believed? Verdict: {judged}{advice}. {count_words(checks)}; `safemed-eval report` "
            "lists them.",
        )


def _certify_findings(run: LoadedRun, summary: CertifySummary) -> Iterator[Finding]:
    notes, own = summary.notes, run.own_budget.alpha
    attacked = notes.falsified
    if run.alpha is not None and run.alpha != own:
        yield warning(
            "alpha",
            f"certificates are read at alpha {run.alpha:g}; the run was made for alpha {own:g}. An alpha counts if it "
            "was chosen before the votes were seen.",
        )
    if attacked and not attacked.sound:
        yield failure(
            "unsound", "more certificates are false than chance explains: do not trust this run, and report it."
        )
    if any(point.few for point in summary.overall.points.values()):
        yield warning("few", FEW)
    if run.spec.writes and not run.sequential:
        yield note(
            "no-answer", f"'No answer' won the vote for {summary.overall.no_answer} items; they are abstentions."
        )
    yield from sequential_bounds(run)
    if notes.draws:
        yield note("draws", str(notes.draws))
    if notes.ended_wrong:
        yield note(
            "ended-wrong",
            f"{notes.ended_wrong:,} of the items without a certificate: the selected answer is wrong and no more was "
            "drawn; whether it could be certified is not known.",
        )
    if run.random_order:
        yield note(
            "random-order",
            "each noisy copy was asked with the options in a random order of its own: certificates are of the vote "
            "over noise and orders together, and do not depend on the order of the options in the data.",
        )
    if notes.grounding:
        yield from certified_grounding_findings(notes.grounding)
    yield from _radius_findings(run)
    levels = notes.grey_levels_per_radius
    rms = f" ({floor_to(notes.ceiling * levels, 3)} grey levels RMS)" if levels else ""
    yield note(
        "ceiling",
        f"ceiling: this sample budget ({draws_words(run)}, at alpha {run.alpha:g}) certifies no radius above "
        f"{floor_to(notes.ceiling, 4)}{rms}, whatever the model.",
    )
    at_most = notes.false_certificates_at_most_95
    chance = (
        f"a certificate may be false by chance: with 95 % confidence at most {at_most:,} of these {summary.items:,} "
        f"are, in expectation at most {ceil_to(notes.false_certificates_expected_at_most, 2):g}."
        if run.budget.alpha
        else "no certificate is false by chance: nothing is drawn."
    )
    yield note("by-chance", chance if summary.items else "no certificate yet.")
    if summary.items:
        yield note("population", str(notes.population))
    if attacked:
        yield note(
            "falsified",
            f"{attacked.certificates:,} certificates were attacked within their radius: {attacked.items:,} proved "
            f"false; chance gives a sound tool at most {attacked.allowed:,}.",
        )
        if attacked.remark:
            yield note("at-ceiling", attacked.remark)
        for refuted in attacked.refuted:
            yield warning("refuted", str(refuted))
        if attacked.refuted and run.out:
            folder = f"{run.out}/falsified"
            what = "images, at their own size," if run.spec.domain == "file" else "canvases"
            yield note("refuted", f"the {what} where these votes were counted: {folder}, (3, H, W) float32.")


def _radius_findings(run: LoadedRun) -> Iterator[Finding]:
    """Say what a radius of this noise is, where its name does not, and what its certificates lack."""
    kind = run.budget.kind
    words = []
    for name, radius in run.points.items():
        if 0 < radius <= run.ceiling and (told := kind.words(radius)):
            words.append("; ".join([f"r>={name}: {told}", *_on_windows(run, radius)]))
    if words:
        yield note("radius-words", f"in words, {'; '.join(words)}.")
    if kind.caveat:
        yield note("floating-point", f"certificates under {kind} noise {kind.caveat}.")


def _on_windows(run: LoadedRun, radius: float) -> Iterator[str]:
    """Say what a radius is for the images that are shown through each window of DICOM files."""
    windows = {
        match[1]: (float(match[2]), float(match[3])) for note in run.meta.image_notes if (match := _WINDOW.match(note))
    }
    for name, (centre, width) in windows.items():
        if told := run.budget.kind.words_on_window(radius, centre, width):
            yield f"on window {name} {told}"


_WINDOW = re.compile(r"window (([-+.e0-9]+)/([.e0-9+]+))")
