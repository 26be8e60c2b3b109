"""The corpus of bad input: one clear line, exit code 2, no traceback, nothing left behind, and soon."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad import CASES
from bad.case import Case, called, faults

from safemed_eval import models


def test_the_corpus_is_large_and_its_names_differ() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 200


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_bad_input(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.early:
        for name in ("load", "load_to_train"):
            monkeypatch.setattr(models, name, _reached)
    case.make(tmp_path)
    found = called(case.argv, tmp_path)
    assert faults(case, found) == [], found.err + found.out


def _reached(*_: object, **__: object) -> None:
    raise AssertionError("a model is loaded before the error is told")
