"""The corpus of bad input: one clear line, exit code 2, no traceback, nothing left behind, and soon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bad import CASES, tally
from bad.case import SOON, Case, called, evaluated, faults, met, seconds_of_a_good_run


def test_the_corpus_is_large_and_its_names_differ() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 1000


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_bad_input(case: Case, tmp_path: Path) -> None:
    found = met(case, tmp_path)
    assert faults(case, found) == [], found.err + found.out


def test_the_corpus_sees_what_is_wrong(tmp_path: Path) -> None:
    """An answer that does not name the thing, a model that is loaded, a file that is left."""
    good = Case(name="x", argv=evaluated(data="phantom:images=1"), says=("at least",))
    assert faults(good, met(good, tmp_path)) == [
        "traceback: AssertionError: a model is loaded before the error is told"
    ]
    wrong = Case(name="y", argv=("data", "export", "phantom:images=1", "made"), says=("phantom",))
    found = faults(wrong, met(wrong, tmp_path))
    assert any("leaves made" in fault for fault in found) and any("exit code 0, not 2" in fault for fault in found)
    silent = Case(name="z", argv=evaluated(data="table:gone.csv"), says=("missing words",))
    found = met(silent, tmp_path)
    assert faults(silent, found) == ["does not say 'missing words'"]
    slow = replace(found, seconds=(SOON + 1) * seconds_of_a_good_run())
    assert faults(silent, slow)[1].startswith("took ")


def test_help_is_shown_where_nothing_is_asked(tmp_path: Path) -> None:
    for argv in ((), ("train",), ("data",), ("models",)):
        found = called(argv, tmp_path)
        assert found.crash is None and (found.code, found.err) == (2, "") and "Usage" in found.out
    assert called(("--version",), tmp_path).code == called(("certify", "--help"), tmp_path).code == 0


def test_the_tally_counts_every_case_once() -> None:
    few = CASES[:2] + CASES[-2:]
    rows = tally(few)
    assert sum(row["tried"] for row in rows) == 4 and all(row["tracebacks"] == row["other faults"] == 0 for row in rows)
