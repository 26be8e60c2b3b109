"""Grounding: how many right answers, or certificates, depend on the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from safemed_eval.core import CLEAN, GROUNDING, SHUFFLED
from safemed_eval.report.findings.finding import Finding, note, warning
from safemed_eval.report.load import LoadedRun
from safemed_eval.rounding import percent

NOTABLE = 0.1
"""Share of right answers, or certificates, that do not depend on the image, from which it is a warning."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The images that were shown in the place of the items' own.

    Attributes:
        question: items with an image of the same question and another gold answer.
        modality: items with another image of the same modality, for want of such a one, and a blank one.
        blank: items with a blank image alone, since there is none of the modality either.
    """

    question: int
    modality: int
    blank: int


@dataclass(frozen=True, kw_only=True)
class Grounding:
    """The items of an evaluate run by answer and by dependence on the image; see `rows.depends`.

    Attributes:
        unknown: items that failed on their own image or on the other one.
        unavailable: the conditions that could not be had for any item, each with the reason.
    """

    right_grounded: int
    right_ungrounded: int
    wrong_grounded: int
    wrong_ungrounded: int
    unknown: int
    shown: Shown
    unavailable: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class CertifiedGrounding:
    """The items with a certificate of the right answer, by the smoothed model's answer on the donor's image.

    Attributes:
        other: another answer: these are grounded.
        same: the same answer.
        unclear: neither: it abstains.
    """

    other: int
    same: int
    unclear: int
    shown: Shown


def grounding(run: LoadedRun) -> Grounding | None:
    """Count the items of an evaluate run; None for a run that did not ask."""
    if not run.grounding:
        return None
    rows = run.answers.under(CLEAN)
    known, right, dependent = rows.dependence_known, rows.correct, rows.dependent
    matches = Counter(record.match for record in run.answers.under(SHUFFLED))
    rest = {name: run.answers.all_under(name) for name in GROUNDING}
    return Grounding(
        right_grounded=int((known & right & dependent).sum()),
        right_ungrounded=int((known & right & ~dependent).sum()),
        wrong_grounded=int((known & ~right & dependent).sum()),
        wrong_ungrounded=int((known & ~right & ~dependent).sum()),
        unknown=int((~known).sum()),
        shown=Shown(
            question=matches["question"],
            modality=matches["modality"],
            blank=int(rest[SHUFFLED].unavailable.sum()),
        ),
        unavailable={
            name: str(part[0].unavailable) for name, part in rest.items() if len(part) and part.unavailable.all()
        },
    )


def certified_grounding(run: LoadedRun) -> CertifiedGrounding | None:
    """Count the certificates of a certify run; None for a run that did not ask."""
    if not run.donor_vote:
        return None
    rows = run.certificates.where(run.certificates.right_radii >= 0)
    other, same = rows.grounded(run.donor_vote), rows.stays(run.donor_vote)
    asked = Counter(record.match for record in run.certificates if record.donor_votes or record.blank_votes)
    return CertifiedGrounding(
        other=int(other.sum()),
        same=int(same.sum()),
        unclear=int((~other & ~same).sum()),
        shown=Shown(question=asked["question"], modality=asked["modality"], blank=asked[None]),
    )


def grounding_findings(counts: Grounding) -> Iterator[Finding]:
    """Say how many right answers depend on the image, and what could not be asked."""
    right = counts.right_grounded + counts.right_ungrounded
    if right:
        make = warning if counts.right_ungrounded >= NOTABLE * right else note
        yield make(
            "grounding",
            f"{counts.right_ungrounded:,} of {right:,} right answers ({percent(counts.right_ungrounded / right)} %) do "
            "not depend on the image: they stay, at more than half the probability, when another image is shown. "
            f"{_shown(counts.shown)}",
        )
    if counts.unknown:
        yield warning(
            "grounding",
            f"for {counts.unknown:,} items it is not known whether the answer depends on the image, since they failed; "
            "they do not count as grounded.",
        )
    for condition, reason in counts.unavailable.items():
        yield note("grounding", f"{condition} is n/a: {reason}.")


def certified_grounding_findings(counts: CertifiedGrounding) -> Iterator[Finding]:
    """Say how many certificates depend on the image."""
    certified = counts.other + counts.same + counts.unclear
    if not certified:
        return
    make = warning if counts.same >= NOTABLE * certified else note
    yield make(
        "grounding",
        f"{counts.same:,} of {certified:,} certificates of right answers do not depend on the image: the smoothed "
        f"model gives the same answer about another image. For {counts.unclear:,} it abstains there: they do not count "
        f"as grounded either. {_shown(counts.shown)}",
    )


def _shown(shown: Shown) -> str:
    kinds = {
        "an image of the same question with another answer": shown.question,
        "another image of the modality, and a blank one": shown.modality,
        "a blank image": shown.blank,
    }
    return f"Shown instead: {'; '.join(f'{kind} ({count:,} items)' for kind, count in kinds.items() if count)}."
