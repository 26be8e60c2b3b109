"""The tutorials, and the README's five lines in a notebook, executed by kernels of their own."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REASON = "nbformat, nbclient and ipykernel are in the dev extra"
nbformat: Any = pytest.importorskip("nbformat", reason=REASON)
nbclient: Any = pytest.importorskip("nbclient", reason=REASON)
pytest.importorskip("ipykernel", reason=REASON)

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
MOST_BYTES = 150_000
sys.path.append(str(ROOT / "docs" / "_build"))
from execute import executed  # noqa: E402

SHOWN = ["model", "data", "run", "cert", 'run.accuracy(by="modality")', "cert.curve()", "run.plot()"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_five_lines_run_in_a_notebook(tmp_path: Path) -> None:
    """Each line is a cell; then what they made is shown, on fewer items and noisy copies than the README asks for."""
    (block,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    fewer = block.replace("limit=192", "limit=4").replace("steps=10", "steps=1").replace("n=200", "n0=4, n=16")
    cells = [nbformat.v4.new_code_cell(line) for line in [*filter(None, fewer.splitlines()), *SHOWN]]
    notebook = tmp_path / "five-lines.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    notebook = executed(notebook, tmp_path)
    shown = [output for cell in notebook.cells[-len(SHOWN) :] for output in cell.outputs if "data" in output]
    assert len(shown) == len(SHOWN)
    for name, output in zip(SHOWN, shown, strict=True):
        if name == "run.plot()":
            assert "image/png" in output.data
        elif name != "model":
            assert "<table" in output.data["text/html"], name
    assert not [output for cell in notebook.cells for output in cell.outputs if output.output_type == "error"]
    assert (tmp_path / "report" / "report.html").is_file()


def kinds(notebook: Any) -> list[list[str]]:
    """The kinds of outputs of each cell that has code."""
    return [
        sorted({"/".join(sorted(output.get("data", [output.output_type]))) for output in cell.outputs})
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(tutorial: Path, tmp_path: Path) -> None:
    """It shows what is stored in it, numbers aside; a cell that fails raises."""
    if tutorial.stem == "train":
        pytest.importorskip("trl", reason="TRL is in the train extra")
    if tutorial.stem == "bring-your-own":
        pytest.importorskip("setuptools", reason="the plug-in is built with setuptools")
    stored = nbformat.read(tutorial, as_version=4)
    assert any(kinds(stored)), "make tutorials stores the outputs"
    assert kinds(executed(tutorial, tmp_path)) == kinds(stored), "make tutorials stores them anew"


def test_the_tutorials_are_small_and_say_what_they_should() -> None:
    assert len(TUTORIALS) == 5
    for tutorial in TUTORIALS:
        assert tutorial.stat().st_size < MOST_BYTES, tutorial
    told = {path.stem: path.read_text(encoding="utf-8") for path in TUTORIALS}
    verdicts = re.findall(r'"(believe|do not believe|not enough) ?\(?', told["believe"])
    assert verdicts == ["believe", "do not believe"]
    assert re.findall(r'"exit code (\d)', told["gate"]) == ["1", "0"]


def test_the_workflow_of_the_tutorial_gives_the_action_what_it_takes() -> None:
    cells = nbformat.read(ROOT / "docs" / "tutorials" / "gate.ipynb", as_version=4).cells
    (workflow,) = re.findall(r"```yaml\n(.*?)```", "\n".join(cell.source for cell in cells), re.DOTALL)
    (given,) = (step["with"] for step in yaml.safe_load(workflow)["jobs"]["gate"]["steps"] if "OWNER" in step["uses"])
    inputs = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["inputs"]
    assert {name for name, facts in inputs.items() if facts["required"]} <= given.keys() <= inputs.keys()
