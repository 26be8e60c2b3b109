"""The interactive page: one HTML file that holds all it needs, and asks the network for nothing.

`assets/` holds the template, its style and its script. Text of models and data reaches the page in two ways only:
through the template, which escapes it and spells out control characters, and as JSON, from which the script makes text
nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from safemed_eval.report.budgets import symbols
from safemed_eval.report.findings.finding import Key
from safemed_eval.report.findings.reasoning import NOT_MEASURED
from safemed_eval.report.gap import NOTE, gaps_of, why_no_gap
from safemed_eval.report.load import SLICES, in_order
from safemed_eval.report.page import items as single
from safemed_eval.report.page import provenance
from safemed_eval.report.page.analyses import analyses_of, cell_of
from safemed_eval.report.page.cells import columns, corruption_tables
from safemed_eval.report.page.headline import headline_of
from safemed_eval.report.page.overview import Slices, families, hides_huge, overview_of
from safemed_eval.report.page.remarks import notices_of, remarks_of
from safemed_eval.report.page.rendering import as_script, policy, read_asset, template, write_html
from safemed_eval.report.page.studies import studies_of
from safemed_eval.report.page.texts import COLUMNS as TEXT_COLUMNS
from safemed_eval.report.page.texts import texts_of
from safemed_eval.report.run import Run
from safemed_eval.report.summary import FEW
from safemed_eval.report.tabular.table import Table
from safemed_eval.version import __version__

_COMMANDS = {"evaluate": "accuracy, clean and under attack", "certify": "certificates"}
_BY_CHANCE: frozenset[Key] = frozenset({"by-chance"})


def write_page(
    runs: Sequence[Run], file: Path, *, title: str, radii: str | None = None, tables: Sequence[Table] = ()
) -> None:
    """Write the page of these runs, evaluate and certify mixed.

    Args:
        radii: where certified accuracy is read; see `grammar.radii` and `radii_of`.
        tables: of these runs; those of `analyses.tables`, and of the user's columns, are shown as they are.
    Raises:
        SpecError: `radii` cannot be read. RunError: the file cannot be written.
    """
    studies = studies_of(runs, radii)
    runs = [study.run for study in studies]
    slices: Slices = {by: in_order({name for run in runs for name in run.rows.names(by)}) for by in SLICES}
    items, gaps = single.Items(runs), gaps_of(runs)
    scripts = [read_asset("page.js"), _plotly()]
    kinds = {kind: some for kind in _COMMANDS if (some := [study for study in studies if study.run.kind == kind])}
    by_kind = {kind: [study.run for study in some] for kind, some in kinds.items()}
    evaluated = by_kind.get("evaluate", [])
    norms = {family.norm for run in runs for family in families(run)}
    html = template("page.html", figure=cell_of).render(
        title=title,
        version=__version__,
        policy=policy(scripts),
        style=Markup(read_asset("page.css")),
        scripts=[Markup(script) for script in scripts],
        kinds=kinds,
        runs=runs,
        texts=texts_of(runs),
        text_columns=TEXT_COLUMNS,
        not_measured=NOT_MEASURED,
        gaps=gaps,
        gap_note=NOTE,
        why_no_gap=why_no_gap(runs),
        columns={kind: columns(some) for kind, some in by_kind.items()},
        corruptions=corruption_tables(evaluated),
        commands=_COMMANDS,
        headline=headline_of(runs),
        budgets=_budgets(by_kind.get("certify", [])),
        slices=SLICES,
        names=slices,
        notices=notices_of(runs),
        remarks={kind: remarks_of(some) for kind, some in by_kind.items()},
        by_chance=remarks_of(runs, _BY_CHANCE),
        few=FEW,
        provenance=provenance,
        most_images=single.MOST_IMAGES,
        scales=list(dict.fromkeys(run.scale for run in by_kind.get("certify", []))),
        norms=[norm for norm in ("linf", "l2") if norm in norms],
        hides_huge=any(hides_huge(run) for run in runs),
        analyses=analyses_of(runs, tables),
        blocks={
            "data": _embedded(overview_of(studies, gaps, items, slices)),
            "details": _listed(
                _listed(map(_embedded, single.details(run, places, len(items))))
                for run, places in zip(runs, items.places, strict=True)
            ),
            "images": _embedded(single.images(runs, items)),
        },
    )
    write_html(html, file)


def _budgets(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What certificates were made with, once for all runs or with the names of those that share it."""
    names: dict[str, list[str]] = {}
    for run in runs:
        names.setdefault(", ".join(symbols(run.budget)), []).append(run.name)
    return [(", ".join(some) if len(names) > 1 else "", text) for text, some in names.items()]


def _embedded(value: object) -> Markup:
    """Write JSON for a script element: nothing in it can end the element, or begin markup. Dataclasses are objects."""
    # ASCII: U+2028 and lone surrogates are escaped.
    text = json.dumps(value, default=vars, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _listed(parts: Iterable[Markup]) -> Markup:
    """Write a list of what is written already: a million entries need not be in memory together."""
    return Markup(f"[{','.join(parts)}]")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return as_script(get_plotlyjs())
