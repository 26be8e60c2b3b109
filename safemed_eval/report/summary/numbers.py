"""Shares, certified accuracy and radii, as reports show them and --json prints them."""

from __future__ import annotations

from dataclasses import dataclass

from safemed_eval.codec import Json, encode
from safemed_eval.rounding import interval, percent, percent_down, radius, radius_at_least

FAILED = "failed"
"""In place of a figure that nobody knows, since every item failed."""
FAILED_ITEMS = (
    "Where some items failed, the figure without them stands beside the one that counts them as wrong; where all did, "
    "nothing was measured."
)
DAGGER = "\u2020"
"""The mark of an interval of few clusters."""
FEW = "few clusters (effectively fewer than ten patients or images): do not trust the interval."
"""`Share.few` in words."""


@dataclass(frozen=True, kw_only=True)
class Rest:
    """The same share without the items that failed."""

    share: float | None
    lower: float | None
    upper: float | None
    count: int
    n: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of items in [0, 1] with its 95 % interval. Unknown is None; items that failed count against it.

    Attributes:
        count: how many of the n items.
        clusters: patients, or else images.
        few: effectively fewer than ten clusters: do not trust the interval.
        failed: how many items failed.
        all_failed: every item failed, or every one that could have been measured: nothing is known.
        without_failed: where some items failed, the share of the others.
    """

    share: float | None
    lower: float | None
    upper: float | None
    count: int | None
    n: int
    clusters: int
    few: bool
    failed: int
    all_failed: bool
    without_failed: Rest | None

    @property
    def text(self) -> str:
        """The share in percent as reports show it; "failed" where every item did, "n/a" where there is none."""
        return FAILED if self.all_failed else self._percent(self.share)

    @property
    def bounds_text(self) -> str:
        """The ends of the interval in percent, rounded outward: "90.1-94.6"; empty where unknown."""
        return interval(self.lower, self.upper)

    @property
    def rest_text(self) -> str:
        """The figure without the failed items, "2 failed, else 95.0 90.1-97.9"; empty where none or all did."""
        rest = self.without_failed
        if rest is None:
            return ""
        return f"{self.failed} failed, else {self._percent(rest.share)} {interval(rest.lower, rest.upper)}"

    def _percent(self, share: float | None) -> str:
        return percent(share)

    def to_json(self) -> Json:
        return {
            "accuracy": self.share,
            "lower": self.lower,
            "upper": self.upper,
            "correct": self.count,
            "n": self.n,
            "clusters": self.clusters,
            "few": self.few,
            "failed": self.failed,
            "all_failed": self.all_failed,
            "without_failed": encode(self.without_failed),
        }


@dataclass(frozen=True, kw_only=True)
class Answered(Share):
    """The accuracy of an evaluate run under one condition, and why answers are wrong.

    Attributes:
        no_answer: how many answers could not be read.
        abstained: how many items a smoothed model abstained on; None for a model without noise.
        median_steps: to a flip; None where nothing flipped, and for a smoothed model, on which no attack ends early.
        image_blind: under an attack so large that all images are in its ball, how many items never flipped.
        parts: of an attack made of several, the accuracy that each of them left.
        unavailable: for how many items the condition could not be had; they are not among the n.
    """

    no_answer: int
    abstained: int | None
    median_steps: float | None
    image_blind: int | None
    parts: dict[str, Share] | None
    unavailable: int

    @property
    def rest_text(self) -> str:
        """The figure without the failed items, and for how many items there is none."""
        unavailable = f"n/a for {self.unavailable}" if self.unavailable else ""
        return "; ".join(filter(None, (super().rest_text, unavailable)))

    def to_json(self) -> Json:
        return super().to_json() | {
            "no_answer": self.no_answer,
            "abstained": self.abstained,
            "median_steps": self.median_steps,
            "image_blind": self.image_blind,
            "parts": {name: share.to_json() for name, share in self.parts.items()} if self.parts else None,
            "unavailable": self.unavailable,
        }


@dataclass(frozen=True, kw_only=True)
class Point(Share):
    """Certified accuracy at one radius: the share answered rightly with a certified radius of at least this.

    Attributes:
        asked: False at a radius that sequential certificates know nothing of.
        above_ceiling: the sample budget certifies no such radius, whatever the model.
    """

    radius: float
    asked: bool
    above_ceiling: bool

    @property
    def text(self) -> str:
        """The share in percent, rounded down, or why it is not known."""
        if self.all_failed:
            return FAILED
        if not self.asked:
            return "not asked"
        return ">ceiling" if self.above_ceiling else percent_down(self.share)

    def _percent(self, share: float | None) -> str:
        return percent_down(share)

    def to_json(self) -> Json:
        return {
            "radius": self.radius,
            "certified_accuracy": self.share,
            "lower": self.lower,
            "upper": self.upper,
            "certified": self.count,
            "above_ceiling": self.above_ceiling,
            "asked": self.asked,
            "few": self.few,
            "failed": self.failed,
            "all_failed": self.all_failed,
            "without_failed": encode(self.without_failed),
        }


@dataclass(frozen=True, kw_only=True)
class Certified:
    """The certificates of a certify run, or of a slice of it.

    Attributes:
        points: certified accuracy by the name of the radius.
        grounded: the same, of items that depend on the image, too; empty where this was not asked.
        abstained: items without a certificate; `abstention` is their share.
        no_answer: items for which "no answer" won the vote; None where draws are of the gold answer alone.
        wrong: items with a certificate of a wrong answer; None where that is not known.
        average_radius: of all items, 0 where wrong or abstained. median_radius: the largest at which half are still
            certified and right.
        at_least: both are lower bounds: sequential certificates know the radii alone that were asked for.
    """

    points: dict[str, Point]
    grounded: dict[str, Point]
    n: int
    clusters: int
    abstained: int
    abstention: float | None
    no_answer: int | None
    wrong: int | None
    average_radius: float | None
    median_radius: float | None
    failed: int
    all_failed: bool
    at_least: bool

    def radius_text(self, value: float | None) -> str:
        """The average or median radius, rounded down."""
        return radius_at_least(value) if self.at_least else radius(value)

    def to_json(self) -> Json:
        return {
            "certified": {name: point.to_json() for name, point in self.points.items()},
            **({"grounded": {name: point.to_json() for name, point in self.grounded.items()}} if self.grounded else {}),
            "n": self.n,
            "clusters": self.clusters,
            "abstained": self.abstained,
            "abstention": self.abstention,
            "no_answer": self.no_answer,
            "wrong": self.wrong,
            "average_radius": self.average_radius,
            "median_radius": self.median_radius,
            "failed": self.failed,
            "all_failed": self.all_failed,
        }


AnsweredBy = dict[str, Answered]
"""By condition."""
