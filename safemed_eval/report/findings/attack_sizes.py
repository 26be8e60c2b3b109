"""The attacks of a run that have a size, and which of them are one curve."""

from __future__ import annotations

from dataclasses import dataclass

from safemed_eval import grammar
from safemed_eval.report.load import LoadedRun

HUGE_EPS = 0.5
"""From this L-infinity eps on the balls of all images share mid-grey: an item that never flips is image-blind."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One attack of a run. Those of one family and norm differ in eps only."""

    condition: str
    family: str
    norm: str
    eps: float
    black_box: bool
    """Whether it asks for answers only, or climbs the gradient of another model."""

    @property
    def is_huge(self) -> bool:
        """Whether the balls of all images meet: this tests the attack, not the model."""
        return self.norm == "linf" and self.eps >= HUGE_EPS


def shots(run: LoadedRun) -> list[Shot]:
    """The attacks of a run that have an eps."""
    found = []
    for condition in run.conditions:
        attack = run.spec["attacks"].get(condition, {})
        if attack.get("eps") is not None:
            name, pairs = grammar.split(condition)
            rest = grammar.parts({key: value for key, value in pairs.items() if key not in ("eps", "norm")})
            family = f"{name}:{','.join(rest)}".rstrip(":")
            found.append(
                Shot(
                    condition=condition,
                    family=family,
                    norm=attack.get("norm", "linf"),
                    eps=float(attack["eps"]),
                    black_box=name == "transfer" or attack.get("needs_gradients") is False,
                )
            )
    return found
