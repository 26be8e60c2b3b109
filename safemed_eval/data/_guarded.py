"""Images are read for the first time in processes of their own, each within a time limit.

A file that was made to hang a decoder, or that crashes one, takes its reader with it and is named; the run goes on.
What has been read so, and has the same sha256 since, is safe to decode where it is needed.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Timer

from safemed_eval.data._images import decode
from safemed_eval.errors import DataError, RunError

LIMIT_S = 60.0
"""For one image, however large; an ordinary one takes milliseconds."""

Reading = tuple[str, tuple[str, ...]] | str
"""The sha256 of a file and the notes on its decoding; or what is wrong with it."""

_MOST = 16
_WORTH_ONE = 16
"""Images that a further process is started for."""
_SERVE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from safemed_eval.data._guarded import serve; serve()"


def read_all(paths: Sequence[Path]) -> Iterator[Reading]:
    """Hash and decode each file; in the order of the paths.

    Raises:
        RunError: no process can be started.
    """
    readers = min(os.cpu_count() or 1, _MOST, 1 + len(paths) // _WORTH_ONE)
    with ThreadPoolExecutor(readers) as pool:
        yield from pool.map(_read, paths)


def _read(path: Path) -> Reading:
    try:
        reader = _idle.get_nowait()
    except Empty:
        reader = _Reader()
    found = reader.read(path)
    if reader.alive:
        _idle.put(reader)
    return found


class _Reader:
    """A process that answers a path with its reading, until its input ends."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _SERVE, json.dumps(sys.path)]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, encoding="ascii")
        except OSError as error:
            raise RunError(f"images are read in processes of their own, and none can be started: {error}") from None
        if not self._answer():
            raise RunError("images are read in processes of their own, and one that was started did not answer")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def read(self, path: Path) -> Reading:
        late = Timer(LIMIT_S, self._process.kill)
        late.start()
        with suppress(OSError):  # it may be dead already
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(str(path)) + "\n")
            self._process.stdin.flush()
        answer = self._answer()
        in_time = late.is_alive()
        late.cancel()
        if answer:
            found = json.loads(answer)
            return found if isinstance(found, str) else (found[0], tuple(found[1]))
        self.close()
        if in_time:
            return f"its decoder crashed, exit code {self._process.returncode}: {path}"
        return f"takes more than {LIMIT_S:g} s to decode: {path}"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


_idle: SimpleQueue[_Reader] = SimpleQueue()


@atexit.register
def _close_idle() -> None:
    with suppress(Empty):
        while True:
            _idle.get_nowait().close()


def serve() -> None:
    """What a reader does: a line of JSON for each path that it is given, on the output that it was started with."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a decoder prints is no answer
    warnings.simplefilter("ignore")
    for reading in _readings(sys.stdin):
        answers.write(json.dumps(reading) + "\n")
        answers.flush()


def _readings(lines: Iterable[str]) -> Iterator[Reading]:
    yield "ready"
    for line in lines:
        path = Path(json.loads(line))
        try:
            notes = decode(path).notes
            with path.open("rb") as file:
                yield hashlib.file_digest(file, "sha256").hexdigest(), notes
        except DataError as error:
            yield str(error)
        except MemoryError:
            yield f"needs more memory than there is: {path}"
        except OSError as error:
            yield f"cannot read {path}: {error.strerror or error}"
