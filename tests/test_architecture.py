"""The rules of docs/architecture.md, held against the source: floors, circles, sizes, and imports that stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import safemed_eval
from safemed_eval import attacks

ROOT = Path(safemed_eval.__file__).parent
PAGE = ROOT.parent / "docs" / "architecture.md"
NAME = ROOT.name

FLOORS = {
    0: ("errors", "version"),
    1: (
        *("core", "seeds", "stats", "rounding", "scale", "text"),
        *("codec", "faults", "files", "grammar", "plugins"),
    ),
    2: ("threat", "paired", "progress"),
    3: ("attacks", "smoothing", "models", "data"),
    4: ("runs",),
    5: ("train",),
    6: ("report",),
    7: ("api",),
    8: ("cli",),
    9: ("__main__", "__init__"),
}
FLOOR_OF = {place: floor for floor, places in FLOORS.items() for place in places}
MOST_MODULES = 16
"""Modules side by side in one folder, the entry points `__init__` and `__main__` aside."""
MOST_ANY, MOST_SUBSCRIPTS = 149, 99

FILES = sorted(ROOT.rglob("*.py"))
FOLDERS = sorted({str(file.parent.relative_to(ROOT)) for file in FILES} - {"."})


def module_of(file: Path) -> str:
    """attacks/pgd.py -> safemed_eval.attacks.pgd; a folder's __init__.py is the folder."""
    return ".".join([NAME, *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


TREES = {module_of(file): ast.parse(file.read_text(encoding="utf-8")) for file in FILES}


def place_of(module: str) -> str:
    """safemed_eval.attacks.pgd -> attacks"""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(tree: ast.AST) -> set[str]:
    """Every module of this package that is imported, inside functions and type-checking blocks too.

    `from package import name` imports the module `package.name` where there is one, else `package`.
    """
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name if name in TREES else str(node.module) for name in names}
    return {module for module in modules if module.split(".")[0] == NAME}


# -------------------------------------------------------------------------------------------------------------- arrows


def test_every_module_has_a_floor() -> None:
    places = {file.relative_to(ROOT).parts[0].removesuffix(".py") for file in FILES}
    assert places == set(FLOOR_OF)


@pytest.mark.parametrize("module", TREES)
def test_arrows_point_down(module: str) -> None:
    here = place_of(module)
    for imported in imports(TREES[module]):
        there = place_of(imported)
        if there != here:
            assert FLOOR_OF[there] < FLOOR_OF[here], f"{module} imports {imported}"


def test_the_arrow_test_sees_a_wrong_arrow() -> None:
    tree = ast.parse("def f():\n    from safemed_eval.models import load, toy\n    import safemed_eval.cli\n")
    assert imports(tree) == {"safemed_eval.models", "safemed_eval.models.toy", "safemed_eval.cli"}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that reach each other: strongly connected components, after Tarjan (1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    waiting: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        waiting.append(module)
        for imported in sorted(graph[module]):
            if imported not in order:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in waiting:
                lowest[module] = min(lowest[module], order[imported])
        if lowest[module] == order[module]:
            place = waiting.index(module)
            group = waiting[place:]
            del waiting[place:]
            if len(group) > 1 or module in graph[module]:
                groups.append(sorted(group))

    for module in graph:
        if module not in order:
            visit(module)
    return groups


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Type-only imports and those inside functions count."""
    assert circles({module: imports(tree) & set(TREES) for module, tree in TREES.items()}) == []


def test_the_circle_test_sees_a_circle() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d", "a"}}) == [["b", "c"], ["d"]]


# --------------------------------------------------------------------------------------------------------------- sizes


def test_no_folder_has_too_many_modules_side_by_side() -> None:
    counts = Counter(file.parent for file in FILES if not file.name.startswith("__"))
    crowded = {str(folder.relative_to(ROOT)): count for folder, count in counts.items() if count > MOST_MODULES}
    assert crowded == {}


def test_any_is_rare() -> None:
    counts = Counter(
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if getattr(node, "id", None) == "Any" or (isinstance(node, ast.Attribute) and node.attr == "Any")
    )
    assert counts.total() <= MOST_ANY, counts.most_common(10)


def test_reports_read_fields_and_not_strings() -> None:
    counts = Counter(
        module
        for module, tree in TREES.items()
        if place_of(module) == "report"
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    )
    assert counts.total() <= MOST_SUBSCRIPTS, counts.most_common(10)


# --------------------------------------------------------------------------------------------------------------- names


def texts(tree: ast.AST) -> Iterator[str]:
    """String constants that are no statements of their own, as docstrings are."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def named_in(tree: ast.AST) -> list[str]:
    """The texts that are an attack's name, or begin with it as a spec does."""
    specs = tuple(f"{name}:" for name in attacks.names())
    names = {*attacks.names()} - {"prompt", "noise"}  # which are keys of run.json and of records, too
    return [text for text in texts(tree) if text in names or text.startswith(specs)]


def test_reports_and_commands_name_no_attack() -> None:
    """An attack declares in its `facts` everything that they need to know of it."""
    named = {module: named_in(tree) for module, tree in TREES.items() if place_of(module) in ("report", "cli")}
    assert {module: names for module, names in named.items() if names} == {}


def test_the_name_test_sees_a_name() -> None:
    tree = ast.parse('"""pgd"""\nx = "pgd" if y == "pgdd" else f"fgsm:eps={z}"\n"pgd"\n')
    assert named_in(tree) == ["pgd", "fgsm:eps="]


# ------------------------------------------------------------------------------------------------------------- the page


def rows_below(heading: str) -> list[list[str]]:
    """The rows of the table in a section of the page, as cells."""
    section = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = (part for part in section if part.startswith(f"{heading}\n"))
    rows = [line.strip().strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_page_draws_the_floors_as_they_are() -> None:
    drawn = {int(floor): set(re.findall(r"`(\w+)`", places)) for floor, places, *_ in rows_below("Floors")}
    assert drawn == {floor: set(places) for floor, places in FLOORS.items()}


def test_the_page_names_every_folder_and_no_other() -> None:
    named = [name for folder, *_ in rows_below("Folders") for name in re.findall(r"`([\w/]+)/`", folder)]
    assert sorted(named) == FOLDERS


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", PAGE.read_text(encoding="utf-8")))
    there = {str(file.relative_to(ROOT)) for file in FILES}
    outside = {str(file.relative_to(ROOT.parent)) for file in ROOT.parent.glob("*/*.py")}
    assert {file for file in named if not file.endswith("NAME.py")} <= there | outside


def test_every_function_that_the_page_names_is_there() -> None:
    """On the way of an item, each step names a function as `module.function` or `module.Class.method`."""
    steps = re.findall(r"`safemed_eval\.([\w.]+)`", PAGE.read_text(encoding="utf-8"))
    assert len(steps) >= 8
    for step in steps:
        assert defined(f"{NAME}.{step}"), step


def defined(name: str) -> bool:
    module, _, rest = name, "", ""
    while module not in TREES:
        module, _, last = module.rpartition(".")
        rest = f"{last}.{rest}".strip(".")
    node: ast.AST = TREES[module]
    for part in filter(None, rest.split(".")):
        inside = {getattr(child, "name", None): child for child in ast.walk(node) if child is not node}
        if part not in inside:
            return False
        node = inside[part]
    return True


# -------------------------------------------------------------------------------------------------------- light imports

HEAVY = ("torch", "transformers", "pandas", "scipy", "pydicom", "art")


@pytest.mark.parametrize(
    "statement",
    [
        "import safemed_eval",
        "import safemed_eval.cli",
        "from safemed_eval import attacks; attacks.parse_all(['pgd:eps=4/255', 'corrupt'])",
        "from safemed_eval import attacks; attacks.facts_of('art:SquareAttack', {}); attacks.help_text()",
        "from safemed_eval import data; data.kinds()",
        "from safemed_eval.models import resolve",
    ],
)
def test_no_heavy_import_before_it_is_needed(statement: str) -> None:
    code = f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
