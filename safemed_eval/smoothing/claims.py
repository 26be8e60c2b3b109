"""What a certificate claims of the votes at a distance from its image, and what counted votes say to that. No torch."""

from __future__ import annotations

from typing import NamedTuple

from safemed_eval import stats
from safemed_eval.smoothing.noise import Noise, View
from safemed_eval.smoothing.options import Falsification


class Judged(NamedTuple):
    """A count of votes for a certified class, against the certificate's claim.

    Attributes:
        n: votes among which they are counted: of all classes, or of the class and one rival.
        upper: the probability of the class, or its share of both, is at most this.
        claimed: the certificate says that it is at least this.
    """

    n: int
    upper: float
    claimed: float

    @property
    def refuted(self) -> bool:
        return self.upper < self.claimed


def judge(
    noise: Noise,
    asked: Falsification,
    votes: int,
    rival: int | None,
    *,
    p_lower: float,
    radius: float,
    distance: float,
    view: View | None,
    classes: int,
) -> Judged:
    """Judge the votes at a distance from an image with a certificate of this radius.

    A one-class certificate claims `Noise.claim` of the class's own probability. One of two classes at radius r claims
    at a distance d what a certificate of radius r - d claims there: p_A > g(p_b) for every rival b. As g is concave
    with g(0) >= 0, g(t) / t falls, and A's share of both is larger than where p_A = g(p_b) meets p_A + p_b = 1: larger
    than what `probability_left` leaves at d of the `probability_needed` of r. Slack moves the share by
    2 slack / (p_A + p_b) at most, and p_A is at least 1 / classes. The rival was chosen after counting, and so alpha is
    divided among all.

    Args:
        rival: votes for the strongest other class, for a certificate of two classes; None: it is of one.
        classes: number of classes, "no answer" included.
    """
    if rival is None:
        upper = stats.clopper_pearson_upper(votes, asked.n, asked.alpha)
        return Judged(asked.n, upper, noise.claim(p_lower, radius, distance, view))
    n = votes + rival
    share = noise.probability_left(noise.probability_needed(radius, view), radius, distance, view)
    claimed = share - 2 * classes * noise.slack(view)
    return Judged(n, stats.clopper_pearson_upper(votes, n, asked.alpha / (classes - 1)), claimed)
