"""Reads images for the first time in other processes, each within a time limit.

A file that hangs or crashes its decoder ends only that process, and is reported; the run goes on. A file that was read
in this way, and still has its recorded hash, is safe to decode anywhere.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Timer

from safemed_eval.data.images.paths import Place
from safemed_eval.errors import DataError, RunError

LIMIT_S = 60.0
"""Time limit for one file; an ordinary image takes milliseconds."""

Outcome = tuple[object, str | None]
"""The result for a file and None; or None and the reason why there is none."""

_MOST = 16
_WORTH_ONE = 16
"""Number of files per process that is started."""
_SERVE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from safemed_eval.data.images.guarded import serve; serve()"
)


def guarded(work: str, places: Sequence[Place]) -> Iterator[Outcome]:
    """Run `work` on each image in other processes; yield the outcomes in the order of the images.

    Args:
        work: "module:function", which maps a Place to JSON values. A DataError that it raises is the outcome.
    Raises:
        RunError: no process can be started.
    """
    workers = min(os.cpu_count() or 1, _MOST, 1 + len(places) // _WORTH_ONE)
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(partial(_done, work), places)


def _done(work: str, place: Place) -> Outcome:
    try:
        worker = _idle.get_nowait()
    except Empty:
        worker = _Worker()
    outcome = worker.do(work, place)
    if worker.alive:
        _idle.put(worker)
    return outcome


class _Worker:
    """A process that reads images until its input ends."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _SERVE, json.dumps(sys.path)]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, encoding="ascii")
        except OSError as error:
            raise RunError(f"images are read in processes of their own, and none can be started: {error}") from None
        self._expired = False
        if not self._answer():
            self.close()
            raise RunError("images are read in processes of their own, and one that was started did not answer")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def do(self, work: str, place: Place) -> Outcome:
        file, frame = place
        timer = Timer(LIMIT_S, self._expire)
        timer.start()
        with suppress(OSError):  # the process may have ended already
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps([work, str(file), frame]) + "\n")
            self._process.stdin.flush()
        answer = self._answer()
        timer.cancel()
        timer.join()
        if self._expired or not answer:  # it may have answered just before it was killed
            self.close()
        if answer:
            result, problem = json.loads(answer)
            return result, problem
        if self._expired:
            return None, f"takes more than {LIMIT_S:g} s to decode: {file}"
        return None, f"its decoder crashed, exit code {self._process.returncode}: {file}"

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


_idle: SimpleQueue[_Worker] = SimpleQueue()


@atexit.register
def _close_idle() -> None:
    with suppress(Empty):
        while True:
            _idle.get_nowait().close()


def serve() -> None:
    """Body of a worker: answer each line of input with a line of JSON, on the standard output it was started with."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # keeps what a decoder prints out of the answers
    warnings.simplefilter("ignore")
    for outcome in _outcomes(sys.stdin):
        answers.write(json.dumps(outcome) + "\n")
        answers.flush()


def _outcomes(lines: Iterable[str]) -> Iterator[Outcome]:
    yield "ready", None
    for line in lines:
        work, file, frame = json.loads(line)
        module, _, name = work.partition(":")
        try:
            yield getattr(import_module(module), name)(Place(Path(file), frame)), None
        except DataError as error:
            yield None, str(error)
        except MemoryError:
            yield None, f"needs more memory than there is: {file}"
        except OSError as error:
            yield None, f"cannot read {file}: {error.strerror or error}"
