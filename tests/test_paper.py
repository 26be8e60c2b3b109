"""`report --paper`: figures and tables that LaTeX sets in a two-column page as they are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_cli import call

ROOT = Path(__file__).parents[1]
PAPER = r"""
\documentclass[twocolumn]{article}
\usepackage[letterpaper,textwidth=6.75in,textheight=9in,columnsep=0.25in]{geometry}
\usepackage{booktabs,graphicx}
\graphicspath{{figures/}}
\begin{document}
"""
pdflatex = pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex (Debian: texlive-latex-recommended)")


def complaints(report: Path) -> list[str]:
    """Set every .tex file of a report; return what does not fit and what is no LaTeX, with the file."""
    files = sorted([*(report / "tables").glob("*.tex"), *(report / "figures").glob("*.tex")])
    assert files
    body = [f"\\typeout{{FILE {file.name}}}\\input{{{file.relative_to(report)}}}\\clearpage" for file in files]
    (report / "paper.tex").write_text("\n".join([PAPER, *body, r"\end{document}"]))
    run = ["pdflatex", "-interaction=nonstopmode", "-no-shell-escape", "paper.tex"]
    subprocess.run(run, cwd=report, capture_output=True, check=False, timeout=300)
    found, file = [], ""
    for line in (report / "paper.log").read_text(errors="replace").splitlines():
        file = line.removeprefix("FILE ") if line.startswith("FILE ") else file
        if re.match(r"!|Overfull|LaTeX Warning: (Float too large|File)", line):
            found.append(f"{file}: {line}")
    assert (report / "paper.pdf").exists()
    return found


@pdflatex
def test_every_table_and_figure_of_the_reference_fits_two_columns(tmp_path: Path) -> None:
    runs = [
        ROOT / "reports" / "reference" / f"{kind}-{name}"
        for kind in ("certify", "evaluate")
        for name in ("sft", "at-grpo")
    ]
    assert call("report", *runs, "--out", tmp_path / "r", "--paper")[0] == 0
    assert complaints(tmp_path / "r") == []
