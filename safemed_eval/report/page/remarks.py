"""What the page says of its runs in sentences: above all numbers, and below the tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from safemed_eval.data import overlap_sentences
from safemed_eval.report.breakdown import CANVAS_COST, LETTER_ONLY
from safemed_eval.report.findings.order import order_sentences
from safemed_eval.report.findings.sampling import ENDED_WRONG, SEQUENTIAL_BOUNDS, draws_sentence, draws_words
from safemed_eval.report.findings.silence import silence_sentences
from safemed_eval.report.load import LoadedRun
from safemed_eval.report.page.data import Study
from safemed_eval.rounding import FAILED_ITEMS, floor_to
from safemed_eval.text import visible

Notice = tuple[str, str]
"""Which runs it is about, and what it says of them."""


def notices_of(studies: Sequence[Study]) -> list[Notice]:
    """What must be known before any number is read; runs that share it are named together."""
    found: dict[str, list[LoadedRun]] = {}
    for study in studies:
        for text in _warnings(study):
            found.setdefault(text, []).append(study.run)
    every = [study.run for study in studies]
    notices = [(_named(runs, every), text) for text, runs in found.items()]
    for kind, what in (("evaluate", "accuracies"), ("certify", "certificates")):
        mine = [run for run in every if run.kind == kind]
        never = f"their {what} do not compare"
        for key, differs, so in (
            ("data", "were not asked the same questions", never),
            (
                "shuffle_options",
                "were not asked the options in the same order",
                "what differs may be the order's doing",
            ),
            (
                "sampling",
                "did not draw noise alike, fixed and sequential",
                "their average and median radii do not compare",
            ),
            ("canvas", "do not share a canvas, on which eps, sigma and radius are measured", never),
        ):
            if len({run.spec.get(key) for run in mine}) > 1:
                notices.append((_named(mine, every), f"These runs {differs}: {so}."))
    return notices


def _named(runs: Sequence[LoadedRun], every: Sequence[LoadedRun]) -> str:
    """The names of some runs, each once, and their command if it is one; "all" where that is shorter."""
    kinds = {run.kind for run in runs}
    if len(runs) > 1 and len(runs) == sum(run.kind in kinds for run in every):
        return "All runs" if len(runs) == len(every) else f"All runs of {kinds.pop()}"
    names = ", ".join(dict.fromkeys(run.name for run in runs))
    return visible(f"{names} ({kinds.pop()})" if len(kinds) == 1 else names)


def _warnings(study: Study) -> Iterable[str]:
    run, summary = study.run, study.summary
    if str(run.meta["names"]["data"]).startswith("phantom"):
        yield "The images are drawn by a program (phantom): discs, rings and stripes. This is not clinical evidence."
    yield from map(visible, (*overlap_sentences(summary.notes["overlap"]), *summary.notes["degenerate"]))
    yield from map(visible, silence_sentences(summary.notes["silence"]))
    if run.spec.get("pseudonyms"):
        yield "Ids, paths and texts are pseudonyms, which whoever has the key can tell."
    if run.unfinished:
        total = summary.expected * max(1, len(run.conditions))
        yield f"Not finished: {run.unfinished:,} of {total:,} records are missing, and the numbers will change."
    if summary.failed:
        first = "".join(f" First error under {name}: {error}." for name, error in summary.all_failed.items())
        yield visible(f"Failed: {' '.join(run.failures)} {FAILED_ITEMS}{first}")
    if summary.skipped:
        yield f"Without {_many(summary.skipped, 'item')} that could not be used; Provenance has the reasons."
    if summary.sampled:
        yield visible(f"Not all items, but a sample: {summary.sampled}.")
    if run.kind == "certify" and run.alpha != run.spec["smoothing"]["alpha"]:
        yield (
            f"The certificates were read from the votes at alpha {run.alpha:g}; the run was made for alpha "
            f"{run.spec['smoothing']['alpha']:g}. An alpha counts if it was chosen before the votes were seen."
        )
    if run.kind == "certify" and summary.notes["falsified"] and not summary.notes["falsified"]["sound"]:
        yield "More of its certificates were proved false than chance explains. Do not trust this run."
    for check in summary.notes["checklist"]:
        if check["status"] == "fail":
            yield f"Its attacks fail a check, {check['name']}: do not take them for robustness before that is mended."
    cost = summary.notes.get("canvas_cost")
    if cost is not None and cost > CANVAS_COST:
        yield f"The canvas costs {100 * cost:.1f} points of accuracy against the checkpoint's official path."


def remarks_of(studies: Sequence[Study]) -> list[str]:
    """What stands below the tables of one kind; runs of which the same holds are named together."""
    found: dict[str, list[str]] = {}
    for study in studies:
        for text in _certify_remarks(study) if study.run.kind == "certify" else _attack_remarks(study):
            found.setdefault(text, []).append(visible(study.run.name))
    return [f"{', '.join(names)}: {text}" for text, names in found.items()]


def _certify_remarks(study: Study) -> Iterable[str]:
    ceiling, levels = study.summary.notes["ceiling"], study.summary.notes["grey_levels_per_radius"]
    rms = f" ({floor_to(ceiling * levels, 3)} grey levels RMS)" if levels else ""
    yield (
        f"{draws_words(study.run)} at alpha {study.run.alpha:g} certify no radius above {floor_to(ceiling, 4)}{rms}, "
        "whatever the model."
    )
    if draws := study.summary.notes["draws"]:
        yield visible(f"{SEQUENTIAL_BOUNDS}. {draws_sentence(draws)}")
    if ended := study.summary.notes["ended_wrong"]:
        yield f"{_many(ended, 'item')}: {ENDED_WRONG}."
    if attacked := study.summary.notes["falsified"]:
        yield (
            f"{attacked['certificates']:,} certificates were attacked within their radius: {attacked['items']:,} "
            f"proved false; chance gives a sound tool at most {attacked['allowed']:,}."
        )
        if attacked["remark"]:
            yield attacked["remark"]


def _attack_remarks(study: Study) -> Iterable[str]:
    overall = study.summary.overall
    steps = {name: cell["median_steps"] for name, cell in overall.items() if cell["median_steps"]}
    if steps:
        yield "median steps to a flip: " + ", ".join(f"{count:g} ({visible(name)})" for name, count in steps.items())
    for name, cell in overall.items():
        if cell["parts"]:
            yield (
                f"the small figures under {visible(name)} are what each of its parts left right, in %; its own figure "
                "is what all of them leave right."
            )
        if cell["image_blind"]:
            yield (
                f"{cell['image_blind']:,} of {cell['n']:,} items never flipped under {visible(name)}: the model does "
                "not look at their images, or the attack is broken."
            )
    if study.summary.notes["letter_only"]:
        yield f"{LETTER_ONLY}."
    yield from map(visible, order_sentences(study.summary.notes, overall))


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
