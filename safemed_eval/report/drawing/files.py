"""The files of a figure: PDF, PNG, and for a paper the LaTeX that sets it with its caption."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from safemed_eval.report._text import latex_prose
from safemed_eval.report.drawing.sheet import Sheet
from safemed_eval.report.drawing.style import layout


def save(figure: Figure, stem: Path) -> Path:
    """Write STEM.pdf and STEM.png without dates in them, and STEM.tex where notes are in a caption; returns the PNG."""
    # Not with_suffix: a stem may hold a dot.
    figure.savefig(stem.parent / f"{stem.name}.pdf", dpi=300, metadata={"CreationDate": None})
    png = stem.parent / f"{stem.name}.png"
    figure.savefig(png, dpi=layout().dpi, metadata={"Software": None})
    if not layout().notes:
        (stem.parent / f"{stem.name}.tex").write_text(_latex(figure, stem.name), encoding="utf-8", errors="replace")
    return png


def _latex(figure: Figure, name: str) -> str:
    """A figure environment with the notes as caption."""
    environment = "figure*" if figure.get_figwidth() > layout().column else "figure"
    notes = figure.notes if isinstance(figure, Sheet) else ()
    lines = [
        "% \\usepackage{graphicx} and \\graphicspath with the folder of this file",
        f"\\begin{{{environment}}}",
        "\\centering",
        f"\\includegraphics{{{name}.pdf}}",
        *([f"\\caption{{{latex_prose(' '.join(notes))}}}", f"\\label{{fig:{name}}}"] if notes else []),
        f"\\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"
