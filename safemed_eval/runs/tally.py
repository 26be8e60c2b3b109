"""What came of the planted test of an attack, and what it says; see `runs.work.planted`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from annotated_types import Ge

from safemed_eval import stats

Outcome = Literal["found", "missed", "random", "unfit", "failed"]
"""One image: the attack found the planted region, or missed it; random search found it, too; no readout separates the
points; the model failed."""
Status = Literal["pass", "warn", "fail", "n/a"]

WORKS = 0.95
"""Share of the images in which an attack that works finds the planted region."""
ENOUGH = 5
"""Fewer images that say something decide nothing."""
LEVEL = 0.05
"""The largest probability that an attack fails by chance, although it finds the share WORKS of all regions."""

Count = Annotated[int, Ge(0)]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The images of one attack's planted test, counted by outcome."""

    attack: str
    found: Count
    missed: Count
    random: Count
    unfit: Count
    failed: Count

    @classmethod
    def of(cls, attack: str, outcomes: Iterable[Outcome]) -> Self:
        """Count the outcomes of an attack."""
        counts = Counter(outcomes)
        return cls(
            attack=attack,
            found=counts["found"],
            missed=counts["missed"],
            random=counts["random"],
            unfit=counts["unfit"],
            failed=counts["failed"],
        )

    @property
    def told(self) -> int:
        """Images that say something: a region was planted, and random search did not find it."""
        return self.found + self.missed

    @property
    def status(self) -> Status:
        """Compare the share found with WORKS: "warn" is below it, but not by more than chance explains."""
        if self.told < ENOUGH:
            return "n/a"
        if self.found >= WORKS * self.told:
            return "pass"
        return "fail" if stats.clopper_pearson_upper(self.found, self.told, LEVEL) < WORKS else "warn"

    def __str__(self) -> str:
        tried = self.told + self.random
        text = (
            f"{self.attack} finds it in {self.found} of {self.told} images; random search in {self.random} of {tried}"
        )
        text += f"; {self.unfit} where none could be planted" if self.unfit else ""
        text += f"; {self.failed} failed" if self.failed else ""
        return text if self.told >= ENOUGH else f"{text}: too few images say something"
