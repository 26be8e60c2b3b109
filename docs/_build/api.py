"""The page of the Python API: every name of `safemed_eval.__all__`, with its docstring."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "safemed_eval"
SECTIONS = {
    "Load": ("load_model", "load_data", "Model", "Data"),
    "Measure": ("evaluate", "certify", "plan", "check_model", "Run"),
    "Report and compare": ("report", "compare"),
    "Train": ("train", "merge_adapter"),
    "And": ("to_art", "SafemedError"),
}
TAKES = {"load_model": "safemed_eval.models.find_model", "load_data": "safemed_eval.data.choose_data"}
"""Functions that take the arguments of another one."""


def names() -> dict[str, str]:
    """Each public name, and where it is defined; read from the source, so that nothing heavy is imported."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    homes = {alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    (public,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return {name: homes[name] for name in public if not name.startswith("__")}


def api_page() -> str:
    homes = names()
    placed = [name for group in SECTIONS.values() for name in group]
    groups = {**SECTIONS, "Others": tuple(name for name in homes if name not in placed)}
    text = [
        "# Python API",
        "What `import safemed_eval` offers, from its docstrings; "
        "[Python: the same in scripts and notebooks](../python.md) shows it in use. `safemed_eval.__version__` is the "
        "version.",
    ]
    for title, group in groups.items():
        text += [f"## {title}"] if group else []
        for name in group:
            options = f'      heading: "safemed_eval.{name}"\n      toc_label: {name}'
            if name in TAKES:
                options += "\n      show_signature: false"
            text.append(f"::: {homes[name]}\n    options:\n{options}")
            if name in TAKES:
                text.append(f"::: {TAKES[name]}\n    options:\n      heading_level: 4")
    return "\n\n".join(text)
