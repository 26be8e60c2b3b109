"""reports/torture/README.md from the results beside it. No number is typed by hand."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from torture._breaks import NOTICED, REASONS, breaks
from torture.kills import SIGNALS, Training, Trial, trial_of
from torture.mutants import MUTANTS, file_of, modules, sample

ENOUGH = 0.95

_TEXT = """# Torture

Written by `make torture` from the results beside it.

## Commands that were killed

At moments drawn by a seed, then started again until done. Records are compared with those of an undisturbed run in one
process: in one process all but `seconds` must be equal, under Ray in any order and up to the last bits of floats. A
torn line is half a record that is added after a kill, as a machine that fails leaves it.

{kills}

{kills_total}

Trainings, killed after their first save, against one that was not:

{trainings}

## Other faults

{faults}

## Bad input

Images, data files, checkpoints, command lines, run folders, and calls of the Python API, that are broken, hostile or
merely strange. Each must be
told in one line (or a list) that names the thing and what to do, with exit code 2, no traceback, and nothing left
behind; what is only strange must work.

{bad}

{bad_total}

## Mutants

Small changes of the source (comparisons, signs, operators, constants, bounds that change sides, nothing returned, a
line left out), but for messages and looks. A sample is drawn by their hash from all modules, {sampled} of {whole};
each is tried by the quickest tests that reach its function, for some seconds. Of {tried} that were tried,
{noticed} were noticed, {raw} %; {harmless} more do no harm, for the reasons below. Of the others {share} % were
noticed; at least {enough} % are wanted. Tests have been written for changes of this very sample, so that
of changes that nobody has looked at fewer are noticed: `benchmarks/LOG.md` has a sample of such.

{mutants}

What no test noticed:

{survivors}
"""


def write(place: Path) -> None:
    """README.md in this folder.

    Raises:
        ValueError: something was lost, a fault was not survived, or too many mutants were.
    """
    kills, faults, bad, mutants = (
        json.loads((place / f"{name}.json").read_text()) for name in ("kills", "faults", "bad", "mutants")
    )
    trials = [trial_of(one) for one in kills["trials"]]
    trainings = [Training(**one) for one in kills["trainings"]]
    reasons = json.loads(REASONS.read_text())
    killed = [one for one in mutants if one["fate"] in NOTICED]
    left = [one for one in mutants if one not in killed]
    open_ = [one for one in left if one["name"] not in reasons]
    share = len(killed) / (len(killed) + len(open_))
    text = _TEXT.format(
        kills=_kills(trials),
        kills_total=_kills_total(trials),
        trainings=_trainings(trainings),
        faults=_faults(faults),
        bad=_table(list(bad[0]), [list(row.values()) for row in bad]),
        bad_total=_bad_total(bad),
        sampled=len(sample(MUTANTS)),
        whole=f"{sum(len(breaks(file_of(module), module)) for module in modules()):,}",
        tried=len(mutants),
        noticed=len(killed),
        raw=f"{100 * len(killed) / len(mutants):.1f}",
        harmless=len(left) - len(open_),
        share=f"{100 * share:.1f}",
        enough=f"{100 * ENOUGH:.0f}",
        mutants=_mutants(mutants),
        survivors="\n".join(f"- `{one['name']}`: {reasons.get(one['name'], 'a test is missing')}" for one in left)
        or "None.",
    )
    (place / "README.md").write_text(text)
    wrong: list[object] = [one for one in (*trials, *trainings) if not one.survived]
    wrong += [one for one in bad if one["tracebacks"] or one["other faults"]]
    wrong += [one for one in faults if one["outcome"] == "failed"]
    if wrong:
        raise ValueError(f"not survived: {wrong}")
    if share < ENOUGH or len(mutants) < len(sample(MUTANTS)):
        raise ValueError(f"{len(open_)} of {len(mutants)} mutants are left, {len(sample(MUTANTS))} are to be tried")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    return tabulate(rows, headers=head, tablefmt="github", disable_numparse=True)


def _kills(trials: Sequence[Trial]) -> str:
    head = ["command", "kills", *(how.name for how in SIGNALS), "while starting", "torn lines", "records"]
    head += ["missing", "twice", "different", "lost", "torn and unsaid", "processes left", "of Ray's agents"]
    by: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        by[trial.command].append(trial)
    rows = []
    for command, some in by.items():
        kills = [kill for trial in some for kill in trial.kills]
        row: list[object] = [command, len(kills), *(sum(kill.signal == how.name for kill in kills) for how in SIGNALS)]
        row += [sum(kill.when == "starting" for kill in kills), sum(kill.torn for kill in kills)]
        row += [sum(getattr(trial, name) for trial in some) for name in _COUNTED]
        agents = sum(kill.agents for kill in kills)
        rows.append([*row, sum(len(kill.left) for kill in kills) - agents, agents])
    return _table(head, rows)


_COUNTED = ("records", "missing", "twice", "different", "lost", "unsaid")


def _kills_total(trials: Sequence[Trial]) -> str:
    kills = [kill for trial in trials for kill in trial.kills]
    lost, tracebacks = sum(trial.missing + trial.lost for trial in trials), sum(kill.traceback for kill in kills)
    ends = Counter(f"{kill.signal} {kill.exit}" for kill in kills)
    codes = ", ".join(f"{name} ({count})" for name, count in sorted(ends.items()))
    return f"Kills {len(kills)}, items lost {lost}, tracebacks {tracebacks}. Exit codes: {codes}."


def _trainings(trainings: Sequence[Training]) -> str:
    head = ["signal", "exit", "last step", "last saved step", "went on from there", "same losses in the end"]
    rows = [[one.signal, one.exit, one.reached, one.saved, _yes(one.went_on), _yes(one.same)] for one in trainings]
    return _table(head, rows)


def _faults(faults: Sequence[Mapping[str, Any]]) -> str:
    found = Counter(one["outcome"] for one in faults)
    line = f"Tried {len(faults)}, survived {found['passed']}, skipped on this machine {found['skipped']}."
    return line + "\n\n" + "\n".join(f"- {one['name']}: {one['outcome']}" for one in faults)


def _bad_total(bad: Sequence[Mapping[str, Any]]) -> str:
    tried, tracebacks, other = (sum(row[name] for row in bad) for name in ("tried", "tracebacks", "other faults"))
    return f"Tried {tried}, tracebacks {tracebacks}, otherwise not as it must be {other}."


def _mutants(mutants: Sequence[Mapping[str, Any]]) -> str:
    by: dict[str, Counter[str]] = defaultdict(Counter)
    for one in mutants:
        by[one["module"].split(".")[0]][one["fate"]] += 1
    fates = ("killed", "timeout", "survived", "unreached")
    rows = [[module, sum(counts.values()), *(counts[fate] for fate in fates)] for module, counts in sorted(by.items())]
    return _table(["part of the package", "mutants", "a test failed", "no end", "survived", "not reached"], rows)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
