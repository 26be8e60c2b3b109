"""`report --paper`: figures and tables that LaTeX sets in a two-column page as they are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic import certified, evaluated, write_run
from test_cli import call

from safemed_eval.errors import SpecError
from safemed_eval.report import Run, report
from safemed_eval.report.drawing.files import save
from safemed_eval.report.drawing.style import for_paper, style
from safemed_eval.report.figures import drawer
from safemed_eval.report.tables import tables_of, write_tables
from safemed_eval.report.tabular.latex import MOST_LINES, table_latex
from safemed_eval.smoothing import Smoothing

ROOT = Path(__file__).parents[1]
PAPER = r"""
\documentclass[twocolumn]{article}
\usepackage[letterpaper,textwidth=6.75in,textheight=9in,columnsep=0.25in]{geometry}
\usepackage{booktabs,graphicx}
\graphicspath{{figures/}}
\begin{document}
"""
PGD = "pgd:eps=4/255,norm=l2,steps=10"
ATTACKS = ("clean", "fgsm:eps=4/255", PGD, "noise:eps=4/255", "corrupt:kind=jpeg,severity=3")
SMALL = Smoothing(noise="float32", sigma=0.25, n=200)
pdflatex = pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex (Debian: texlive-latex-recommended)")


def complaints(folder: Path) -> list[str]:
    """Set every .tex file of a report; return what does not fit, and what is no LaTeX, with its file."""
    files = sorted(folder.glob("*/*.tex"))
    assert files
    body = [rf"\typeout{{FILE {file.name}}}\input{{{file.relative_to(folder)}}}\clearpage" for file in files]
    (folder / "paper.tex").write_text("\n".join([PAPER, *body, r"\end{document}"]))
    run = ["pdflatex", "-interaction=nonstopmode", "-no-shell-escape", "paper.tex"]
    subprocess.run(run, cwd=folder, capture_output=True, check=False, timeout=300)
    found, file = [], ""
    for line in (folder / "paper.log").read_text(errors="replace").splitlines():
        file = line.removeprefix("FILE ") if line.startswith("FILE ") else file
        if re.match(r"!|Overfull|LaTeX Warning: (Float too large|File)", line):
            found.append(f"{file}: {line}")
    assert (folder / "paper.pdf").exists()
    return found


def runs_of(folder: Path, names: tuple[str, ...] = ("builtin:sft", "builtin:at-grpo")) -> list[Run]:
    """Two models, attacked and certified, with three modalities and two question types."""
    made = []
    for number, name in enumerate(names):
        about: list[dict[str, Any]] = [
            {
                "modality": ("CT", "MRI", "Fundus Photography")[i % 3],
                "question_type": ("Disease Diagnosis", "Other Biological Attributes")[i % 2],
            }
            for i in range(24)
        ]
        answers = [
            evaluated(i, a, (i + k) % (2 + k + number) > 0, **about[i])
            for k, a in enumerate(ATTACKS)
            for i in range(24)
        ]
        proofs = [certified(i, 200 - (7 + number) * (i % 5), smoothing=SMALL, **about[i]) for i in range(24)]
        for command, records in (("evaluate", answers), ("certify", proofs)):
            out = folder / f"{command}-{number}"
            settings: dict[str, Any] = {"smoothing": SMALL} if command == "certify" else {"conditions": ATTACKS}
            write_run(
                out, records, command, names={"model": name}, sampled="12 per modality x question type", **settings
            )
            made.append(Run.read(out, name=name))
    return made


def tables(runs: list[Run], folder: Path) -> Path:
    write_tables(tables_of(runs, radii=None), runs, folder / "tables")
    return folder


def text_of(folder: Path, name: str) -> str:
    return (folder / "tables" / f"{name}.tex").read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------------------------------- tables


def test_a_table_is_centred_mathematical_and_says_once_what_all_rows_share(tmp_path: Path) -> None:
    tex = text_of(tables(runs_of(tmp_path), tmp_path), "certified")
    assert r"\centering" in tex and r"\begin{table" in tex and r"\footnotesize" in tex
    assert r"float32, $\sigma = 0.25$, $n_0 = 100$, $n = 200$, $\alpha = 0.001$, 24 items." in tex
    (head,) = [line for line in tex.splitlines() if line.startswith("run")]
    radii = [r"$r \geq 0$", r"$r \geq 0.5\sigma$", r"$r \geq 1\sigma$", r"$r \geq 1.5\sigma$"]
    assert head.split(" & ") == ["run", *radii, "abstain", "ACR", r"median r \\"]
    assert r"Above the ceiling of the sample budget: $r \geq 2\sigma$." in tex, "no column of nothing"
    assert re.search(r"\d\d\.\d--\d\d\.\d", tex) and not re.search(r"\d-\d", tex.split(r"\midrule")[1])
    accuracy = text_of(tmp_path, "accuracy")
    assert r"$\epsilon = 4/255$" in accuracy and r"$\ell_2$" in accuracy and "10 steps" in accuracy
    assert "eps=" not in accuracy and "steps=" not in accuracy
    calibration = text_of(tmp_path, "calibration").split(r"\midrule")[1]
    assert "$-$" in calibration and not re.search(r"[ &]-\d", calibration)


def test_settings_that_differ_stay_columns(tmp_path: Path) -> None:
    shown = pd.DataFrame({"run": ["a", "b"], "n0": ["100", "100"], "n": ["100", "<=200"], "items": ["5", "6"]})
    tex = table_latex("t", "About.", shown, 1)
    assert "$n_0 = 100$." in tex and r"run & n & items \\" in tex
    same = table_latex("t", "About.", shown.assign(n="<=1,000"), 1)
    assert r"$n \leq 1{,}000$" in same


def test_the_narrowest_form_that_fits_is_taken() -> None:
    def form(columns: int, rows: int = 3, name: str = "model") -> str:
        cells = {f"c{number}": ["96.9 [90.8-98.9]"] * rows for number in range(columns)}
        return table_latex("t", "About.", pd.DataFrame({"run": [f"{name} {i}" for i in range(rows)], **cells}), 1)

    narrow, stacked, wide = form(2), form(4), form(6)
    assert r"\begin{table}" in narrow and "[90.8--98.9]" in narrow
    assert r"\begin{table}" in stacked and r"{\scriptsize 90.8--98.9}" in stacked, "intervals below fit one column"
    assert r"\begin{table*}" in wide and "[90.8--98.9]" in wide
    assert r"\resizebox" in form(40) and "graphicx" in form(40) and r"\resizebox" not in wide
    long = form(2, rows=2 * MOST_LINES + 1)
    assert long.count(r"\begin{table}") == 3 and "(continued, 3 of 3)" in long
    assert len(set(re.findall(r"\\label{(.*)}", long))) == 3


def test_a_name_that_repeats_is_written_once() -> None:
    shown = pd.DataFrame({"a": ["x", "x", "y", "x"], "b": ["1", "2", "2", "2"], "c": ["0.1", "0.2", "0.3", "0.4"]})
    rows = table_latex("t", "About.", shown, 2).split(r"\midrule")[1].splitlines()[1:5]
    assert rows == [r"x & 1 & 0.1 \\", r" & 2 & 0.2 \\", r"y & 2 & 0.3 \\", r"x & 2 & 0.4 \\"]


@pdflatex
def test_every_table_fits_two_columns_whatever_names_are_like(tmp_path: Path) -> None:
    names = (r"a_b & 50% $x^2$ {\"{o}} #1 ~ \end{table} <script>", "m" * 90)
    assert complaints(tables(runs_of(tmp_path, names), tmp_path)) == []


@pdflatex
def test_every_table_of_the_reference_fits_two_columns(tmp_path: Path) -> None:
    places = [f"{kind}-{name}" for kind in ("certify", "evaluate") for name in ("sft", "at-grpo")]
    assert complaints(tables([Run.read(ROOT / "reports/reference" / place) for place in places], tmp_path)) == []


# -------------------------------------------------------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report for a paper."""
    folder = tmp_path_factory.mktemp("paper")
    runs_of(folder)
    places = [folder / f"{kind}-{number}" for kind in ("evaluate", "certify") for number in (0, 1)]
    code, text = call("report", *places, "--out", folder / "r", "--paper")
    assert code == 0, text
    return folder / "r"


