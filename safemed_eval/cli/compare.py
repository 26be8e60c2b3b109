"""The command `safemed-eval compare`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from safemed_eval import grammar
from safemed_eval.cli._options import option
from safemed_eval.cli._show import as_json, name_cell, print_table, say
from safemed_eval.errors import SpecError, UserError
from safemed_eval.text import on_one_line

if TYPE_CHECKING:
    from safemed_eval.report.compare import Comparison

EXAMPLE = "Example: safemed-eval compare runs/v1 runs/v2 --junit compare.xml --markdown $GITHUB_STEP_SUMMARY"


def compare(
    baseline: Annotated[Path, typer.Argument(help="Run folder of the current release.")],
    candidate: Annotated[Path, typer.Argument(help="Run folder of the release that would replace it.")],
    radii: Annotated[
        str | None,
        typer.Option(
            help="Radii at which certify runs are compared; the suffix s means times sigma.",
            show_default=f"{grammar.COMPARED_RADII}; of sequential runs all that they were asked for",
        ),
    ] = None,
    min_drop: Annotated[float, typer.Option(help="A drop of fewer points is no regression.")] = 2.0,
    margin: Annotated[
        float, typer.Option(help="A drop is accepted if its upper confidence bound is below these points.")
    ] = 5.0,
    level: Annotated[float, typer.Option(help="Probability of a false alarm, over all measures together.")] = 0.05,
    allow_inconclusive: Annotated[
        bool, typer.Option("--allow-inconclusive", help="Exit with 0 if the items are too few to decide.")
    ] = False,
    across_prompts: Annotated[
        bool,
        typer.Option(
            "--across-prompts",
            help="The models may have been asked in different ways: is one that reasons more robust than one that does "
            "not? Attack both with adaptive; a regression means that the candidate is less robust.",
        ),
    ] = False,
    junit: Annotated[Path | None, option(panel="Files", help="JUnit XML, for the test tab of a CI.")] = None,
    markdown: Annotated[
        Path | None, option(panel="Files", help="Markdown, appended, as to $GITHUB_STEP_SUMMARY.")
    ] = None,
    json_file: Annotated[Path | None, option("--json", panel="Files", help="Everything, for scripts.")] = None,
) -> None:
    """Test if the candidate is less robust. Exit code 0: no; 1: yes; 2: not comparable; 3: too few items to decide.

    Items are paired by id and clustered by patient or image. Both runs must have the same settings, except with
    --across-prompts.
    """
    from safemed_eval.report import compare
    from safemed_eval.report.compare import output as gate

    for name, file in (("--junit", junit), ("--markdown", markdown), ("--json", json_file)):
        if file and not file.absolute().parent.is_dir():
            raise SpecError(f"{name} {file}: its folder does not exist")
    if json_file and json_file.is_file() and not json_file.is_symlink():  # /dev/stdout is a link
        json_file.unlink()  # a refused comparison leaves no former one behind
    try:
        rules = compare.Rules(level=level, min_drop=min_drop / 100, margin=margin / 100)
        comparison = compare.compare(baseline, candidate, radii=radii, rules=rules, across_prompts=across_prompts)
    except UserError as error:
        if junit:
            _write(junit, gate.refused_junit(str(error)))
        if markdown:
            _write(markdown, gate.refused_markdown(str(error)), append=True)
        raise
    _show(comparison)
    if junit:
        _write(junit, gate.junit(comparison, allow_inconclusive=allow_inconclusive))
    if markdown:
        _write(markdown, gate.markdown(comparison), append=True)
    if json_file:
        _write(json_file, as_json(comparison.to_json()))
    raise typer.Exit(comparison.exit_code(allow_inconclusive=allow_inconclusive))


def _show(comparison: Comparison) -> None:
    from safemed_eval.report.compare import output as gate

    tables = {"all items": [(row.measure, row.cells) for row in gate.rows(comparison.overall, comparison.rules)]}
    changes, rest = gate.folded(comparison)
    for measure in (change.measure for change in comparison.overall):
        some = [change for change in changes if change.measure == measure]
        if some:
            tables[measure] = [(row.slice, row.cells) for row in gate.rows(some, comparison.rules)]
    longest = max(len(name_cell(name)) for heading, rows in tables.items() for name in (heading, *dict(rows)))
    for heading, rows in tables.items():
        print_table(f"{heading:<{longest}}", rows)
    for line in (*map(on_one_line, rest), *gate.sentences(comparison)):
        say(escape(line))
    style = {"no regression": "bold green", "inconclusive": "bold yellow"}.get(comparison.verdict, "bold red")
    if comparison.verdict == "regression":
        folders = shlex.join((comparison.baseline, comparison.candidate))
        say(escape(f"Which items were lost shows: safemed-eval report {folders} --out report"))
    say(escape(gate.headline(comparison)), style)


def _write(file: Path, text: str, *, append: bool = False) -> None:
    with file.open("a" if append else "w", encoding="utf-8", errors="replace") as stream:
        stream.write(text)
