"""Execute the tutorials and store their outputs: python docs/_build/execute.py [NAME...]

`make tutorials` does that for all of them. The site shows what is stored; tests/test_notebook.py executes them anew.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parents[1] / "tutorials"
LONGEST_S = 600
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def executed(notebook: Path, folder: Path) -> Any:
    """Execute a notebook in this folder, by a kernel of this very interpreter; return it with its outputs.

    Progress and warnings, which go to stderr, are left out of the outputs.
    """
    kernel = folder / ".jupyter" / "kernels" / "here"
    kernel.mkdir(parents=True)
    argv = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (kernel / "kernel.json").write_text(f'{{"argv": {argv}, "display_name": "here", "language": "python"}}')
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # Commands get the package that the notebook gets, and print tables as they do into a file.
    env = os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "100"}
    content = nbformat.read(notebook, as_version=4)
    old = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(folder / ".jupyter")
    try:
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(content, timeout=LONGEST_S, kernel_name="here", resources=resources)
        client.coalesce_streams = True
        client.execute(env=env)
    finally:
        os.environ.pop("JUPYTER_PATH") if old is None else os.environ.update(JUPYTER_PATH=old)
    for cell in content.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [output for output in cell.outputs if not _passing(output)]
            for output in cell.outputs:
                if "text" in output:
                    output.text = COLOUR.sub("", output.text)
                if "execution_count" in output:
                    output.execution_count = None
    return content


def _passing(output: Any) -> bool:
    """True for progress and warnings."""
    return output.get("name") == "stderr" or (output.output_type == "display_data" and "image/png" not in output.data)


def main(names: list[str]) -> None:
    for notebook in sorted(TUTORIALS.glob("*.ipynb")):
        if not names or notebook.stem in names:
            with tempfile.TemporaryDirectory() as folder:
                content = executed(notebook, Path(folder))
            content.metadata.pop("language_info", None)
            notebook.write_text(nbformat.writes(content) + "\n", encoding="utf-8")
            print(notebook)


if __name__ == "__main__":
    main(sys.argv[1:])
