"""One verdict on the attacks of a run: can accuracy under them be believed?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Word = Literal["believe", "do not believe", "not enough"]


class Answered(Protocol):
    """A question about an attack with its answer: a `Check` of the checklist, or a finding of `models check`."""

    @property
    def name(self) -> str: ...

    @property
    def status(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether attacks can be believed.

    Attributes:
        verdict: "do not believe" where a check fails; "not enough" where one warns, or where nothing proves what must
            be proved; else "believe".
        reasons: the names of the checks that decided it.
    """

    verdict: Word
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        meaning = {"believe": "passed", "do not believe": "failed", "not enough": "open"}[self.verdict]
        return f"{self.verdict} ({meaning}: {'; '.join(self.reasons)})"


def verdict_on(checks: Iterable[Answered], proofs: Sequence[Sequence[str]]) -> Verdict:
    """Weigh the answers.

    Args:
        proofs: what must be proved: of each group of names at least one must pass.
    """
    by_status: dict[str, list[str]] = {}
    for check in checks:
        by_status.setdefault(check.status, []).append(check.name)
    passed = set(by_status.get("pass", ()))
    if failed := by_status.get("fail"):
        return Verdict(verdict="do not believe", reasons=tuple(failed))
    unproved = [" or ".join(group) for group in proofs if not passed & set(group)]
    if doubts := (*by_status.get("warn", ()), *(names for names in unproved if names not in by_status.get("warn", ()))):
        return Verdict(verdict="not enough", reasons=doubts)
    return Verdict(verdict="believe", reasons=tuple(name for group in proofs for name in group if name in passed))
