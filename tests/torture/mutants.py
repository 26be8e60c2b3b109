"""Change the source in many small ways, and find out for each change whether a test that reaches the place fails.

The libraries, the package and the test files are loaded once, and each change is tried in a fork of that process: the
code of the changed function is put in place there. What runs only when a module is imported, such as a constant, is
tried in a fork of a process that has not yet imported the package.
"""

from __future__ import annotations

import gc
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
from types import CodeType, FunctionType
from typing import Any

import pytest

from torture import reach
from torture._breaks import Break, breaks, broken
from torture.reach import Reach

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
MUTANTS = 250
"""Changes to be drawn in proportion to what modules hold: with one at least of each they are some 400."""
MOST_S = 10.0
"""Seconds of tests for one change."""
LEFT_OUT = frozenset(
    f"test_{name}.py"
    for name in (
        *("architecture", "docs", "kills", "notebook", "offline", "page", "plugin", "processes", "workers"),
        *("answer_texts", "conformance", "faults"),
    )
)
"""Test files that read the source, start processes or a browser, or repeat one check on many texts and models."""
CORE = ("stats", "rounding", "threat", "paired", "smoothing", "attacks._common", "attacks.apgd", "attacks.pgd")
"""Modules that compute the numbers of a certificate or an attack: at least three changes of each are tried."""
_FEW = 3
"""Test files that are collected at a time."""


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


