"""A comparison as text: rows and sentences for the terminal, Markdown for a CI summary, JUnit XML for its test tab."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import pandas as pd

from safemed_eval.report._text import markdown as markdown_text
from safemed_eval.report._text import plain
from safemed_eval.report.compare import Change, Comparison, Rules
from safemed_eval.report.compare.aligned import AVERAGE_RADIUS
from safemed_eval.rounding import ceil_to, floor_to, percent, percent_down

_SMALLEST_P = 0.0001
_FEW = 5
_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table of changes: its slice and measure, and the other cells by heading."""

    slice: str
    measure: str
    cells: dict[str, str]


def rows(changes: Sequence[Change], rules: Rules) -> list[Row]:
    """Make the table: shares in %, certified ones rounded down, drops in points, intervals rounded outward."""
    return [Row(slice=change.slice, measure=change.measure, cells=_cells(change, rules)) for change in changes]


def _cells(change: Change, rules: Rules) -> dict[str, str]:
    return {
        "items": str(change.n),
        "verdict": change.verdict,
        "baseline %": _share(change.measure, change.baseline),
        "candidate %": _share(change.measure, change.candidate),
        "drop": f"{100 * change.drop:+.1f}",
        f"{100 * (1 - 2 * rules.level):g} % interval": _bounds(change),
        "lost / won": "" if change.lost is None else f"{change.lost} / {change.won}",
        "p of a drop": f"{change.p_drop:.4f}" if change.p_drop >= _SMALLEST_P else f"<{_SMALLEST_P}",
    }


def folded(comparison: Comparison) -> tuple[list[Change], list[str]]:
    """Select the changes in slices that are worth a row, and describe the others, a line each.

    A slice of fewer than 5 items cannot be significant at 5 %, whatever its items do: 4 losses have p = 1/16.
    """
    few = dict.fromkeys(change.slice for change in comparison.slices if change.n < _FEW)
    rest = [change for change in comparison.slices if change.slice not in few]
    measures = defaultdict(list)
    for measure, count in Counter(change.measure for change in rest if change.identical).items():
        measures[count].append(measure)
    lines = [f"{_slices(count)} identical outcomes ({', '.join(names)})." for count, names in measures.items()]
    if few:
        more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
        named = f"{', '.join([*few][:_NAMED])}{more}"
        lines.append(f"{_slices(len(few))} fewer than {_FEW} items, too few to tell anything: {named}.")
    return [change for change in rest if not change.identical], lines


def _slices(count: int) -> str:
    return f"{count} slices have" if count > 1 else "1 slice has"


def headline(comparison: Comparison) -> str:
    """The verdict, and the measures that decided it."""
    worse = [change.measure for change in comparison.overall if change.verdict == comparison.verdict]
    if comparison.verdict == "toolkit changed":
        worse = [change.measure for change in comparison.overall if change.p_change <= comparison.rules.level]
    tail = "" if comparison.verdict == "no regression" else f" ({', '.join(worse)})"
    return f"{comparison.verdict}{tail}"


def sentences(comparison: Comparison) -> Iterator[str]:
    """Explain the table: the rules, what these items can detect, and what differs between the runs."""
    rules = comparison.rules
    yield (
        f"Regression: a drop of at least {100 * rules.min_drop:g} points in all items, significant at "
        f"{100 * rules.level:g} % over all measures together (Holm, where the two are exchangeable), and surely above "
        f"0. No regression: with {100 * (1 - rules.level):g} % confidence the drop is below {100 * rules.margin:g} "
        "points, or outcomes of the same weights, loaded alike, are identical. Slices are tested as a family of their "
        "own and do not decide."
    )
    if comparison.same_weights:
        yield (
            "Both runs have the same weights: any significant change, up or down, is one of the toolkit, the machine, "
            "or how the model was loaded. Attacked accuracy that rises can be an attack that broke."
        )
    for least in comparison.detectable:
        size = (
            f"a drop of {100 * least.drop:.1f} points or more" if least.drop is not None else "no drop, however large,"
        )
        yield (
            f"{least.measure}: with {comparison.items} items ({floor_to(least.effective_items, 0):.0f} independent "
            f"ones say as much) {size} would be found in four of five cases, if {100 * least.churn:.1f} % of answers "
            "change beyond the drop, as many for the better as for the worse."
        )
    for note in comparison.notes:
        yield f"Note: {note}."
    if any(change.measure == AVERAGE_RADIUS for change in comparison.overall):
        yield (
            f"{AVERAGE_RADIUS}: in % of the largest radius that the sample budget can certify, which is certified "
            "accuracy averaged over all radii up to it."
        )
    yield (
        f"The upper end of the {100 * (1 - 2 * rules.level):g} % interval is that bound of the drop. It counts one "
        "further patient or image, the largest, as lost; the lower end counts one as won."
    )
    by_text = defaultdict[str, list[str]](list)
    for change in comparison.overall:
        if change.too_few:
            by_text[change.too_few].append(change.measure)
    yield from (f"{', '.join(measures)}: {text}." for text, measures in by_text.items())
    yield "Lost / won: items that only the baseline, only the candidate has right. Not for clinical use."


