"""The aim of a run's attacks: the option letter, or the text before it."""

from __future__ import annotations

from safemed_eval.report.findings.attack_sizes import facts_by_condition
from safemed_eval.report.load import LoadedRun


def aims_at_letters(run: LoadedRun) -> bool:
    """Return True where a model that writes was attacked, but never through what it writes."""
    aims = {facts.aims_at for facts in facts_by_condition(run).values() if facts.role == "attack"}
    return run.spec.writes and bool(aims) and "text" not in aims
