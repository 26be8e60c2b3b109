"""Finds out which functions of the package each test runs, and how long it takes.

The package is imported with a call at the top of each function that notes its name. That costs next to nothing, while
tracing lines makes tests several times slower.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

LONGEST_S = 1.5
"""Tests that take longer, such as simulations, are left out: a change that only they notice counts as survived."""
MOST_S = 10.0
"""Seconds for which the tests of one file are run: what only later ones notice counts as survived, too."""

Reach = dict[str, tuple[float, list[str]]]
"""For each test: seconds, and the functions that it runs, as "module:qualified name"."""
_NOTE = "_note_of_torture"


class Instrumented(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports the modules of a package with a call at the top of each function that notes its name.

    Args:
        package: the package's folder.
    """

    def __init__(self, package: Path, name: str = "", file: str = "") -> None:
        super().__init__(name, file)
        self._package = package

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] != self._package.name:
            return None
        place = self._package.parent.joinpath(*name.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if not file.exists():
            return None
        loader = Instrumented(self._package, name, str(file))
        return importlib.util.spec_from_file_location(
            name, file, loader=loader, submodule_search_locations=[str(place)] if place.is_dir() else None
        )

    def get_code(self, name: str) -> CodeType:
        module = name.partition(".")[2]
        tree = ast.parse(Path(self.path).read_text(encoding="utf-8"))
        for function, where in _functions(tree, ""):
            note = ast.parse(f"{_NOTE}({f'{module}:{where}'!r})").body[0]
            documented = ast.get_docstring(function, clean=False) is not None
            function.body.insert(int(documented), note)
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


def _functions(node: ast.AST, where: str) -> list[tuple[ast.FunctionDef, str]]:
    """The functions inside a node, with their qualified names."""
    found = []
    for child in ast.iter_child_nodes(node):
        name = where
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            name = f"{where}.{child.name}" if where else child.name
        if isinstance(child, ast.FunctionDef):
            found.append((child, name))
        found += _functions(child, name)
    return found


class _Late(BaseException):
    """A test takes longer than any that is of use here."""


class Notes:
    """A plug-in of pytest that notes the functions that each test runs that passes, and the processor time it takes."""

    def __init__(self) -> None:
        self.found: Reach = {}
        self._left = MOST_S
        self._here: set[str] = set()
        self._before: set[str] = set()
        setattr(builtins, _NOTE, lambda name: self._here.add(name))
        signal.signal(signal.SIGPROF, self._late)
        signal.signal(signal.SIGALRM, self._late)

    def _late(self, *_: object) -> None:
        raise _Late

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._here, self._passed, began = set(), False, time.process_time()
        try:
            return (yield)
        finally:
            self._left -= time.process_time() - began
            if self._left < 0:
                item.session.shouldstop = "long enough"
            if self._passed:
                self.found[item.nodeid] = self._seconds, sorted(self._here)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
        signal.setitimer(signal.ITIMER_REAL, 20)
        began = time.process_time()
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._seconds = time.process_time() - began

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._passed = report.passed


def install(package: Path) -> None:
    """From now on, import the package with notes."""
    setattr(builtins, _NOTE, lambda name: None)
    sys.meta_path.insert(0, Instrumented(package))


def known(files: Sequence[Path], cache: Path) -> tuple[Reach, list[Path]]:
    """What has been noted of these test files before, and those that have changed since."""
    found, left = Reach(), []
    for file in files:
        kept = place_of(file, cache)
        if kept.exists():
            found |= json.loads(kept.read_text())
        else:
            left.append(file)
    return found, left


def place_of(file: Path, cache: Path) -> Path:
    """Where the notes of a test file are kept: they are read as long as it does not change."""
    return cache / f"{file.name}-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}.json"
