"""The README's five lines in a notebook, executed by a kernel of its own."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

REASON = "nbformat, nbclient and ipykernel are in the dev extra"
nbformat: Any = pytest.importorskip("nbformat", reason=REASON)
nbclient: Any = pytest.importorskip("nbclient", reason=REASON)
pytest.importorskip("ipykernel", reason=REASON)

README = Path(__file__).parents[1] / "README.md"
SHOWN = ["model", "data", "run", "cert", 'run.accuracy(by="modality")', "cert.curve()", "run.plot()"]


@pytest.mark.filterwarnings("ignore")
def test_the_five_lines_run_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is a cell; then what they made is shown, on fewer items and noisy copies than the README asks for."""
    (block,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    fewer = block.replace("limit=192", "limit=4").replace("steps=10", "steps=1").replace("n=200", "n0=4, n=16")
    cells = [nbformat.v4.new_code_cell(line) for line in [*filter(None, fewer.splitlines()), *SHOWN]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    # A kernel of this very interpreter, whichever others are installed.
    spec = tmp_path / "kernels" / "here"
    spec.mkdir(parents=True)
    argv = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (spec / "kernel.json").write_text(f'{{"argv": {argv}, "display_name": "here", "language": "python"}}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="here", resources=resources).execute()
    shown = [output for cell in notebook.cells[-len(SHOWN) :] for output in cell.outputs if "data" in output]
    assert len(shown) == len(SHOWN)
    for name, output in zip(SHOWN, shown, strict=True):
        if name == "run.plot()":
            assert "image/png" in output.data
        elif name != "model":
            assert "<table" in output.data["text/html"], name
    assert not [output for cell in notebook.cells for output in cell.outputs if output.output_type == "error"]
    assert (tmp_path / "report" / "report.html").is_file()
