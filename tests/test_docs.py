"""Tests of the README, the docs and the docstrings: code runs, commands parse, links lead somewhere."""

from __future__ import annotations

import ast
import doctest
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
import typer
from synthetic import certified, write_run
from toys import ABCD, Net, generators, middle_canvases
from typer.testing import CliRunner

import safemed_eval
from safemed_eval import attacks, data, models
from safemed_eval.cli import app
from safemed_eval.core import Question
from safemed_eval.models.waist import Waist
from safemed_eval.train import Recipe

ROOT = Path(__file__).parents[1]
PACKAGE = Path(safemed_eval.__file__).parent
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("docs/tutorials/*.ipynb"),
    *ROOT.glob("reports/phantom/*.md"),
    *PACKAGE.rglob("README.md"),
]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS = typer.main.get_command(app)
ELSEWHERE = re.compile(r"^python -m pip .*$", re.MULTILINE)
"""Commands whose options are not ours."""
PLUGGED_IN = ("darken:",)
"""Attacks of plug-ins that pages show."""


def read(page: Path) -> str:
    """A page's Markdown; of a notebook its text, and what it gives to a shell."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    shell = [f"```\n{source}\n```" for kind, source in cells if kind == "code" and source.startswith("%%bash")]
    return "\n\n".join([source for kind, source in cells if kind == "markdown"] + shell)


def blocks(page: Path, *kinds: str) -> list[str]:
    """The fenced blocks of these kinds in a page."""
    return [block[2] for block in FENCED.finditer(read(page)) if block[1] in kinds]


# -------------------------------------------------------------------------------------------------------- Python blocks


def run_a_model_of_your_own(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two missing methods are put in; it is found by name, asked about 2 to 4 options, attacked and certified."""
    parts = """
    def encode_images(self, canvas):
        return canvas.mean((1, 2, 3))

    def compare(self, image, text, options):
        return torch.stack([-(image - len(option) / 20).abs() for option in options])
    """
    head, build = block.split("\n\n\ndef build")
    (folder / "mine.py").write_text(f"import torch\n\n\n{head}\n{parts}\n\ndef build{build}")
    monkeypatch.setattr(sys, "path", [*sys.path])
    made = models.load(models.resolve("python:mine:build"))
    rows = [ABCD, Question(text="Which?", options=("a", "bcd", "efghi")), Question(text="?", options=("a lung", "b"))]
    found = made.answer(torch.rand((3, 3, 8, 8)), rows)
    assert [len(row) for row in found.log_probs or ()] == [4, 3, 2]
    asked = ["--model", "python:mine:build", "--data", "phantom", "--limit", "6"]
    for command in (["evaluate", "--attack", "pgd:steps=2"], ["certify", "--sigma", "0.25", "--n0", "8", "--n", "16"]):
        outcome = CliRunner().invoke(app, [*command, *asked, "--out", command[0]])
        assert outcome.exit_code == 0, outcome.output
    sys.modules.pop("mine")


def run_a_test_of_your_own(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("ci/baseline", "runs/candidate"):
        write_run(folder / place, [certified(i, 900) for i in range(80)], "certify")
    names: dict[str, Any] = {}
    exec(block, names)
    tests = [value for name, value in names.items() if name.startswith("test")]
    for test in tests:
        test()
    assert len(tests) == 1


def sooner(example: str) -> str:
    """The five lines, on fewer items and noisy copies."""
    return example.replace("limit=192", "limit=4").replace("steps=10", "steps=1").replace("n=200", "n0=4, n=16")


def run_the_five_lines(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec(sooner(block), names)
    assert (len(names["run"].frame()), len(names["cert"].frame())) == (8, 4)
    assert (folder / "report" / "report.html").is_file()


def run_a_training(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl", reason="TRL is in the train extra")
    exec(block, {})


PYTHON: dict[str, Callable[[str, Path, pytest.MonkeyPatch], None]] = {
    "class Mine": run_a_model_of_your_own,
    "safemed_eval.compare(": run_a_test_of_your_own,
    "se.report([run, cert]": run_the_five_lines,
    "se.train(": run_a_training,
}
"""By a text in it, the function that runs a block which needs something beside it; any other is run as it stands."""


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks(page, "python")])
def test_python_in_the_docs_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [run for word, run in PYTHON.items() if word in block] or [lambda block, *_: exec(block, {})]
    runs[0](block, tmp_path, monkeypatch)


def test_every_page_has_its_line_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[([^]]+)\]\((\S+)\) \|", index, re.MULTILINE)
    assert {link for _, link in rows} == {page.name for page in ROOT.glob("docs/*.md") if page.name != "README.md"}
    assert not [text for text, _ in rows if text.endswith(".md")], "a link says what its page is about"


