"""Findings in the accuracies of an evaluate run: why answers are wrong, how soon they turn, and what none can turn."""

from __future__ import annotations

from collections.abc import Iterator

from safemed_eval.attacks import facts_of, names
from safemed_eval.core import CIRCULAR, CLEAN
from safemed_eval.report.findings.finding import Finding, note, warning
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.summary import FEW, EvaluateSummary
from safemed_eval.rounding import percent

LETTER_ONLY = (
    "the attacks aim at the option letter after the template's cue, not at the text before it: a model that writes "
    "more than the letter may be less robust than this; --attack {example}, without --smooth, aims at both"
)


def letter_only() -> Finding:
    """Say that nothing was aimed at what a model writes, and what does aim at it."""
    declared = (facts_of(name, {}) for name in names())
    example = next(facts.example for facts in declared if facts.aims_at == "text" and facts.example)
    return warning("letter-only", f"{LETTER_ONLY.format(example=example)}.")


def cell_findings(run: LoadedRun, summary: EvaluateSummary) -> Iterator[Finding]:
    """Findings about accuracies."""
    cells, smooth = {name: summary.overall[name] for name in run.conditions}, summary.asked["smooth"]
    if any(cell.few for cell in cells.values()):
        yield warning("few", FEW)
    if smooth:
        yield note("smoothed", f"answers of the smoothed model, by vote: {smooth}.")
        abstained = ", ".join(f"{cell.abstained} ({name})" for name, cell in cells.items())
        yield note("abstained", f"abstained, counted as wrong: {abstained}.")
    silent = ", ".join(f"{cell.no_answer} ({name})" for name, cell in cells.items() if cell.no_answer)
    if silent:
        yield note("no-answer", f"no answer, counted as wrong: {silent}.")
    steps = ", ".join(f"{cell.median_steps:g} ({name})" for name, cell in cells.items() if cell.median_steps)
    if steps:
        yield note("steps", f"median steps to a flip: {steps}.")
    for name, cell in cells.items():
        if cell.parts:
            left = ", ".join(f"{part} {share.text}" for part, share in cell.parts.items())
            yield note(
                "parts", f"left right by each part of {name}, in %: {left}; its own figure is what all of them leave."
            )
        if cell.image_blind:
            yield warning(
                "image-blind",
                f"{cell.image_blind:,} of {cell.n:,} items never flipped under {name}: the model does not look at "
                "their images, or the attack is broken.",
            )
    if summary.notes.letter_only:
        yield letter_only()
    yield from _order_findings(summary)


def _order_findings(summary: EvaluateSummary) -> Iterator[Finding]:
    preferred = [
        f"{condition}: {counts.letter} is answered in {percent(counts.answered[counts.letter])} %, gold in "
        f"{percent(counts.gold[counts.letter])} %, expected in {percent(counts.expected[counts.letter])} % (total "
        f"variation from gold {percent(counts.total_variation)} points)"
        for condition, counts in summary.notes.letters.items()
        if counts.notable
    ]
    if preferred:
        yield warning(
            "letters",
            f"letters are preferred. {'; '.join(preferred)}. Expected: of a model that is right as often and errs "
            "without regard to letters. Where the data favours a letter, --circular and --shuffle-options tell whose "
            "preference it is.",
        )
    counted = summary.notes.circular
    if counted:
        every = summary.overall[CIRCULAR]
        clean, all_orders = summary.overall[CLEAN].share, every.share
        change = "n/a" if clean is None or all_orders is None else f"{100 * (all_orders - clean):+.1f} points"
        yield note(
            "circular",
            f"right in every order of the options (circular): {every.text} %, against clean {change}. "
            f"{counted.order_dependent} of {counted.n} items are right in their own order but not in all.",
        )