def run(chosen: Sequence[Break], tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Try each change, and yield what became of it."""
    load()
    notes = noted()
    place = CACHE / "fates"
    place.unlink(missing_ok=True)
    inside = [change for change in chosen if _codes_of(change)]
    pid = os.fork()
    if not pid:  # the process that has loaded the package and the tests as well
        _quietly(lambda: _try_inside(inside, notes, place))
    yield from _told(inside, place, pid, tell)
    for change in chosen:
        if change not in inside:
            began = time.monotonic()
            fate, by = _tried(change, notes, {})
            tell(f"{fate}: {change.name}{f', by {by}' if by else ''} ({time.monotonic() - began:.0f} s)")
            yield _result(change, fate, by)


def _result(change: Break, fate: str, by: str | None) -> dict[str, Any]:
    return asdict(change) | {"name": change.name, "fate": fate, "by": by}


def _try_inside(chosen: Sequence[Break], notes: Reach, place: Path) -> int:
    _load_all([TESTS / file for file in sorted({_file(name) for name in notes})])
    functions = _functions_of_the_package()
    gc.collect()
    gc.freeze()
    for change in chosen:
        began = time.monotonic()
        fate, by = _tried(change, notes, functions)
        with place.open("a") as file:
            file.write(json.dumps([fate, by, round(time.monotonic() - began)]) + "\n")
    return 0


def _told(chosen: Sequence[Break], place: Path, pid: int, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the results that another process writes into a file, as they come."""
    done = 0
    while done < len(chosen):
        lines = place.read_text().splitlines() if place.exists() else []
        for line in lines[done:]:
            (fate, by, seconds), change = json.loads(line), chosen[done]
            tell(f"{fate}: {change.name}{f', by {by}' if by else ''} ({seconds} s)")
            yield _result(change, fate, by)
            done += 1
        if done < len(chosen):
            if os.waitpid(pid, os.WNOHANG)[0]:
                raise RuntimeError(f"the process that tries changes has ended; see {CACHE / 'log'}")
            time.sleep(0.2)
    os.waitpid(pid, 0)


def load() -> None:
    """Import the libraries, and nothing of the package."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in LOADED:
        import_module(name)
    assert not any(name.split(".")[0] == "safemed_eval" for name in sys.modules)
    gc.freeze()  # what is loaded is not searched for garbage again in each fork
    CACHE.mkdir(parents=True, exist_ok=True)


def _load_all(files: Sequence[Path]) -> None:
    """Import the package and these test files."""
    for module in modules():
        import_module(f"safemed_eval.{module}")
    pytest.main([*_QUIET, "--collect-only", *map(str, files)])


def control(tests: Iterable[str]) -> list[str]:
    """Those of these tests that fail on the source as it is: what they noticed does not count."""
    by: dict[str, list[str]] = defaultdict(list)
    for name in tests:
        by[_file(name)].append(name)
    note, wrong = CACHE / "failed", []
    for file, names in by.items():
        while names:
            note.unlink(missing_ok=True)
            if not _forked(partial(_main, [file], _Chosen(names, note, {})), 900):
                break
            failed = note.read_text() if note.exists() else names[0]
            wrong.append(failed)
            names = [name for name in names if name != failed]
    return wrong


def noted() -> Reach:
    """Which functions each test runs; see `reach`."""
    files = [file for file in sorted(TESTS.glob("test_*.py")) if file.name not in LEFT_OUT]
    found, left = reach.known(files, CACHE)
    if left:
        _forked(lambda: _note_all(left), 6 * 3600)
        found, left = reach.known(files, CACHE)
    return found


def _note_all(files: Sequence[Path]) -> int:
    reach.install(PACKAGE)
    _load_all(files)
    gc.collect()
    gc.freeze()
    for file in files:

        def child(file: Path = file) -> int:
            notes = reach.Notes()
            pytest.main([*_QUIET, str(file)], plugins=[notes])
            reach.place_of(file, CACHE).write_text(json.dumps(notes.found))
            return 0

        began = time.monotonic()
        _forked(child, 1800)
        with (CACHE / "noted").open("a") as log:
            log.write(f"{file.name} {time.monotonic() - began:.0f} s\n")
    return 0


def _file(test: str) -> str:
    return test.split("::")[0].rpartition("/")[2]


Functions = Mapping[tuple[str, str, int], Sequence[FunctionType]]
"""The functions of the package that there are, by file, qualified name and first line."""


def _functions_of_the_package() -> Functions:
    found: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
    gc.unfreeze()
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename.startswith(str(PACKAGE)):
            code = thing.__code__
            found[code.co_filename, code.co_qualname, code.co_firstlineno].append(thing)
    return found


def _codes_of(change: Break) -> dict[tuple[str, str, int], CodeType]:
    """The functions that the change changes, as they are then; none if it is outside of functions."""
    file = file_of(change.module)
    before = _codes_in(compile(file.read_text(encoding="utf-8"), str(file), "exec"))
    after = _codes_in(compile(broken(file, change.number), str(file), "exec"))
    return {key: code for key, code in after.items() if code != before.get(key)}


def _codes_in(code: CodeType) -> dict[tuple[str, str, int], CodeType]:
    found = {}
    for part in code.co_consts:
        if isinstance(part, CodeType):
            if part.co_flags & 0x2:  # of a function: its locals are fast ones, those of a class are not
                found[part.co_filename, part.co_qualname, part.co_firstlineno] = part
            found |= _codes_in(part)
    return found


def _tried(change: Break, notes: Reach, functions: Functions) -> tuple[str, str | None]:
    """ "killed", "timeout", "survived" or "unreached", and the test that failed."""
    name = f"{change.module}:{change.where}"
    tests = [test for test, (_, names) in notes.items() if name in names]
    if not tests:  # a constant, or a class, whose functions' names start with its own
        tests = [test for test, (_, names) in notes.items() if any(known.startswith(f"{name}.") for known in names)]
    if not tests and not functions:
        tests = [
            test for test, (_, names) in notes.items() if any(known.startswith(f"{change.module}:") for known in names)
        ]
    if not tests:
        return "unreached", None
    note = CACHE / "failed"
    note.unlink(missing_ok=True)
    groups = _groups(tests, notes)

    def child() -> int:
        if functions:
            for key, code in _codes_of(change).items():
                for function in functions.get(key, ()):
                    function.__code__ = code
        else:
            sys.meta_path.insert(0, _Broken(f"safemed_eval.{change.module}", file_of(change.module), change.number))
        for files, names in groups:
            signal.setitimer(signal.ITIMER_PROF, 60)  # until the first test starts
            if code := _main(files, _Chosen(names, note, {name: 10 + 5 * notes[name][0] for name in names})):
                return code
        return 0

    code = _forked(child, 600)
    if code in (None, -signal.SIGPROF):
        return "timeout", None
    return ("killed", note.read_text() if note.exists() else "import") if code else ("survived", None)


def _groups(tests: Sequence[str], notes: Reach) -> list[tuple[list[str], list[str]]]:
    """Test files, some at a time, and which of their tests to run: those first that run the fewest functions."""
    here = defaultdict(list)
    for name in sorted(tests, key=lambda name: (len(notes[name][1]), notes[name][0])):
        here[_file(name)].append(name)
    files = list(here)  # in the order of their narrowest tests
    groups, left = [], MOST_S
    while files and left > 0:
        few, files = files[:_FEW], files[_FEW:]
        chosen: list[str] = []
        for file in few:
            share = left / 2  # so that no file takes all of it
            for name in here[file]:
                share -= notes[name][0]
                if share < 0 and chosen:
                    break
                chosen.append(name)
                left -= notes[name][0]
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
        _quietly(work)
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _quietly(work: Callable[[], int]) -> None:
    """Do the work in this process, whose output goes to a file, and end it with the exit code."""
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


class _Broken(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports one module of the package with a change in it."""

    def __init__(self, name: str, file: Path, number: int) -> None:
        super().__init__(name, str(file))
        self._number = number

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        folder = [str(Path(self.path).parent)] if self.path.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(name, self.path, loader=self, submodule_search_locations=folder)

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
