"""Change the source in many small ways, and find out for each change whether a test that reaches the place fails.

The libraries are loaded once. Each changed source is tried in a fork of that process, which has not yet imported the
package, by the tests that reach the line: those of the files that are most about it first, up to the first that fails.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from torture._breaks import Break, breaks, broken

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
PACKAGE = ROOT / "safemed_eval"
CACHE = ROOT / "build" / "torture"
LOADED = (
    *("numpy", "scipy.stats", "scipy.optimize", "torch", "torchvision", "transformers", "pandas", "PIL.Image"),
    *("hypothesis", "statsmodels.stats.proportion", "statsmodels.stats.multitest", "art.attacks.evasion", "pydicom"),
    *("art.estimators.classification", "matplotlib.pyplot", "plotly.graph_objects", "typer.testing", "rich.progress"),
    *("jinja2", "tabulate", "imagehash", "peft", "trl", "ray"),
)
"""Libraries that are imported before the forks."""

LONGEST_S = 2.0
"""Tests that take longer, such as simulations, are left out: a change that only they notice counts as survived."""
MOST_S = 20.0
"""Seconds of tests for one change."""
_TRACED_S = 60.0
"""Seconds for which the tests of one file are traced: what only later ones notice counts as survived, too."""
_FEW = 3
"""Test files that are collected at a time."""
_COLLECTING_S = 60.0

LEFT_OUT = frozenset(
    f"test_{name}.py"
    for name in (
        *("architecture", "docs", "kills", "notebook", "offline", "page", "plugin", "processes", "workers"),
        *("answer_texts", "bad", "medmnist_c"),
    )
)
"""Test files that read the source, start processes or a browser, or repeat one check on many texts and pictures."""
CORE = ("stats", "rounding", "threat", "paired", "smoothing", "attacks._common", "attacks.apgd", "attacks.pgd")
"""Modules that compute the numbers of a certificate or an attack: at least three changes of each are tried."""

Reach = dict[str, tuple[float, dict[str, list[int]]]]
"""For each test: seconds, and the lines of each module that it runs."""


def file_of(module: str) -> Path:
    """The file of a module, which is named without the package."""
    place = PACKAGE.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@cache
def modules() -> tuple[str, ...]:
    """All modules of the package but its own `__init__` and `__main__`."""
    files = [file.relative_to(PACKAGE).with_suffix("") for file in sorted(PACKAGE.rglob("*.py"))]
    return tuple(
        ".".join(file.parts).removesuffix(".__init__") for file in files if str(file) not in ("__init__", "__main__")
    )


def sample(total: int) -> list[Break]:
    """About this many changes, always the same: in proportion to what a module holds, and at least one of each."""
    every = {module: breaks(file_of(module), module) for module in modules()}
    whole = sum(map(len, every.values()))
    chosen = [
        change
        for module, found in every.items()
        for change in sorted(found, key=lambda change: change.order)[
            : max(3 if module.startswith(CORE) else 1, round(total * len(found) / whole))
        ]
    ]
    return sorted(chosen, key=lambda change: change.order)


def run(chosen: Iterable[Break], tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Try each change, and yield what became of it."""
    load()
    reach = trace(tell)
    for change in chosen:
        began = time.monotonic()
        fate, by = _tried(change, reach)
        tell(f"{fate}: {change.name}{f', by {by}' if by else ''} ({time.monotonic() - began:.0f} s)")
        yield asdict(change) | {"name": change.name, "fate": fate, "by": by}


def load() -> None:
    """Import the libraries, and nothing of the package."""
    for name in LOADED:
        import_module(name)
    assert not any(name.split(".")[0] == "safemed_eval" for name in sys.modules)
    gc.freeze()  # what is loaded is not searched for garbage again in each fork
    CACHE.mkdir(parents=True, exist_ok=True)


def control(tests: Iterable[str]) -> list[str]:
    """Those of these tests that fail on the source as it is: what they noticed does not count."""
    load()
    by: dict[str, list[str]] = defaultdict(list)
    for name in tests:
        by[_file(name)].append(name)
    wrong = []
    for file, names in by.items():
        chosen = _Chosen(names, CACHE / "failed", {})
        if _forked(partial(_main, [file], chosen), 900):
            wrong += names
    return wrong


def _file(test: str) -> str:
    return test.split("::")[0].rpartition("/")[2]


def _tried(change: Break, reach: Reach) -> tuple[str, str | None]:
    """ "killed", "timeout", "survived" or "unreached", and the test that failed."""
    tests = [name for name, (_, lines) in reach.items() if change.line in lines.get(change.module, ())]
    if not tests:  # a constant, or a default, which is set when the module is imported
        tests = [name for name, (_, lines) in reach.items() if change.module in lines]
    if not tests:
        return "unreached", None
    note = CACHE / "failed"
    note.unlink(missing_ok=True)
    groups = _groups(tests, reach)

    def child() -> int:
        sys.meta_path.insert(0, _Broken(f"safemed_eval.{change.module}", file_of(change.module), change.number))
        for files, names in groups:
            signal.setitimer(signal.ITIMER_PROF, _COLLECTING_S)  # until the first test starts
            if code := _main(files, _Chosen(names, note, {name: 10 + 4 * reach[name][0] for name in names})):
                return code
        return 0

    code = _forked(child, 600)
    if code in (None, -signal.SIGPROF):
        return "timeout", None
    return ("killed", note.read_text() if note.exists() else "import") if code else ("survived", None)


