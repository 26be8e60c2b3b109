"""One piece of input, and how `main` is called on it in this process."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest

from safemed_eval import models
from safemed_eval.cli import main
from safemed_eval.errors import UserError
from safemed_eval.models import model as model_module

Make = Callable[[Path], object]

TOY = "python:safemed_eval.models.toy:brightness"
SOON = 60
"""How much longer than a good run of two small images an answer may take."""


def nothing(folder: Path) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: a command line, or a call of the Python API.

    Args:
        name: of the test.
        argv: the command line; paths are relative to the folder.
        call: the call, instead of a command line.
        says: words that the answer must hold: the thing, what is wrong with it, the mend.
        make: puts files into the folder, from which the command is called.
        code: 2, or what a good input gives.
        early: told before any model is loaded, and so before torch is needed.
    """

    name: str
    argv: tuple[str, ...]
    says: tuple[str, ...]
    make: Make = nothing
    code: int = 2
    early: bool = True
    call: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str
    new: list[str]
    """Files that were not there before."""
    warned: list[str]
    """Warnings of libraries, which a user would see on stderr."""
    seconds: float
    """Of work: how long it waits is the machine's affair."""
    crash: BaseException | None
    """What came out of `main` and is no exit: a traceback, for a user."""


def called(argv: tuple[str, ...], folder: Path, work: Callable[[], object] = main) -> Answer:
    """Do the work from within `folder`: `main`, with these arguments, as the command line does, or a call.

    What a call raises for the user to fix is shown as the command line would show it.
    """
    before, out, err = _files(folder), io.StringIO(), io.StringIO()
    crash, code, started = None, 0, time.process_time()
    with _at(folder, argv), redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        try:
            work()
        except SystemExit as end:
            code = int(end.code or 0)
        except UserError as error:
            code = 2
            err.write(f"error: {error}\n")
        except BaseException as error:
            crash = error
    seconds = time.process_time() - started
    new = sorted(_files(folder) - before)
    warned = [f"{one.category.__name__}: {one.message}" for one in said]
    return Answer(
        code=code, out=out.getvalue(), err=err.getvalue(), new=new, warned=warned, seconds=seconds, crash=crash
    )


def met(case: Case, folder: Path) -> Answer:
    """What the command of a case leaves behind, in a folder with its files; where it is told early, no model loads."""
    with pytest.MonkeyPatch.context() as patch:
        if case.early:
            patch.setattr(models, "load", _reached)
            patch.setattr(models, "load_to_train", _reached)
            patch.setattr(model_module, "load_plain", _reached)
        case.make(folder)
        if case.call is None:
            return called(case.argv, folder)
        from bad.calls import call

        return called((), folder, partial(call, case.call))


def _reached(*_: object, **__: object) -> None:
    raise AssertionError("a model is loaded before the error is told")


def faults(case: Case, found: Answer) -> list[str]:
    """Everything in which an answer breaks the contract; none where it keeps it."""
    said = found.err if case.code == 2 else found.out + found.err
    wrong = [f"does not say {word!r}" for word in case.says if _words(word) not in _words(said)]
    if found.crash is not None:
        return [f"traceback: {type(found.crash).__name__}: {str(found.crash)[:300]}"]
    if found.code != case.code:
        wrong.append(f"exit code {found.code}, not {case.code}")
    if found.seconds > SOON * seconds_of_a_good_run():
        wrong.append(f"took {found.seconds:.1f} s")
    if found.warned:
        wrong.append(f"warns: {found.warned[0]}")
    if "Traceback" in said:
        wrong.append("shows a traceback")
    if case.code == 2:
        first, *rest = found.err.removesuffix("\n").split("\n")
        if not first.startswith("error: ") or any(not line.startswith("  ") for line in rest):
            wrong.append("is no line, nor a line with a list below it")
        if len(found.err) > 3000:
            wrong.append(f"is {len(found.err)} characters long")
        if not all(c.isprintable() or c == "\n" for c in found.err):
            wrong.append("steers the terminal")
        if found.out:
            wrong.append("prints to stdout")
        if found.new:
            wrong.append(f"leaves {found.new[0]}")
    return wrong


@cache
def seconds_of_a_good_run() -> float:
    """Processor time that this machine takes for it, once everything is imported."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        runs = [called(evaluated(data="phantom:images=2"), Path(folder)) for folder in (first, second)]
    assert [run.code for run in runs] == [0, 0]
    return runs[1].seconds


def _words(text: str) -> str:
    """Without the places where a terminal broke the line."""
    return " ".join(text.split())


def _files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if "__pycache__" not in file.parts}


@contextmanager
def _at(folder: Path, argv: tuple[str, ...]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["safemed-eval", *argv])
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr("signal.signal", lambda *_: None)
        environment = dict(os.environ)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(environment)


def evaluated(*argv: str, data: str = "table:t.csv", model: str = TOY) -> tuple[str, ...]:
    """`evaluate` on a model that needs no files, unless the arguments say otherwise."""
    given = {"--model": model, "--data": data, "--out": "run"}
    return ("evaluate", *(part for key, value in given.items() if key not in argv for part in (key, value)), *argv)


def certified(*argv: str, data: str = "phantom:images=2", model: str = TOY) -> tuple[str, ...]:
    """`certify`, likewise; sigma is for the caller to give."""
    return ("certify", *evaluated(*argv, data=data, model=model)[1:])


def described(data: str = "table:t.csv") -> tuple[str, ...]:
    return ("data", "describe", data)


def row(**changes: object) -> dict[str, object]:
    """A good row of a table; None takes a column out, and `options` stand in for option_a and option_b."""
    whole: Mapping[str, object] = {
        "id": "q1",
        "image": "x.png",
        "question": "What is shown?",
        "option_a": "a lung",
        "option_b": "a liver",
        "answer": "a liver",
    }
    kept = {key: value for key, value in whole.items() if not ("options" in changes and key.startswith("option_"))}
    return {key: value for key, value in {**kept, **changes}.items() if value is not None}


def root() -> bool:
    """Whether this process may read everything, so that permissions cannot be tested."""
    return os.geteuid() == 0