@pdflatex
def test_every_file_of_a_report_fits_two_columns(paper: Path) -> None:
    assert complaints(paper) == []


def test_figures_have_the_width_and_the_letters_of_a_paper(paper: Path) -> None:
    files = sorted((paper / "figures").glob("*.png"))
    assert len(files) > 8
    for file in files:
        with Image.open(file) as image:
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            width = image.width / 300
        assert width == pytest.approx(3.25, abs=0.01) or width == pytest.approx(6.75, abs=0.01), file.name
        stem = file.name.removesuffix(".png")
        pdf, tex = ((file.parent / f"{stem}{ending}").read_bytes() for ending in (".pdf", ".tex"))
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf, "TrueType, embedded"
        assert (b"{figure*}" in tex) == (width > 4) and f"{{{stem}.pdf}}".encode() in tex


def test_notes_are_a_caption_and_not_in_the_figure(tmp_path: Path) -> None:
    runs = [run for run in runs_of(tmp_path) if run.kind == "certify"]
    with style(for_paper(5.5, 9)):
        figure = dict(drawer("certified")(runs))["certified"]
        figure.draw_without_rendering()
        save(figure, tmp_path / "certified")
    assert figure.get_figwidth() == 5.5 and figure.axes[0].xaxis.label.get_fontsize() == 9
    assert not any("Bands" in text.get_text() for text in figure.texts)
    caption = (tmp_path / "certified.tex").read_text(encoding="utf-8")
    assert (
        r"\caption{Bands: pointwise 95\,\% intervals" in caption
        and r"12 per modality $\times$ question type" in caption
    )
    assert r"\begin{figure}" in caption and r"\label{fig:certified}" in caption
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "float32, \u03c3 = 0.25, n\u2080 = 100, n = 200, \u03b1 = 0.001"
    with style():
        assert "Bands" in "".join(t.get_text() for t in dict(drawer("certified")(runs))["certified"].texts)


