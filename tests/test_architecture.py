"""The floors: arrows point down or stay inside a folder, and heavy imports stay out of the command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import safemed_eval

ROOT = Path(safemed_eval.__file__).parent

FLOORS = {
    0: ("errors", "version"),
    1: ("core", "seeds", "stats", "rounding", "grammar", "faults", "files", "scale", "plugins"),
    2: ("threat", "paired"),
    3: ("attacks", "smoothing", "models", "data"),
    4: ("runs",),
    5: ("train",),
    6: ("report",),
    7: ("cli",),
    8: ("__main__", "__init__"),
}
FLOOR_OF = {place: floor for floor, places in FLOORS.items() for place in places}


def place_of(module: str) -> str:
    """safemed_eval.attacks.pgd -> attacks"""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(file: Path) -> set[str]:
    """Every safemed_eval module that a file imports, inside functions and type-checking blocks too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "safemed_eval"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "safemed_eval":
            assert node.level == 0
            if node.module == "safemed_eval":
                found |= {f"safemed_eval.{alias.name}" for alias in node.names}
            else:
                found.add(str(node.module))
    return found


FILES = sorted(ROOT.rglob("*.py"))


def test_every_module_has_a_floor() -> None:
    places = {file.relative_to(ROOT).parts[0].removesuffix(".py") for file in FILES}
    assert places == set(FLOOR_OF)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_arrows_point_down(file: Path) -> None:
    here = file.relative_to(ROOT).parts[0].removesuffix(".py")
    for module in imports(file):
        there = place_of(module)
        if there != here:
            assert FLOOR_OF[there] < FLOOR_OF[here], f"{file.name} imports {module}"


def test_the_arrow_test_sees_a_wrong_arrow(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("def f():\n    from safemed_eval.models import load\n    import safemed_eval.cli\n")
    assert imports(tmp_path / "x.py") == {"safemed_eval.models", "safemed_eval.cli"}


HEAVY = ("torch", "transformers", "pandas", "scipy", "pydicom", "art")


@pytest.mark.parametrize(
    "statement",
    [
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
