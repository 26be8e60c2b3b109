"""Sequential certificates from votes in their order. No torch here: reports read stored votes again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from safemed_eval.core import Certificate
from safemed_eval.smoothing.evidence import Boundary, Floats, Ints, log_mixture
from safemed_eval.smoothing.noise import View
from safemed_eval.smoothing.options import Sequential

UNPROVED = "no radius certified"
CERTIFIED, FUTILE, CAP = "certified", "futile", "cap"
"""Reasons why draws end: all radii up to the ceiling are certified; the next one is unlikely to be; n are drawn."""

GIVE_UP = 0.01
"""Probability of giving up a radius that n draws would certify half of the time."""

Hits = npt.NDArray[np.bool_]
"""Whether the vote is gold, for each draw in order."""


@dataclass(frozen=True, kw_only=True)
class SequentialCertificate(Certificate):
    """A certificate of the gold answer, with the evidence for it. p_lower is the bound that its radius implies.

    Attributes:
        certified: whether each requested radius, by name, is certified.
        max_log_e: the largest ln e against each, over all draws; see `evidence`.
        stopped_at: number of draws, of which `successes` voted gold.
        stopped: CERTIFIED, FUTILE or CAP.
        hits: the draws, see `pack`.
    """

    certified: dict[str, bool]
    max_log_e: dict[str, float]
    stopped_at: int
    successes: int
    stopped: str
    hits: str


class Ladder:
    """The rule that decides when draws end, and which radii are then certified.

    With p the probability that a noisy copy is answered with gold, radius r is certified when the evidence against
    p <= p0(r) = Phi(r / sigma) has reached 1 / alpha, at this draw or an earlier one, and that of all smaller radii
    has, too. So alpha is not split: a false certificate needs a false rejection of the *smallest* radius that is too
    large, one test of level alpha.

    Draws end when all radii are certified, or the next one is given up: its evidence could not reach 1 / alpha by draw
    n even if all further votes were gold; or the evidence against p >= c / n has reached 1 / GIVE_UP, where c is the
    number of successes in n that it needs. Ending early gives up radii, and never makes a certificate false. The rule
    looks at every draw in its order, so that it does not depend on the batch size.

    Args:
        view: the canvas that the copies were made of; see `noise.Noise.slack`.
    Source:
        Cohen et al. 2019 (arXiv:1902.02918), Theorem 1, with p_A bounded by a test martingale instead of Clopper and
        Pearson. Differs: the class is fixed in advance to gold, not selected.
    """

    def __init__(self, spec: Sequential, view: View | None = None) -> None:
        self.spec = spec
        self._bar = -math.log(spec.alpha)
        self._rungs = spec.evidence(view)
        self._up = [Boundary(rung.log_e, self._bar) for rung in self._rungs]
        self._needed = np.array([boundary.at(spec.n) for boundary in self._up])
        doubt = np.maximum(spec.n - self._needed, 0.5) / spec.n
        self._down = [Boundary(partial(log_mixture, p0=float(p0)), -math.log(GIVE_UP)) for p0 in doubt]

    def follow(self, batches: Iterable[Hits], gold: int) -> SequentialCertificate:
        """Take votes in their order until the rule ends them; later ones are neither looked at nor requested.

        Raises:
            ValueError: the votes end before the rule does.
        """
        k = t = 0
        best = np.zeros(len(self._rungs))
        reached = np.zeros(len(best), dtype=bool)
        seen: list[Hits] = []
        for batch in batches:
            hits = np.asarray(batch, dtype=bool)[: self.spec.n - t]
            ks, ts = k + np.cumsum(hits), t + np.arange(1, len(hits) + 1)
            passed = np.maximum.accumulate(reached[:, None] | [ks >= up(ts) for up in self._up], axis=1)
            over = self._over(np.logical_and.accumulate(passed).sum(axis=0), ks, ts)
            end = int(over.argmax()) + 1 if over.any() else len(hits)
            best = np.maximum(best, self._peaks(hits[:end], ks[:end], ts[:end]))
            seen.append(hits[:end])
            if over.any():
                drawn = np.concatenate(seen)
                return self._certificate(drawn, best, gold, self._reason(len(drawn), best))
            k, t, reached = int(ks[-1]), int(ts[-1]), passed[:, -1]
        raise ValueError(f"{t} votes decide nothing")

    def height(self, max_log_e: Floats) -> int:
        """Number of radii, from the smallest on, that are certified."""
        return int(np.logical_and.accumulate(max_log_e >= self._bar).sum())

    def _over(self, level: Ints, ks: Ints, ts: Ints) -> npt.NDArray[np.bool_]:
        """Whether the rule ends at each draw, given the number of radii that are certified there."""
        at = np.minimum(level, len(self._rungs) - 1)
        unlikely = ts - ks >= np.array([down(ts) for down in self._down])[at, np.arange(len(ts))]
        return np.asarray((level == len(self._rungs)) | unlikely | (ks + self.spec.n - ts < self._needed[at]))

    def _peaks(self, hits: Hits, ks: Ints, ts: Ints) -> Floats:
        """The largest ln e of each radius: it rises with each success, so that the last of a run of hits is enough."""
        last = hits & ~np.append(hits[1:], False)
        return np.array([rung.log_e(ks[last], ts[last]).max(initial=0.0) for rung in self._rungs])

    def read_again(self, certificate: SequentialCertificate, gold: int) -> SequentialCertificate:
        """Certify at this alpha with draws that ended by the rule of another: at a smaller alpha, at most as much."""
        best = np.array([certificate.max_log_e[name] for name in self.spec.ladder])
        return self._certificate(unpack(certificate.hits, certificate.stopped_at), best, gold, certificate.stopped)

    def _reason(self, draws: int, best: Floats) -> str:
        """The reason why draws ended."""
        reachable = int((self._needed <= self.spec.n).sum())
        return CERTIFIED if self.height(best) >= reachable else CAP if draws == self.spec.n else FUTILE

    def _certificate(self, hits: Hits, best: Floats, gold: int, stopped: str) -> SequentialCertificate:
        level, ladder = self.height(best), self.spec.ladder
        return SequentialCertificate(
            prediction=gold if level else None,
            p_lower=self._rungs[level - 1].p0 if level else None,
            radius=list(ladder.values())[level - 1] if level else None,
            abstained=None if level else UNPROVED,
            certified={name: place < level for place, name in enumerate(ladder)},
            max_log_e=dict(zip(ladder, best.tolist(), strict=True)),
            stopped_at=len(hits),
            successes=int(hits.sum()),
            stopped=stopped,
            hits=pack(hits),
        )


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
