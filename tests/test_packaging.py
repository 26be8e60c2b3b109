"""What people install: the wheel away from the repository, extras that are missing, the image, the gate's action."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from safemed_eval.version import __version__

ROOT = Path(__file__).parents[1]
LARGEST = 15_000_000
"""Bytes of a wheel."""

pytestmark = pytest.mark.skipif(not (ROOT / "Dockerfile").exists(), reason="runs from a clone of the repository")


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)


def stage(name: str) -> list[str]:
    """The instructions of a stage of the Dockerfile, line breaks joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    stages = re.split(r"^FROM \S+ AS (\S+)\n", text, flags=re.MULTILINE)
    return [line for line in stages[stages.index(name) + 1].splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as the image builds it: from the files that its stage copies, by its own command."""
    pytest.importorskip("setuptools", reason="the wheel is built with setuptools")
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    for line in stage("build"):
        word, *rest = shlex.split(line)
        if word == "COPY":
            *names, _ = rest
            assert set(names) <= let_in, "what .dockerignore leaves out cannot be copied"
            for name in names:
                place = ROOT / name
                (shutil.copytree if place.is_dir() else shutil.copy2)(place, source / name)
        elif word == "RUN":
            assert rest[:3] == ["python", "-m", "pip"] and "/wheels" in rest
            arguments = [str(wheels) if part == "/wheels" else part for part in rest[1:]]
            done = run(sys.executable, *arguments, "--no-build-isolation", "--no-index", cwd=source)
            assert done.returncode == 0, done.stderr
    (built,) = wheels.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-index", "--target", str(target)]
    done = run(sys.executable, "-m", "pip", "install", *options, str(wheel), cwd=target)
    assert done.returncode == 0, done.stderr
    return target


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    assert wheel.name.startswith(f"safemed_eval-{__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if not name.endswith("/")}
    package = {name for name in inside if not name.startswith("safemed_eval-")}
    shipped = run("git", "ls-files", "safemed_eval", cwd=ROOT).stdout.split()
    if not shipped:
        pytest.skip("not a git repository: the files of the package are not known")
    assert {name for name in shipped if (ROOT / name).exists()} <= package
    assert not [name for name in package if not name.startswith("safemed_eval/")]


AWAY = """
import sys
from pathlib import Path
import safemed_eval as se
assert str(Path(se.__file__)).startswith(sys.argv[1]), se.__file__
few = se.load_data("phantom:images=4", limit=4)
asked = {"attacks": ["fgsm:eps=4/255"]}
run = se.evaluate("builtin:sft", few, **asked, out="a")
proved = se.certify("builtin:at-grpo", few, sigma=0.25, n0=8, n=16, out="b")
se.report([run, proved], out="report")
assert se.compare("a", se.evaluate("builtin:sft", few, **asked)).exit_code() == 0
assert "<html" in Path("report/report.html").read_text(encoding="utf-8")
"""


@pytest.mark.slow
def test_the_wheel_works_away_from_the_repository(installed: Path, tmp_path: Path) -> None:
    done = run(sys.executable, "-c", AWAY, str(installed), cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr


WITHOUT_EXTRAS = """
from importlib.machinery import PathFinder
import sys
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        extra = name.partition(".")[0] in ("trl", "peft", "accelerate", "datasets", "ray")
        return None if extra else super().find_spec(name, path, target)
sys.meta_path = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
import safemed_eval as se
from safemed_eval.errors import SpecError
for call in (
    lambda: se.train("sft", "builtin:sft", "phantom", out="t"),
    lambda: se.evaluate("builtin:sft", "phantom", ray="local", out="e"),
):
    try:
        call()
    except SpecError as error:
        print(error)
print(se.evaluate("builtin:sft", se.load_data("phantom:images=4", limit=2)).accuracy().loc["all", "n"])
"""


def test_the_core_says_which_extra_is_missing(tmp_path: Path) -> None:
    done = run(sys.executable, "-c", WITHOUT_EXTRAS, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    train, ray, items = done.stdout.splitlines()
    assert train.endswith("pip install 'safemed-eval[train]'") and ray.endswith("pip install 'safemed-eval[ray]'")
    assert int(items) == 2
    assert not any(tmp_path.iterdir()), "what is refused leaves no folder"


# ------------------------------------------------------------------------------------------------ files around the code


def tool(name: str) -> Path:
    found = Path(sys.executable).with_name(name)
    if not found.exists():
        pytest.skip(f"{name} is not installed beside this Python")
    return found


def test_the_dockerfile_passes_its_linter() -> None:
    done = run(tool("hadolint"), "Dockerfile", cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_both_images_run_the_command_as_nobody_in_particular() -> None:
    base = stage("base")
    assert 'ENTRYPOINT ["safemed-eval"]' in base and "USER 1000" in base
    assert stage("cpu") and stage("cuda")


@pytest.mark.parametrize(
    "kind, pattern", [("workflows", ".github/workflows/*.yml"), ("actions", "action.yml")], ids=["workflows", "action"]
)
def test_workflows_and_the_action_have_their_schema(kind: str, pattern: str) -> None:
    files = sorted(ROOT.glob(pattern))
    assert files
    done = run(tool("check-jsonschema"), "--builtin-schema", f"vendor.github-{kind}", *files, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_workflows_have_no_known_holes() -> None:
    done = run(tool("zizmor"), "--offline", "--no-progress", ".", cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_the_citation_has_the_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == __version__ and cited["license"] == "Apache-2.0"


@pytest.mark.parametrize("tag, passes", [("v1.2.3", True), ("v1.2.4", False), ("v1.2", False)])
def test_a_release_is_of_the_version_that_its_tag_says(tag: str, passes: bool, tmp_path: Path) -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))["jobs"]["build"]
    (check,) = (step["run"] for step in job["steps"] if "CHANGELOG" in step.get("name", ""))
    (tmp_path / "safemed_eval").mkdir()
    (tmp_path / "safemed_eval" / "version.py").write_text('"""The version."""\n\n__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (2030-01-01)\n\n## 1.2.2 (2029-01-01)\n")
    (tmp_path / "CITATION.cff").write_text("title: x\nversion: 1.2.3\n")
    assert (run("bash", "-eo", "pipefail", "-c", check, cwd=tmp_path, GITHUB_REF_NAME=tag).returncode == 0) is passes


# --------------------------------------------------------------------------------------------------------- the action

MODELS = """
import torch

class Model:
    def __init__(self, sign):
        self.sign = sign

    def scores(self, canvas, questions):
        return self.sign * (canvas.mean((1, 2, 3)) - 0.5)[:, None] * torch.tensor([1.0, -1.0])

good, bad = lambda: Model(1), lambda: Model(-1)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models, 60 questions, and a run of the good model as the baseline."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "mine.py").write_text(MODELS)
    rows = ["id,image,question,option_a,option_b,answer"]
    for number in range(60):
        grey = 20 + number if number % 2 else 235 - number
        Image.fromarray(np.full((8, 8, 3), grey, np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number},{number}.png,Is it bright?,yes,no,{'no' if number % 2 else 'yes'}")
    (folder / "questions.csv").write_text("\n".join(rows))
    asked = ["--model", "python:mine:good", "--data", "table:questions.csv", *ARGUMENTS.split(), "--out", "baseline"]
    done = run(sys.executable, "-m", "safemed_eval", "evaluate", *asked, cwd=folder, PYTHONPATH=f".:{ROOT}")
    assert done.returncode == 0, done.stderr
    return folder


ARGUMENTS = "--canvas 8x8 --attack noise:eps=1/255"


def steps(**given: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The scripts of the action's steps, with their environments, but for the one that installs."""
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    inputs = {name: given.get(name.replace("-", "_"), about.get("default")) for name, about in action["inputs"].items()}
    assert {name.replace("_", "-") for name in given} <= set(inputs)
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash" and "inputs." not in step["run"], "inputs reach a script by its environment only"
        filled = {
            key: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: inputs[found[1]], value)
            for key, value in step["env"].items()
        }
        if step["name"] != "Install":
            yield step["run"], filled


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, more, code, verdict",
    [
        ("good", {}, 0, "no regression"),
        ("bad", {}, 1, "regression"),
        ("good", {"arguments": f"{ARGUMENTS} --seed 1"}, 2, "not comparable"),
        ("good", {"arguments": f"{ARGUMENTS} --batch-size 7"}, 0, "no regression"),
        ("good", {"arguments": ARGUMENTS.replace("noise:eps", "'noise:eps'")}, 0, "no regression"),
        ("good", {"arguments": ""}, 2, "not comparable"),
        ("good", {"arguments": f"{ARGUMENTS} '"}, 2, "not comparable"),
        ("good", {"command": "certify; true"}, 2, "not comparable"),
        ("good", {"arguments": f"{ARGUMENTS} --atack x"}, 2, "not comparable"),
        ("good", {"baseline": "basline"}, 2, "not comparable"),
    ],
    ids=[
        *(
            "as robust",
            "less robust",
            "not comparable",
            "other batches",
            "quoted",
            "no words",
            "open quote",
            "no command of ours",
        ),
        *("no such option", "no such baseline"),
    ],
)
def test_the_action_is_a_gate(
    model: str, more: dict[str, str], code: int, verdict: str, project: Path, tmp_path: Path
) -> None:
    beside = tmp_path / "bin"
    beside.mkdir()
    (beside / "safemed-eval").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m safemed_eval "$@"\n')
    (beside / "safemed-eval").chmod(0o755)
    for file in ("mine.py", "questions.csv"):
        shutil.copy2(project / file, tmp_path)
    for image in project.glob("*.png"):
        os.link(image, tmp_path / image.name)
    wanted = {
        "model": f"python:mine:{model}",
        "data": "table:questions.csv",
        "baseline": str(project / "baseline"),
        "command": "evaluate",
        "arguments": ARGUMENTS,
    } | more
    said = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), "GITHUB_OUTPUT": str(tmp_path / "output")}
    paths = {"PATH": f"{beside}:{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": f".:{ROOT}"}
    for file in ("compare.json", "compare.xml"):
        (tmp_path / file).write_text('{"verdict": "that of a former comparison"}')
    for script, environment in steps(**wanted):
        done = run("bash", "-eo", "pipefail", "-c", script, cwd=tmp_path, **environment, **said, **paths)
        compared = "safemed-eval compare" in script
        if done.returncode:
            break
    assert done.returncode == code, done.stderr
    assert (tmp_path / "output").read_text() == f"verdict={verdict}\n"
    summary = (tmp_path / "summary.md").read_text()
    assert (f"safemed-eval compare: {verdict}" in summary) == compared
    assert compared or ("failed with exit code 2\n" in summary and "    error" in summary), summary
    assert (tmp_path / "compare.xml").exists() == compared
    assert code != 2 or not (tmp_path / "compare.json").exists() or not compared
