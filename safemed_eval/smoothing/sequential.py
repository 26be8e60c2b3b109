"""Sequential certificates from votes in their order. No torch here: reports read stored votes again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from string import ascii_uppercase
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from safemed_eval.core import Certificate
from safemed_eval.smoothing.evidence import Boundary, Floats, Ints, log_mixture
from safemed_eval.smoothing.noise import View
from safemed_eval.smoothing.options import Sequential, two_classes
from safemed_eval.smoothing.two_class import Counts, Tally, below, lies_below

UNPROVED = "no radius certified"
CERTIFIED, FUTILE, CAP = "certified", "futile", "cap"
"""Reasons why draws end: all radii up to the ceiling are certified; the next one is unlikely to be; n are drawn."""

GIVE_UP = 0.01
"""Probability of giving up a radius that n draws would certify half of the time."""

NO_LETTER = "-"
"""Stands for "no answer" among the letters of draws."""
Hits = npt.NDArray[np.bool_]
"""Whether the vote is gold, for each draw in order."""
Draws = Ints
"""The class that each noisy copy votes for, in order: 0 .. K, where K means "no answer"."""
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class SequentialCertificate(Certificate):
    """A certificate of the gold answer, with the evidence for it. p_lower is the bound that its radius implies.

    Attributes:
        certified: whether each requested radius, by name, is certified.
        max_log_e: the largest ln e against each, over all draws, of the rival where it is least.
        stopped_at: number of draws, of which `successes` voted gold.
        stopped: CERTIFIED, FUTILE or CAP.
        draws: the draws, see `spell`.
    """

    certified: dict[str, bool]
    max_log_e: dict[str, float]
    stopped_at: int
    successes: int
    stopped: str
    draws: str


class Ladder:
    """The rule that decides when draws end, and which radii are then certified.

    A radius r is certified when every rival of gold is rejected: the evidence *against* "gold is not ahead of it
    everywhere within r" has reached 1 / alpha, at this draw or an earlier one, each rival at its own; and all smaller
    radii are certified, too. With p_A the probability that a noisy copy is answered with gold, and p_b with class b,

    - with two classes each other class, "no answer" included, is a rival. Its null is p_A <= g(p_b), see `two_class`.
      It implies p_A <= p0(r), which is Phi(r / sigma) for normal noise, so that evidence against that is evidence
      against it, too, and so is the mean of both, which is used;
    - with one class all other classes are one rival, and the evidence is against p_A <= p0(r). That is the rule where
      the spec or the noise has no other, and where there is one rival in all: both nulls are then the same.

    So alpha is not split. If r is too large, the null of some fixed rival holds, and certifying r takes its rejection,
    which has probability alpha at most (an intersection-union test). The nulls grow with r, so that any false
    certificate needs that of the *smallest* radius that is too large.

    Draws end when all radii are certified, or the next one is given up. With one class: its evidence could not reach
    1 / alpha by draw n even if all further votes were gold; or the evidence against p_A >= c / n has reached 1 /
    GIVE_UP, where c is the number of successes in n that it needs. With two classes both have to fail: for some rival
    that is not yet rejected, in addition, the votes would lie below the curve p_A = g(p_b) that has c / n for p0 even
    if all further ones were gold; or they lie below it now, and their likelihood ratio against it has reached
    draws^(1/4) / GIVE_UP, which has probability GIVE_UP on the curve, roughly. Ending early gives up radii, and never
    makes a certificate false. The rule looks at every draw in its order, so that it does not depend on the batch size.

    Args:
        view: the canvas that the copies were made of; see `noise.Noise.slack`.
    Source:
        Cohen et al. 2019 (arXiv:1902.02918), Theorem 1, with p_A and p_B bounded by test martingales instead of Clopper
        and Pearson. Differs: the class is fixed in advance to gold, not selected.
    """

    def __init__(self, spec: Sequential, view: View | None = None) -> None:
        self.spec, self._view = spec, view
        self._bar = -math.log(spec.alpha)
        self._rungs = spec.evidence(view)
        self._two_classes = two_classes(spec)
        needed = [Boundary(partial(rung.log_e, other=spec.nothing), self._bar).at(spec.n) for rung in self._rungs]
        self._needed = np.array(needed)
        doubt = np.maximum(spec.n - self._needed, 0.5) / spec.n
        self._down = [Boundary(partial(log_mixture, p0=float(p0)), -math.log(GIVE_UP)) for p0 in doubt]
        self._slack = spec.kind.slack(view)
        self._p0 = np.array([spec.kind.probability_needed(radius, view) for radius in spec.ladder.values()])
        self._enough = np.maximum(1 - doubt - self._slack, self._p0)

    @cached_property
    def _one_class(self) -> Ladder:
        return Ladder(replace(self.spec, test=None), self._view)

    def follow(self, batches: Iterable[Draws], gold: int, classes: int) -> SequentialCertificate:
        """Take votes in their order until the rule ends them; later ones are neither looked at nor requested.

        Args:
            classes: number of classes, "no answer" included.
        Raises:
            ValueError: the votes end before the rule does.
        """
        if self._two_classes and classes == 2:
            return self._one_class.follow(batches, gold, classes)
        tally = self._tally(gold, classes)
        best = np.zeros((len(self._rungs), tally.rivals))
        reached = np.zeros(best.shape, dtype=bool)
        seen: list[Draws] = []
        for batch in batches:
            votes = np.asarray(batch, dtype=np.int64)[: self.spec.n - tally.draws]
            counts, others = tally.take(votes)
            log_e = self._log_e(counts, others)
            passed = np.maximum.accumulate(reached[..., None] | (log_e >= self._bar), axis=2)
            over = self._over(passed, counts)
            end = int(over.argmax()) + 1 if over.any() else len(votes)
            best = np.maximum(best, log_e[..., :end].max(axis=2))
            seen.append(votes[:end])
            if over.any():
                drawn, least = np.concatenate(seen), best.min(axis=1)
                return SequentialCertificate(
                    **self._proved(least, gold, classes),
                    max_log_e=dict(zip(self.spec.ladder, least.tolist(), strict=True)),
                    stopped_at=len(drawn),
                    successes=int((drawn == gold).sum()),
                    stopped=self._reason(len(drawn), least),
                    draws=spell(drawn, classes),
                )
            reached = passed[..., -1]
        raise ValueError(f"{tally.draws} votes decide nothing")

    def read_again(self, certificate: SequentialCertificate, gold: int, classes: int) -> SequentialCertificate:
        """Certify at this alpha with draws that ended by the rule of another: at a smaller alpha, at most as much."""
        best = np.array([certificate.max_log_e[name] for name in self.spec.ladder])
        return replace(certificate, **self._proved(best, gold, classes))

    def height(self, max_log_e: Floats) -> int:
        """Number of radii, from the smallest on, that are certified."""
        return int(np.logical_and.accumulate(max_log_e >= self._bar).sum())

    def _tally(self, gold: int, classes: int) -> Tally:
        null = self.spec.null(self._p0[:, None, None])
        return Tally(gold, classes, null, self._slack)

    def _log_e(self, counts: Counts, others: Floats | None) -> Floats:
        """Compute ln e after each draw: (radii, rivals, draws)."""
        if others is None:
            return np.array([rung.log_e(counts.gold, counts.draws)[None] for rung in self._rungs])
        pairs = zip(self._rungs, others, strict=True)
        return np.array([rung.log_e(counts.gold, counts.draws, other) for rung, other in pairs])

    def _over(self, passed: Flags, counts: Counts) -> Flags:
        """Whether the rule ends at each draw.

        Args:
            passed: (radii, rivals, draws): the rivals that are rejected by then.
        """
        gold, draws = counts.gold, counts.draws
        level = np.logical_and.accumulate(passed.all(axis=1)).sum(axis=0)
        at = np.minimum(level, len(self._rungs) - 1)
        unlikely = draws - gold >= np.array([down(draws) for down in self._down])[at, np.arange(len(draws))]
        given_up = unlikely | (gold + self.spec.n - draws < self._needed[at])
        if self._two_classes:
            (asked,) = np.nonzero(given_up & (self._needed[at] <= self.spec.n))
            null, now = self.spec.null(self._enough[at[asked]]), counts.at(asked)
            assert null is not None
            left = self.spec.n - now.draws
            last = Counts(now.gold + left, now.rivals, now.draws + left)
            unlikely = below(null, now, self._slack) >= 0.25 * np.log(now.draws) - math.log(GIVE_UP)
            hopeless = unlikely | lies_below(null, last.predicted(), self._slack)
            given_up[asked] = (hopeless & ~passed[at[asked], :, asked].T).any(axis=0)
        return np.asarray((level == len(self._rungs)) | given_up | (draws == self.spec.n))

    def _reason(self, draws: int, best: Floats) -> str:
        """The reason why draws ended."""
        reachable = int((self._needed <= self.spec.n).sum())
        return CERTIFIED if self.height(best) >= reachable else CAP if draws == self.spec.n else FUTILE

    def _proved(self, best: Floats, gold: int, classes: int) -> Proved:
        """What this evidence proves."""
        level, ladder = self.height(best), self.spec.ladder
        return Proved(
            prediction=gold if level else None,
            p_lower=self.spec.least_gold(float(self._p0[level - 1]), classes) if level else None,
            radius=list(ladder.values())[level - 1] if level else None,
            abstained=None if level else UNPROVED,
            certified={name: place < level for place, name in enumerate(ladder)},
        )


class Proved(TypedDict):
    """The fields of a certificate that depend on alpha."""

    prediction: int | None
    p_lower: float | None
    radius: float | None
    abstained: str | None
    certified: dict[str, bool]


def spell(draws: Draws, classes: int) -> str:
    """Write draws as a letter each, that of the option in the question's own order; `-` is "no answer"."""
    return "".join((ascii_uppercase[: classes - 1] + NO_LETTER)[vote] for vote in draws)


def read_draws(text: str, draws: int, classes: int) -> Draws:
    """Read the draws that `spell` wrote, or raise ValueError."""
    known = ascii_uppercase[: classes - 1] + NO_LETTER
    if len(text) != draws or not set(text) <= set(known):
        raise ValueError(f"not {draws} draws of {classes} classes")
    return np.array([known.index(letter) for letter in text], dtype=np.int64)


def pack(hits: Hits) -> str:
    """Write draws as a bit string in hexadecimal digits, first draw first, padded with zeros to whole bytes."""
    return np.packbits(hits).tobytes().hex()


def unpack(text: str, draws: int) -> Hits:
    """Read the draws that `pack` wrote, or raise ValueError."""
    raw = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    hits = np.unpackbits(raw)[:draws].astype(bool)
    if len(hits) != draws or pack(hits) != text:
        raise ValueError(f"not {draws} draws")
    return hits