def _groups(tests: Sequence[str], reach: Reach) -> list[tuple[list[str], list[str]]]:
    """Test files, some at a time, and which of their tests to run: files of which most tests reach the line first."""
    here, whole = defaultdict(list), defaultdict(int)
    for name in reach:
        whole[_file(name)] += 1
    for name in sorted(tests, key=lambda name: reach[name][0]):
        here[_file(name)].append(name)
    files = sorted(here, key=lambda file: -len(here[file]) / whole[file])
    groups, left = [], MOST_S
    while files and left > 0:
        few, files = files[:_FEW], files[_FEW:]
        chosen: list[str] = []
        for file in few:
            share = left / 2  # so that no file takes all of it
            for name in here[file]:
                share -= reach[name][0]
                if share < 0 and chosen:
                    break
                chosen.append(name)
                left -= reach[name][0]
        groups.append((few, chosen))
    return groups


_QUIET = (
    "-q",
    "-p",
    "no:cacheprovider",
    "--no-header",
    "-p",
    "no:unraisableexception",
    "-p",
    "no:threadexception",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
    f"--rootdir={ROOT}",
)


def _main(files: Iterable[str], plugin: object) -> int:
    """Run tests of these files up to the first that fails, in this process; none at all counts as none that fails."""
    code = int(pytest.main([*_QUIET, "-x", *(str(TESTS / file) for file in files)], plugins=[plugin]))
    return 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code


def _forked(work: Callable[[], int], wait: float) -> int | None:
    """The exit code of the work in a fork of this process; None if it took too long."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            os.setsid()
            os.chdir(ROOT)
            log = os.open(CACHE / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


class _Broken(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports one module of the package with a change in it."""

    def __init__(self, name: str, file: Path, number: int) -> None:
        super().__init__(name, str(file))
        self._number = number

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        folder = Path(self.path).parent if self.is_package(name) else None
        spec = importlib.util.spec_from_loader(name, self, is_package=folder is not None)
        if spec is not None and folder is not None:
            spec.submodule_search_locations = [str(folder)]
        return spec

    def get_code(self, name: str) -> CodeType:
        return compile(broken(Path(self.path), self._number), self.path, "exec")


class _Chosen:
    """Runs these tests only, notes the one that failed, and ends the process in one that does not come to an end."""

    def __init__(self, names: Collection[str], note: Path, limits: Mapping[str, float]) -> None:
        self._names, self._note, self._limits = set(names), note, limits

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._names]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        signal.setitimer(signal.ITIMER_PROF, self._limits.get(nodeid, 120.0))  # of processor time

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._note.write_text(report.nodeid)


class _Late(BaseException):
    """A test takes longer than any that is of use here."""


class _Traces:
    """Notes which lines of the package each test runs that passes, and the processor time it takes."""

    def __init__(self) -> None:
        self.found: Reach = {}
        self._files = {str(file_of(module)): module for module in modules()}
        self._lines: dict[str, set[int]] = {}
        self._calls: dict[CodeType, int] = {}
        self._left = _TRACED_S
        signal.signal(signal.SIGPROF, self._late)
        signal.signal(signal.SIGALRM, self._late)

    def _late(self, *_: object) -> None:
        raise _Late

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        module = self._files.get(code.co_filename)
        if module is None:
            return None
        calls = self._calls[code] = self._calls.get(code, 0) + 1
        if calls > 40:  # it has shown its lines by then
            return None
        note, left = self._lines.setdefault(module, set()).add, 2000

        def each(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal left
            note(frame.f_lineno)
            left -= 1
            if not left:
                frame.f_trace = None
            return each if left else None

        return each

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._lines, self._calls, self._began, self._passed = {}, {}, time.process_time(), False
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self._left -= time.process_time() - self._began
            if self._left < 0:
                item.session.shouldstop = "traced for long enough"
            if self._passed:
                lines = {name: sorted(some) for name, some in self._lines.items()}
                self.found[item.nodeid] = self._seconds, lines

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        signal.setitimer(signal.ITIMER_PROF, 2 * LONGEST_S)  # being traced takes time, too
        signal.setitimer(signal.ITIMER_REAL, 30)
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


def trace(tell: Callable[[str], None]) -> Reach:
    """What each test runs; kept for each test file as long as neither it nor a module that it runs changes."""
    found: Reach = {}
    old = []
    for file in sorted(TESTS.glob("test_*.py")):
        if file.name in LEFT_OUT:
            continue
        kept = _kept(file)
        if kept is None:
            old.append(file)
        else:
            found |= kept
    if old:
        _forked(lambda: _trace_all(old, tell), 4 * 3600)
        for file in old:
            found |= _kept(file) or {}
    return found


def _trace_all(files: Sequence[Path], tell: Callable[[str], None]) -> int:
    for module in modules():  # so that no test is said to reach what runs once, when a module is imported
        import_module(f"safemed_eval.{module}")
    for file in files:

        def child(file: Path = file) -> int:
            traces = _Traces()
            pytest.main([*_QUIET, str(file)], plugins=[traces])
            used = sorted({module for _, lines in traces.found.values() for module in lines})
            notes = {"key": _digest(file), "modules": {module: _digest(file_of(module)) for module in used}}
            (CACHE / f"{file.name}.json").write_text(json.dumps(notes | {"tests": traces.found}))
            return 0

        began = time.monotonic()
        _forked(child, 1800)
        with (CACHE / "traced").open("a") as log:
            log.write(f"{file.name} {time.monotonic() - began:.0f} s\n")
    return 0


def _kept(file: Path) -> Reach | None:
    """What is known of a test file; None if it, or a module that it runs, has changed since."""
    place = CACHE / f"{file.name}.json"
    if not place.exists():
        return None
    notes = json.loads(place.read_text())
    same = notes["key"] == _digest(file) and all(
        file_of(module).exists() and _digest(file_of(module)) == digest for module, digest in notes["modules"].items()
    )
    return notes["tests"] if same else None


@cache
def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