def markdown(comparison: Comparison) -> str:
    """Write a summary that GitHub shows below a workflow's run."""
    mark = {"no regression": "\u2705", "inconclusive": "\u26a0\ufe0f"}.get(comparison.verdict, "\u274c")
    changes, rest = folded(comparison)
    slices = "\n\n".join([*[_table(changes, comparison.rules)] * bool(changes), *map(markdown_text, rest)])
    parts = [
        f"## {mark} safemed-eval compare: {markdown_text(headline(comparison))}",
        f"Baseline: {markdown_text(comparison.baseline)}. Candidate: {markdown_text(comparison.candidate)}.",
        _table(comparison.overall, comparison.rules),
        *(markdown_text(line) for line in sentences(comparison)),
        f"<details><summary>By modality and question type</summary>\n\n{slices}\n\n</details>",
    ]
    return "\n\n".join(parts) + "\n"


def refused_markdown(reason: str) -> str:
    """Write the same summary of runs that cannot be compared."""
    return f"## \u274c safemed-eval compare: not comparable\n\n{markdown_text(reason)}\n"


def refused_junit(reason: str) -> str:
    """Write JUnit XML of runs that cannot be compared: one case, which is an error."""
    suites = ElementTree.Element("testsuites", name="safemed-eval compare")
    counts = {"name": "all", "tests": "1", "failures": "0", "errors": "1", "skipped": "0"}
    suite = ElementTree.SubElement(suites, "testsuite", counts)
    case = ElementTree.SubElement(suite, "testcase", classname="safemed-eval.all", name="not comparable", time="0")
    ElementTree.SubElement(case, "error", message=plain(reason))
    return _xml(suites)


def junit(comparison: Comparison, *, allow_inconclusive: bool) -> str:
    """Write JUnit XML: one case per measure in all items, which pass or fail as the exit code does.

    Slices pass, since they do not decide; their cases are named with their verdicts.
    """
    suites = ElementTree.Element("testsuites", name="safemed-eval compare")
    for name, changes in (("all", comparison.overall), ("slices", comparison.slices)):
        suite = ElementTree.SubElement(suites, "testsuite", name=name, tests=str(len(changes)))
        counts = Counter[str]()
        for change, row in zip(changes, rows(changes, comparison.rules), strict=True):
            title = change.measure if name == "all" else f"{change.measure} ({change.verdict}, does not decide)"
            place = {"classname": plain(f"safemed-eval.{change.slice}"), "name": plain(title), "time": "0"}
            case = ElementTree.SubElement(suite, "testcase", place)
            tag = _tag(change, comparison, allow_inconclusive=allow_inconclusive) if name == "all" else None
            values = [f"{key} {value}" for key, value in row.cells.items()]
            text = ", ".join([*values, *filter(None, [change.too_few])])
            if tag:
                counts[tag] += 1
                ElementTree.SubElement(case, tag, message=plain(text))
            else:
                ElementTree.SubElement(case, "system-out").text = plain(text)
        suite.attrib |= {"failures": str(counts["failure"]), "errors": str(counts["error"])}
        suite.set("skipped", str(counts["skipped"]))
    return _xml(suites)


def _xml(suites: ElementTree.Element) -> str:
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _tag(change: Change, comparison: Comparison, *, allow_inconclusive: bool) -> str | None:
    """The element that marks the case; None where it passes."""
    if comparison.verdict == "toolkit changed" and change.p_change <= comparison.rules.level:
        return "failure"
    if change.verdict == "inconclusive":
        return "skipped" if allow_inconclusive else "error"
    return "failure" if change.verdict == "regression" else None


def _table(changes: Sequence[Change], rules: Rules) -> str:
    cells = [
        {key: markdown_text(value) for key, value in {"slice": row.slice, "measure": row.measure, **row.cells}.items()}
        for row in rows(changes, rules)
    ]
    return str(pd.DataFrame(cells).to_markdown(index=False, disable_numparse=True))


def _share(measure: str, share: float) -> str:
    certified = measure == AVERAGE_RADIUS or measure.startswith("certified")
    return percent_down(share) if certified else percent(share)


def _bounds(change: Change) -> str:
    return f"{100 * floor_to(change.lower, 3):+.1f}, {100 * ceil_to(change.upper, 3):+.1f}"
