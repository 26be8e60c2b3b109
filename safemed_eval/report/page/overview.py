"""The JSON block of the page that is read before an item is opened: all slices of all runs, and the list of items.

The field names are those that page.js reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safemed_eval.core import CLEAN
from safemed_eval.report.curves import Curve
from safemed_eval.report.findings.attack_sizes import facts_by_condition, sized_attacks
from safemed_eval.report.findings.canvas import grey_levels
from safemed_eval.report.gap import Gap
from safemed_eval.report.page.items import Items, ItemsTable, marks_of, radii_by_item
from safemed_eval.report.page.studies import Shown, Study
from safemed_eval.report.rows import Slicing
from safemed_eval.report.run import Run
from safemed_eval.text import visible

Slices = Mapping[Slicing, Sequence[str]]
"""The modalities and question types of all runs, in the order in which the page lists them."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """The attacks of a run that differ only in eps: a curve whose points are (eps, condition), clean at 0."""

    name: str
    norm: str
    points: list[tuple[float, str]]


@dataclass(frozen=True, kw_only=True)
class RunOverview:
    """One run.

    Attributes:
        grey: grey levels RMS of a change of L2 length 1 on its canvas; None where canvases differ in size.
        cells: by "3,0", the numbers of modality and question type in the page's lists, 0 for all.
        marks: for each condition a string with one mark for each item, see `items.marks_of`.
    """

    name: str
    kind: str
    style: int
    grey: float | None
    cells: dict[str, Shown]
    marks: list[str]


@dataclass(frozen=True, kw_only=True)
class EvaluateOverview(RunOverview):
    """A run of evaluate. `attacks`: for each condition whether it searches, or controls a search, within a ball."""

    conditions: list[str]
    families: list[Family]
    attacks: list[bool]


@dataclass(frozen=True, kw_only=True)
class CertifyOverview(RunOverview):
    """A run of certify.

    Attributes:
        radii: the certified radius of each item; None where there is none.
        noise: the noise, in words.
        scale: what a radius is, as axes name it. Runs share an axis if it is the same.
    """

    radii: list[float | None]
    noise: str
    scale: str
    ceiling: float
    alpha: float


@dataclass(frozen=True, kw_only=True)
class GapOverview:
    """A gap over all items: the certified curve, and for each family of attacks (eps, share, lower, upper)."""

    curve: Curve
    families: dict[str, list[tuple[float, float | None, float | None, float | None]]]
    grey: float | None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The whole block."""

    runs: list[RunOverview]
    gaps: list[GapOverview]
    slices: dict[Slicing, list[str]]
    items: ItemsTable


def overview_of(studies: Sequence[Study], gaps: Sequence[Gap[Run]], items: Items, slices: Slices) -> Overview:
    """Make the block."""
    numbers: dict[Slicing, dict[str | None, int]] = {
        by: {name: number for number, name in enumerate([None, *names])} for by, names in slices.items()
    }
    runs = []
    for study, places in zip(studies, items.places, strict=True):
        cells = {
            f"{numbers['modality'][modality]},{numbers['question_type'][question_type]}": shown
            for (modality, question_type), shown in study.slices.items()
        }
        runs.append(_run_overview(study, cells, places, len(items)))
    shown = {by: list(map(visible, names)) for by, names in slices.items()}
    return Overview(runs=runs, gaps=list(map(_gap_overview, gaps)), slices=shown, items=items.table(slices))


def _gap_overview(gap: Gap[Run]) -> GapOverview:
    families = {
        visible(name): [(point.eps, point.left.estimate, point.left.lower, point.left.upper) for point in points]
        for name, points in gap.families.items()
    }
    return GapOverview(curve=gap.curve, families=families, grey=grey_levels(gap.certified))


def _run_overview(study: Study, cells: dict[str, Shown], places: Mapping[str, int], count: int) -> RunOverview:
    run = study.run
    about = RunOverview(
        name=visible(run.name),
        kind=run.kind,
        style=study.style,
        grey=grey_levels(run),
        cells=cells,
        marks=marks_of(run, places, count),
    )
    if run.kind == "certify":
        return CertifyOverview(
            **vars(about),
            radii=radii_by_item(run, places, count),
            noise=run.budget.kind.title,
            scale=run.scale,
            ceiling=run.ceiling,
            alpha=run.budget.alpha,
        )
    return EvaluateOverview(
        **vars(about),
        conditions=list(map(visible, run.conditions)),
        families=families(run),
        attacks=[facts.role in ("attack", "control") for facts in facts_by_condition(run).values()],
    )


def families(run: Run) -> list[Family]:
    """The curves of a run's attacks.

    An eps so large that it tests the attack and not the model is left out, unless there is no other.
    """
    every = sized_attacks(run)
    points: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for attack in [attack for attack in every if not attack.is_huge] or every:
        points.setdefault((attack.norm, attack.family), [(0.0, CLEAN)]).append((attack.eps, attack.condition))
    return [Family(name=visible(name), norm=norm, points=sorted(curve)) for (norm, name), curve in points.items()]


def hides_huge(run: Run) -> bool:
    """Tell whether `families` leaves an eps out."""
    huge = [attack.is_huge for attack in sized_attacks(run)]
    return any(huge) and not all(huge)
