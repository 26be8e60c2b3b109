"""python -m torture kills|faults|bad|mutants|table; all of it without a name."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
REPORT = TESTS.parent / "reports" / "torture"
FAULTS = ("test_faults.py", "test_runs.py", "test_kills.py", "test_workers.py")
NO_FAULTS = (
    "kept_and_found",
    "names_are",
    "last_bits",
    "skipping_ahead",
    "how_many",
    "examples_name",
    "who_made_them",
    "know_names",
)
"""Parts of the names of tests in these files that put nothing in the way of a run."""
KILLS = 112


def main(*wanted: str) -> None:
    steps = {"kills": _kills, "faults": _faults, "bad": _bad, "mutants": _mutants, "table": _table}
    for name in wanted or steps:
        steps[name]()


def _kills() -> None:
    """Kill commands; those of earlier calls count, so that an end before the last of them loses nothing."""
    from conftest import draw_table

    from torture import kills

    before = json.loads((REPORT / "kills.json").read_text()) if (REPORT / "kills.json").exists() else {}
    trials = [kills.trial_of(trial) for trial in before.get("trials", [])]
    trainings = before.get("trainings", [])
    with tempfile.TemporaryDirectory() as place:
        table = draw_table(Path(place) / "data", rows=24)
        for trial in kills.run(Path(place), table, tuple(trials), each=KILLS):
            trials.append(trial)
            print(f"{trial.command}: {len(trial.kills)} kills, {'survived' if trial.survived else trial}", flush=True)
            _write("kills", {"trials": [asdict(trial) for trial in trials], "trainings": trainings})
        if not trainings:
            trainings = [asdict(training) for training in kills.run_trainings(Path(place))]
            _write("kills", {"trials": [asdict(trial) for trial in trials], "trainings": trainings})


def _faults() -> None:
    """The tests of what machines do to a run, by name."""
    import pytest

    found: dict[str, str] = {}

    class Noted:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
            if report.when == "call" or report.outcome != "passed":
                found[name] = report.outcome

    files = [str(TESTS / file) for file in FAULTS]
    quiet = ["-q", "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plug-ins that the kills have imported
    every = ["-m", "slow or not slow"]
    pytest.main([*quiet, *every, "-k", f"not ({' or '.join(NO_FAULTS)})", *files], plugins=[Noted()])
    _write("faults", [{"name": name, "outcome": outcome} for name, outcome in found.items()])


def _bad() -> None:
    from bad import tally

    _write("bad", tally())


def _mutants() -> None:
    """Try a sample of the changes; those that a test has noticed before, or that do no harm, are not tried again."""
    from torture import mutants
    from torture._breaks import NOTICED, REASONS

    before = json.loads((REPORT / "mutants.json").read_text()) if (REPORT / "mutants.json").exists() else []
    found = {result["name"]: result for result in before}
    known = {name for name, result in found.items() if result["fate"] in NOTICED}
    known |= json.loads(REASONS.read_text()).keys() & found.keys()
    chosen = mutants.sample(mutants.MUTANTS)
    left = [change for change in chosen if change.name not in known]
    left.sort(key=lambda change: change.name in found)
    for result in mutants.run(left, lambda line: print(line, flush=True)):
        found[result["name"]] = result
        _write("mutants", [found[change.name] for change in chosen if change.name in found])
    mutants.load()
    if wrong := mutants.control({result["by"] for result in found.values() if "::" in (result["by"] or "")}):
        _write("mutants", [result for result in found.values() if result["by"] not in wrong])
        raise RuntimeError(f"these fail on the source as it is, start again: {wrong}")


def _table() -> None:
    from torture import table

    table.write(REPORT)


def _write(name: str, found: object) -> None:
    REPORT.mkdir(exist_ok=True)
    (REPORT / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