def test_wide_figures_span_two_columns_where_a_page_has_two() -> None:
    assert (for_paper(3.5, 8).page, for_paper(5.5, 8).page) == (7.25, 5.5)


def test_one_run_is_drawn_solid_whatever_its_place_in_the_report(tmp_path: Path) -> None:
    first, second = (run for run in runs_of(tmp_path) if run.kind == "certify")
    coarse = write_run(
        tmp_path / "other",
        [certified(i, 200, smoothing=SMALL) for i in range(9)],
        "certify",
        smoothing=SMALL,
        spec={"canvas": "64x64 stretch"},
    )
    with style():
        drawn = dict(drawer("certified")([first, second, Run.read(coarse, name="coarse")]))
    both, alone = drawn["certified-384x384-stretch"].axes[0], drawn["certified-64x64-stretch"].axes[0]
    styles = [
        [line.get_linestyle() for line in axes.lines if line.get_drawstyle() == "steps-pre"] for axes in (both, alone)
    ]
    assert styles == [["-", "--"], ["-"]]
    colors = [line.get_color() for axes in (both, alone) for line in axes.lines if line.get_drawstyle() == "steps-pre"]
    assert len(set(colors)) == 3, "colours stay those of the report"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--width", "5"], "--width: has an effect with --paper only"),
        (["--font", "9"], "--font: has an effect with --paper only"),
        (["--paper", "--width", "40"], "--width 40: must lie between 2 and 12"),
        (["--paper", "--font", "nan"], "--font nan: must lie between 5 and 14"),
    ],
)
def test_sizes_that_no_paper_has_are_refused(tmp_path: Path, options: list[str], words: str) -> None:
    assert call("report", tmp_path / "r", "--out", tmp_path / "o", *options) == (2, words)


def test_the_api_takes_the_same(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="with --paper only"):
        report([tmp_path / "r"], tmp_path / "o", font=np.pi)