def test_the_first_table_is_that_of_the_commands_above_it() -> None:
    """The page's commands on the shipped checkpoints are those of the runs in reports/start, as are its numbers."""
    page = ROOT / "docs" / "start" / "checkpoint.md"
    on_the_page = [words for block in blocks(page, "") for words in commands(block) if words[0] != "models"]
    for name in ("sft", "at-grpo"):
        folders = [ROOT / "reports" / "start" / f"{kind}-{name}" for kind in ("attacked", "certified")]
        for words, folder in zip(on_the_page, folders, strict=True):
            put_in = {"CKPT": f"builtin:{name}", "DATA": "phantom"}
            (session,) = json.loads((folder / "run.json").read_text(encoding="utf-8"))["sessions"]
            assert session["argv"][:-1] == [put_in.get(word, word) for word in words[:-1]], "make -C reports/start"
        attacked, certified = (safemed_eval.Run.read(folder).accuracy().loc["all"] for folder in folders)
        shares = [attacked["clean"], attacked["pgd:eps=4/255,steps=10"], certified["r>=0"], certified["r>=1s"]]
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        assert re.search(rf"^\| `builtin:{name}`, [^|]+ \| {re.escape(cells)} \|$", read(page), re.MULTILINE), cells


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def anchors(page: Path) -> set[str]:
    """The ends of addresses that lead to the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", FENCED.sub("", read(page))):
        if "://" not in link:
            file, _, anchor = link.partition("#")
            there = page.parent / file if file else page
            assert there.exists(), link
            assert not anchor or anchor in anchors(there), link


# ----------------------------------------------------------------------------------------------------------- docstrings


def documented() -> Iterator[tuple[str, str, str]]:
    """Module, name and docstring of everything in the package."""
    for file in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
                yield module, getattr(node, "name", ""), text


EXAMPLES = [one for one in documented() if ">>>" in one[2]]


def is_python(text: str) -> bool:
    try:
        return bool(ast.parse(dedent(text)))
    except SyntaxError:
        return False


def test_no_docstring_has_code_that_is_not_run() -> None:
    """An indented block that is Python is written with >>>."""
    indented = re.compile(r"(?:^    .*\n?)+", re.MULTILINE)
    assert [one for one in documented() if any(map(is_python, indented.findall(one[2])))] == []
    assert {one[0] for one in EXAMPLES} >= {f"safemed_eval.{name}" for name in ("models", "data", "attacks.art")}


@pytest.mark.parametrize(("module", "name", "text"), EXAMPLES, ids=[f"{one[0]}:{one[1]}" for one in EXAMPLES])
def test_docstring_examples_run(
    module: str,
    name: str,
    text: str,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {**vars(import_module(module))}
    if module == "safemed_eval":
        text = sooner(text)
    if module.startswith("safemed_eval.report."):
        for folder in ("a", "v1", "v2"):
            shutil.copytree(ROOT / "reports" / "reference" / "evaluate-sft", tmp_path / "runs" / folder)
        names["run"] = safemed_eval.Run.read("runs/a")
        names["rows"] = names["run"].answers
    if module == "safemed_eval.attacks":
        classify, canvas = Waist(Net(), torch.device("cpu")).classify([ABCD] * 6), middle_canvases()
        names |= {"classify": classify, "canvas": canvas, "labels": classify(canvas).argmax(1)}
        names |= {"generators": generators()}
    if module == "safemed_eval.train":
        pytest.importorskip("trl", reason="TRL is in the train extra")
        from safemed_eval.train import fit

        drawn = data.load("phantom:split=train,images=2")
        names |= {"models": models, "fit": fit, "items": drawn.items, "canvas": drawn.canvas, "out": tmp_path}
        names |= {"source": models.resolve(str(checkpoint("qwen2_5_vl")))}
        names |= {"recipe": Recipe(method="sft", steps=1, batch_size=2, learning_rate=1e-3)}
    example = doctest.DocTestParser().get_doctest(text, names, f"{module}:{name}", None, None)
    printed: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(example, out=printed.append).failed == 0, "".join(printed)


# ------------------------------------------------------------------------------------------------------------- commands


def commands(text: str) -> list[list[str]]:
    """The arguments of each `safemed-eval` in shell text, joined over its line breaks; not where its output goes."""
    found = re.findall(r"safemed-eval ((?:\\\n|[^\n])*)", text)
    return [shlex.split(line.replace("\\\n", " ").partition(" > ")[0], comments=True) for line in found]


def shown() -> list[list[str]]:
    """Every command in fenced blocks and inline, and in the commands' own help."""
    found = [words for page in PAGES for block in blocks(page, "", "yaml") for words in commands(block)]
    for page in PAGES:
        prose = FENCED.sub("", read(page))
        found += [words for text in re.findall(r"`(safemed-eval [^`]+)`", prose) for words in commands(text)]
    epilogs = [part for command in leaves(COMMANDS) for part in (command.epilog or "").split(";")]
    return found + [words for text in epilogs for words in commands(text)]


def leaves(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield from leaves(command) if hasattr(command, "commands") else [command]


@pytest.mark.parametrize("words", shown(), ids=" ".join)
def test_commands_in_the_docs_can_be_given(words: list[str]) -> None:
    """Each option exists and takes what it is given, nothing that is needed is missing, and attacks parse.

    Of what is no more than a command's name, or has dots in it, the command is looked up only.
    """
    command, rest = COMMANDS, list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]
    if rest and "..." not in rest:
        given = command.make_context("safemed-eval", rest, resilient_parsing=rest == ["--version"]).params
        specs = given.get("attack") or ()
        specs = [specs] if isinstance(specs, str) else specs
        attacks.parse_all(spec for spec in specs if "..." not in spec and not spec.startswith(PLUGGED_IN))


def test_options_in_the_docs_exist() -> None:
    known = {name for command in [COMMANDS, *leaves(COMMANDS)] for option in command.params for name in option.opts}
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", ELSEWHERE.sub("", read(page))))
        assert named <= known | {"--help", "--config"}, page  # accelerate has --config_file
