"""The package of examples/plugin is installed without network, and each of its five parts is used by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plug-in installed in it."""
    pytest.importorskip("setuptools", reason="the plug-in is built with setuptools")
    copy, target = tmp_path_factory.mktemp("plugin") / "source", tmp_path_factory.mktemp("site")
    shutil.copytree(PLUGIN, copy)
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, copy], check=True)
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight grey images from dark to bright, and questions about them in the plug-in's format."""
    for number in range(8):
        Image.fromarray(np.full((16, 16, 3), 10 + 33 * number, np.uint8)).save(tmp_path / f"{number}.png")
    rows = [f"{number}.png|Is it bright?|{'yes' if number > 2 else 'no'}|yes|no" for number in range(8)]
    (tmp_path / "questions.txt").write_text("\n".join(rows))
    return tmp_path


def python(installed: Path, folder: Path, *arguments: str) -> str:
    """Run Python there, with the plug-in beside everything else; return what it prints."""
    path = os.pathsep.join([str(installed), str(ROOT), *sys.path])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


ATTACK = "darken:eps=0.2"


@pytest.mark.slow
def test_the_command_line_finds_all_five(installed: Path, folder: Path) -> None:
    asked = ["--model", "threshold:0.4", "--data", "piped:questions.txt", "--canvas", "16x16", "--attack", ATTACK]
    printed = python(installed, folder, "-m", "safemed_eval", "evaluate", *asked, "--out", "run", "--json")
    overall = json.loads(printed)["overall"]
    assert (overall["clean"]["accuracy"], overall[ATTACK]["accuracy"]) == (1.0, 0.75)
    python(installed, folder, "-m", "safemed_eval", "report", "run", "--out", "report")
    assert (folder / "report" / "figures" / "overview-evaluate.png").is_file()
    asked = [*asked[:-2], "--noise", "shading", "--sigma", "0.1", "--n0", "10", "--n", "40", "--falsify"]
    printed = python(installed, folder, "-m", "safemed_eval", "certify", *asked, "--out", "certified", "--json")
    found = json.loads(printed)
    assert found["overall"]["certified"]["1s"]["certified_accuracy"] == 1.0, "light on one side leaves the mean"
    assert found["asked"]["noise"] == "shading" and found["notes"]["falsified"]["sound"]
    python(installed, folder, "-m", "safemed_eval", "report", "certified", "--out", "report")
    assert (folder / "report" / "figures" / "certified.png").is_file()


SCRIPT = f"""
import safemed_eval as se
from safemed_eval import attacks
assert "darken (a plug-in)" in attacks.help_text()
data = se.load_data("piped:questions.txt", canvas="16x16")
run = se.evaluate(se.load_model("threshold:0.4"), data, attacks=["{ATTACK}"])
print(*run.accuracy().loc["all"])
print(*(figure.stem for figure in se.report([run], "report").figures))
"""


@pytest.mark.slow
def test_python_finds_them(installed: Path, folder: Path) -> None:
    accuracy, figures = python(installed, folder, "-c", SCRIPT).splitlines()
    assert [float(cell) for cell in accuracy.split()] == [1.0, 0.75, 8]
    assert "overview-evaluate" in figures.split()


def test_the_package_is_short() -> None:
    lines = [line for file in PLUGIN.iterdir() if file.is_file() for line in file.read_text().splitlines()]
    assert len(lines) < 80
