"""From votes, in their order, to a sequential certificate. No torch here: reports read stored votes again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from safemed_eval.core import Certificate
from safemed_eval.smoothing.evidence import Boundary, Floats, Ints, log_mixture
from safemed_eval.smoothing.options import Sequential

UNPROVED = "no radius certified"
CERTIFIED, FUTILE, CAP = "certified", "futile", "cap"
"""Why an item's draws ended: all radii up to the ceiling are certified; the next one will hardly be; n are drawn."""

GIVE_UP = 0.01
"""Probability of giving up a radius whose probability is one that n draws would show, as often as not, to suffice."""

Hits = npt.NDArray[np.bool_]
"""For each draw in its order, whether the vote is gold."""


@dataclass(frozen=True, kw_only=True)
class SequentialCertificate(Certificate):
    """A certificate of the gold answer, and what it was read from. p_lower is what its radius says of p.

    Attributes:
        certified: for each radius that was asked for, by name, whether it is certified.
        max_log_e: the largest ln e against each, over all draws; see `_evidence`.
        stopped_at: how many draws were made; `successes` of them voted gold.
        hits: the draws, see `pack`.
    """

    certified: dict[str, bool]
    max_log_e: dict[str, float]
    stopped_at: int
    successes: int
    stopped: str
    hits: str


class Ladder:
    """The rule of a sequential certificate: when draws end, and which radii are then certified.

    With p the probability that a noisy copy is answered with gold, radius r is certified when the evidence against
    p <= p0(r) = Phi(r / sigma) has reached 1 / alpha, at this draw or an earlier one, and that of all smaller radii
    has, too. So alpha is not split: a false certificate needs a false rejection of the *smallest* radius that is too
    large, one test of level alpha.

    Draws end when all radii are certified, or the next one will not be: its evidence could not get there by draw n if
    all further votes were gold; or the evidence against p >= c / n has reached 1 / GIVE_UP, where c is how many of n it
    takes. Ending early gives up radii, and never makes a certificate false. The rule looks at every draw in its order,
    so that it does not depend on how many are drawn at a time.

    Source:
        Cohen et al. 2019 (arXiv:1902.02918), Theorem 1, with p_A bounded by a test martingale instead of Clopper and
        Pearson. Differs: the class is fixed in advance to gold, not selected.
    """

    def __init__(self, spec: Sequential) -> None:
        self.spec = spec
        self._bar = -math.log(spec.alpha)
        self._rungs = spec.evidence()
        self._up = [Boundary(rung.log_e, self._bar) for rung in self._rungs]
        self._needed = np.array([boundary.at(spec.n) for boundary in self._up])
        doubt = np.maximum(spec.n - self._needed, 0.5) / spec.n
        self._down = [Boundary(partial(log_mixture, p0=float(p0)), -math.log(GIVE_UP)) for p0 in doubt]

    def follow(self, batches: Iterable[Hits], gold: int) -> SequentialCertificate:
        """Take votes in their order until the rule ends them; what comes after is neither looked at nor asked for.

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
                return self._certificate(np.concatenate(seen), best, gold)
            k, t, reached = int(ks[-1]), int(ts[-1]), passed[:, -1]
        raise ValueError(f"{t} votes decide nothing")

    def height(self, max_log_e: Floats) -> int:
        """How many radii, from the smallest on, are certified."""
        return int(np.logical_and.accumulate(max_log_e >= self._bar).sum())

    def _over(self, level: Ints, ks: Ints, ts: Ints) -> npt.NDArray[np.bool_]:
        """At which draws the rule ends, where this many radii are certified."""
        at = np.minimum(level, len(self._rungs) - 1)
        unlikely = ts - ks >= np.array([down(ts) for down in self._down])[at, np.arange(len(ts))]
        return np.asarray((level == len(self._rungs)) | unlikely | (ks + self.spec.n - ts < self._needed[at]))

    def _peaks(self, hits: Hits, ks: Ints, ts: Ints) -> Floats:
        """The largest ln e of each radius: it rises with each success, so that the last ones of a row are enough."""
        last = hits & ~np.append(hits[1:], False)
        return np.array([rung.log_e(ks[last], ts[last]).max(initial=0.0) for rung in self._rungs])

    def _certificate(self, hits: Hits, best: Floats, gold: int) -> SequentialCertificate:
        level = self.height(best)
        reachable = int((self._needed <= self.spec.n).sum())
        why = CERTIFIED if level >= reachable else CAP if len(hits) == self.spec.n else FUTILE
        return SequentialCertificate(
            **self._read(best, gold),
            max_log_e=dict(zip(self.spec.ladder, best.tolist(), strict=True)),
            stopped_at=len(hits),
            successes=int(hits.sum()),
            stopped=why,
            hits=pack(hits),
        )

    def read_again(self, found: SequentialCertificate, gold: int) -> SequentialCertificate:
        """What draws that ended by another alpha's rule certify at this one: at a smaller alpha, at most as much."""
        best = np.array([found.max_log_e[name] for name in self.spec.ladder])
        return replace(found, **self._read(best, gold))

    def _read(self, best: Floats, gold: int) -> dict[str, Any]:
        level, ladder = self.height(best), self.spec.ladder
        return {
            "prediction": gold if level else None,
            "p_lower": self._rungs[level - 1].p0 if level else None,
            "radius": list(ladder.values())[level - 1] if level else None,
            "abstained": None if level else UNPROVED,
            "certified": {name: place < level for place, name in enumerate(ladder)},
        }


def pack(hits: Hits) -> str:
    """Draws as a bit string in hexadecimal digits, the first draw first, filled up with zeros to whole bytes."""
    return np.packbits(hits).tobytes().hex()


def unpack(text: str, draws: int) -> Hits:
    """The draws that `pack` has made a text of, or ValueError."""
    raw = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    hits = np.unpackbits(raw)[:draws].astype(bool)
    if len(hits) != draws or pack(hits) != text:
        raise ValueError(f"not {draws} draws")
    return hits
