"""Breaks the source in many small ways, and asks for each whether a test that reaches the place notices.

The libraries are loaded once. Each broken source is tried in a fork of that process, which has not yet imported the
package, by the tests that reach the line, the quickest first, up to the first that fails.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from itertools import accumulate
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
)

LONGEST_S = 5.0
"""Tests that take longer, such as simulations, are left out: what only they notice counts as survived."""
MOST_S = 40.0
"""Of tests for one change; the quickest are taken."""
_COLLECTING_S = 40.0

_SMOOTHING = ("test_smoothing.py", "test_sequential.py", "test_crosschecks.py", "test_smoothed.py", "test_falsify.py")
_ATTACKS = (
    "test_attacks.py",
    "test_suite.py",
    "test_smoothed.py",
    "test_pipeline.py",
    "test_train.py",
    "test_sanity.py",
)
_REPORT = (
    "test_pipeline.py",
    "test_crosschecks.py",
    "test_compare.py",
    "test_tables.py",
    "test_figures.py",
    "test_sequential_runs.py",
)
TARGETS: Mapping[str, Sequence[str]] = {
    "stats": ("test_stats.py", "test_crosschecks.py", "test_paired.py", "test_smoothing.py", "test_pipeline.py"),
    "rounding": ("test_stats.py", "test_tables.py"),
    "threat": ("test_threat.py", "test_attacks.py", "test_falsify.py", "test_region.py"),
    "paired": ("test_paired.py", "test_compare.py"),
    **{f"smoothing.{name}": _SMOOTHING for name in ("evidence", "sequential", "options", "votes", "certify", "noise")},
    **{
        f"attacks.{name}": _ATTACKS
        for name in ("_common.base", "_common.problem", "_common.ascent", "apgd", "fgsm", "noise", "pgd", "suite")
    },
    **{f"report.{name}": _REPORT for name in ("rows", "curves", "certificates")},
}
"""Modules, and the test files that are about them."""

Reach = dict[str, tuple[float, dict[str, list[int]]]]
"""Of each test: seconds, and the lines of each module that it ran."""


def file_of(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def sample(total: int) -> list[Break]:
    """So many changes, of each module in proportion to what there is to change; the same ones every time."""
    every = {module: breaks(file_of(module), module) for module in TARGETS}
    whole = sum(map(len, every.values()))
    return [
        one
        for found in every.values()
        for one in sorted(found, key=lambda one: one.order)[: max(4, round(total * len(found) / whole))]
    ]


def run(chosen: Iterable[Break], tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """What becomes of each change."""
    for name in LOADED:
        import_module(name)
    assert not any(name.split(".")[0] == "safemed_eval" for name in sys.modules)
    gc.freeze()  # what is loaded is not searched for garbage again in each fork
    reach: Reach = {}
    for file in dict.fromkeys(file for files in TARGETS.values() for file in files):
        reach |= _reach_of(file)
        tell(f"{file}: traced")
    for one in chosen:
        fate, by = _tried(one, reach)
        tell(f"{fate}: {one.name}{f', by {by}' if by else ''}")
        yield asdict(one) | {"name": one.name, "fate": fate, "by": by}


def _tried(one: Break, reach: Reach) -> tuple[str, str | None]:
    """ "killed", "timeout", "survived" or "unreached", and the test that failed."""
    files = TARGETS[one.module]
    there = {name: found for name, found in reach.items() if name.split("::")[0].rpartition("/")[2] in files}
    tests = [name for name, (_, lines) in there.items() if one.line in lines.get(one.module, ())]
    if not tests:  # a constant, or a default, which is set when the module is imported
        tests = [name for name, (_, lines) in there.items() if one.module in lines]
    tests = [name for name in tests if there[name][0] < LONGEST_S]
    if not tests:
        return "unreached", None
    tests.sort(key=lambda name: there[name][0])
    taken = accumulate(there[name][0] for name in tests)
    tests = [name for name, seconds in zip(tests, taken, strict=True) if seconds < MOST_S]
    limits = {name: 5 + 4 * there[name][0] for name in tests}
    note = CACHE / "failed"
    note.unlink(missing_ok=True)

    def child() -> int:
        signal.setitimer(signal.ITIMER_PROF, _COLLECTING_S)  # until the first test starts
        sys.meta_path.insert(0, _Broken(f"safemed_eval.{one.module}", file_of(one.module), one.number))
        return int(pytest.main([*_QUIET, "-x", *tests], plugins=[_Fails(note, limits)]))

    code = _forked(child, 1800)
    if code in (None, -signal.SIGPROF):
        return "timeout", None
    return ("killed", note.read_text() if note.exists() else "import") if code else ("survived", None)


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
            import hypothesis

            hypothesis.settings.register_profile(
                "torture",
                database=None,
                derandomize=True,
                deadline=None,
                phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
            )
            hypothesis.settings.load_profile("torture")
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
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def get_code(self, name: str) -> CodeType:
        return compile(broken(Path(self.path), self._number), self.path, "exec")


class _Fails:
    """Notes the test that failed, and ends the process in one that does not come to an end."""

    def __init__(self, note: Path, limits: Mapping[str, float]) -> None:
        self._note, self._limits = note, limits

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        signal.setitimer(signal.ITIMER_PROF, self._limits.get(nodeid, 60.0))  # of processor time

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._note.write_text(report.nodeid)


class _Traces:
    """Notes which lines of the modules each test runs, and the processor time it takes."""

    def __init__(self) -> None:
        self.found: Reach = {}
        self._files = {str(file_of(module)): module for module in TARGETS}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        lines: dict[str, set[int]] = defaultdict(set)

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            module = self._files.get(frame.f_code.co_filename)
            if module is None:
                return None
            note = lines[module].add

            def each(frame: FrameType, event: str, argument: Any) -> Any:
                note(frame.f_lineno)
                return each

            return each

        began = time.process_time()
        sys.settrace(trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.found[item.nodeid] = time.process_time() - began, {name: sorted(some) for name, some in lines.items()}


def _reach_of(file: str) -> Reach:
    """What the tests of a file run; kept as long as neither it nor any of the modules changes."""
    sources = [TESTS / file, *map(file_of, TARGETS)]
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    kept = CACHE / f"{file}-{key}.json"
    if not kept.exists():

        def child() -> int:
            for module in TARGETS:  # so that no test is said to reach what runs once, when a module is imported
                import_module(f"safemed_eval.{module}")
            traces = _Traces()
            code = int(pytest.main([*_QUIET, str(TESTS / file)], plugins=[traces]))
            kept.write_text(json.dumps(traces.found))
            return code

        if code := _forked(child, 1800):
            kept.unlink(missing_ok=True)
            raise RuntimeError(f"{file} fails on the source as it is ({code}); see {CACHE / 'log'}")
    found: Reach = json.loads(kept.read_text())
    return found
