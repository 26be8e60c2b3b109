"""The gallery: every figure of reports/, with what it shows and the commands that made it."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tempfile
from pathlib import Path

from safemed_eval.report import Run
from safemed_eval.report.page import write_page

ROOT = Path(__file__).parents[2]
KINDS = ROOT / "safemed_eval" / "report" / "figures"
EXAMPLE = "reference"
"""The folder of reports/ whose interactive page the site has; it stands first."""
FILES = {"accuracy-heatmap": "heatmap", "certified-heatmap": "heatmap", "accuracy": "bars"}
"""Figures whose file is not named after their kind."""


def page() -> str:
    folders = sorted({file.parents[2] for file in (ROOT / "reports").glob("*/report/figures/*.png")}, key=_rank)
    text = [
        "# Gallery",
        "Every figure below was drawn by `safemed-eval report` from run folders that are kept in `reports/`. The data are "
        "drawn, too: phantom is no clinical evidence. Click on a figure to see it whole.",
    ]
    for folder in folders:
        text += _section(folder)
    return "\n\n".join(text)


def example() -> bytes:
    """The interactive page of one folder's runs."""
    runs = [Run.read(file.parent) for file in sorted((ROOT / "reports" / EXAMPLE).glob("*/run.json"))]
    with tempfile.TemporaryDirectory() as folder:
        write_page(runs, Path(folder) / "report.html", title="Two checkpoints that ship with safemed_eval")
        return (Path(folder) / "report.html").read_bytes()


def _rank(folder: Path) -> tuple[bool, str]:
    return folder.name != EXAMPLE, folder.name


def _section(folder: Path) -> list[str]:
    makefile = (folder / "Makefile").read_text(encoding="utf-8")
    title = re.search(r'--title "([^"]+)"', makefile)
    comment = " ".join(line.lstrip("# ") for line in makefile.splitlines()[: _comment_lines(makefile)])
    figures = [_figure(file) for file in sorted((folder / "report" / "figures").glob("*.png"))]
    page = ["The [interactive page of these runs](example.html) is what `report` writes beside the figures."]
    return [
        f"## {title[1] if title else folder.name}",
        re.sub(r"(make -C \S+?)([ ,.)]|$)", r"`\1`\2", comment, count=1),
        *(page if folder.name == EXAMPLE else ()),
        '<div class="gallery" markdown>\n\n' + "\n\n".join(figures) + "\n\n</div>",
        '??? note "The commands that made the runs"\n\n    ```\n' + "\n".join(f"    {c}" for c in commands(folder)) + "\n    ```",
    ]


def _comment_lines(text: str) -> int:
    lines = text.splitlines()
    return next(number for number, line in enumerate(lines) if not line.startswith("#"))


def commands(folder: Path) -> list[str]:
    """The command of each run, as its run.json has it."""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*/run.json"))]
    return [shlex.join(["safemed-eval", *run["sessions"][0]["argv"]]) for run in runs]


def _figure(file: Path) -> str:
    place = f"../{file.relative_to(ROOT).as_posix()}"
    text = caption(file.stem)
    return f"<figure markdown>\n[![{text}]({place}){{ loading=lazy }}]({place})\n<figcaption>{text}</figcaption>\n</figure>"


def caption(stem: str) -> str:
    """What a figure shows: the first sentence of the module that draws it, and the slices that it is about."""
    names = {**FILES, **{kind.stem: kind.stem for kind in KINDS.glob("[!_]*.py")}}
    kind = next((kind for name, kind in sorted(names.items(), key=lambda pair: -len(pair[0])) if stem.startswith(name)), "")
    if not kind:
        return stem
    docstring = ast.get_docstring(ast.parse((KINDS / f"{kind}.py").read_text(encoding="utf-8"))) or ""
    shown = " ".join(docstring.split("\n\n")[0].split()).partition(": ")[2]
    return f"<b>{stem}</b>: {shown}"
