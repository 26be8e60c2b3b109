"""The test of an attack on a region that is planted in its ball: is it able to find anything at all?

Source:
    Zimmermann et al. 2022, "Increasing Confidence in Adversarial Robustness Evaluations" (arXiv:2206.13991), the
    binarization test. A linear readout of the model's own features is fitted to one image, so that random points well
    inside the ball get one label, and a point on its surface the other. An adversarial image then exists by
    construction, and an attack that misses it on this model has not shown that there is none.

    Differs: the readout is the separator of largest margin, to which their logistic regression without regularisation
    tends, and its threshold lies close to the surface point. Of several surface points the one is taken that lies
    farthest out, since random search finds a region around any other where features have few directions. An image whose
    region random search finds all the same says nothing here; they report its rate alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from safemed_eval.attacks import Attack
from safemed_eval.core import Question
from safemed_eval.faults import FAULTS, ShrinkingBatch, is_fault
from safemed_eval.models.waist import Waist
from safemed_eval.runs.tally import Outcome
from safemed_eval.seeds import generator
from safemed_eval.threat import Threat

INNER = 256
"""Points with the inner label, the image itself among them."""
SURFACE = 96
"""Points on the surface, one of which gets the planted label."""
TRIES = 128
"""Points that random search tries, half of them on the surface."""
DEPTH = 0.95
"""Size of the ball of the inner points, as a share of the attack's."""
CLOSENESS = 0.9
"""Where the threshold lies on the way from the outermost inner point, 0, to the planted point, 1."""
_FLAT = 1e-6
"""A margin below this share of the features' own spread is rounding."""

Row = tuple[str, Question, torch.Tensor]
"""An id, which seeds the random points; the question; and the (3, H, W) canvas."""
Floats = NDArray[np.float64]


def plant(
    model: Waist, attack: Attack, row: Row, *, seed: int, memory: ShrinkingBatch, quantize: bool = False
) -> Outcome:
    """Plant a region in the ball around an image, and let random search and the attack look for it.

    Args:
        model: with `features`.
        attack: one that is `can_be_planted`.
        memory: the number of canvases that go through the model together.
        quantize: the attack stays on 8-bit grey levels.
    """
    try:
        return _planted(model, attack, row, seed, memory, quantize=quantize)
    except FAULTS as error:
        if not is_fault(error):
            raise
        return "failed"


def _planted(model: Waist, attack: Attack, row: Row, seed: int, memory: ShrinkingBatch, *, quantize: bool) -> Outcome:
    name, question, canvas = row
    canvas, ball = canvas.to(model.device)[None], attack.threat
    rng = generator(model.device, seed, "planted", str(attack), name)
    deep = Threat(norm=ball.norm, eps=DEPTH * ball.eps)

    def features(points: torch.Tensor) -> Floats:
        def look(size: int) -> torch.Tensor:
            with torch.no_grad():
                return torch.cat([model.features(part, [question] * len(part)) for part in torch.split(points, size)])

        return memory.run(look).double().cpu().numpy()

    inner = features(torch.cat([canvas, _inside(deep, canvas, INNER - 1, rng)]))
    readout = fit(inner, features(_on_surface(ball, canvas, SURFACE, rng)))
    if readout is None:
        return "unfit"
    half = TRIES // 2
    drawn = torch.cat([_inside(ball, canvas, half, rng), _on_surface(ball, canvas, TRIES - half, rng)])
    if (readout.log_odds(features(drawn)) > 0).any():
        return "random"
    label = torch.zeros(1, dtype=torch.int64, device=model.device)
    attacked = attack(_Planted(model, question, readout, 1), canvas, label, [rng], quantize=quantize)
    return "found" if readout.log_odds(features(attacked.canvas)) > 0 else "missed"


def _inside(threat: Threat, canvas: torch.Tensor, count: int, rng: torch.Generator) -> torch.Tensor:
    """Uniform points of the ball around a (1, 3, H, W) canvas, clamped to [0, 1]."""
    return threat.sample(canvas.repeat(count, 1, 1, 1), [rng] * count)


def _on_surface(threat: Threat, canvas: torch.Tensor, count: int, rng: torch.Generator) -> torch.Tensor:
    """Points at the distance eps, clamped to [0, 1]: random corners of an L-infinity ball, directions of an L2 ball."""
    around = canvas.repeat(count, 1, 1, 1)
    drawn = torch.empty_like(around).normal_(generator=rng)
    return threat.project(around, around + threat.eps * threat.direction(drawn))


@dataclass(frozen=True, kw_only=True)
class Readout:
    """A linear readout of features.

    Args:
        origin: (D,) the features of the image.
        weights: (D,) scaled so that log-odds rise by 1 from the outermost inner point to the planted one.
        threshold: log-odds above 0 mean the planted label.
    """

    origin: Floats
    weights: Floats
    threshold: float

    def log_odds(self, features: Floats) -> Floats:
        """(B, D) -> (B,) log-odds of the planted label."""
        return np.asarray((features - self.origin) @ self.weights - self.threshold)


def fit(inner: Floats, surface: Floats) -> Readout | None:
    """Fit the readout that separates one surface point from all inner points by the largest margin.

    The margin's direction leads from the nearest point of the inner points' convex hull to the surface point. Of the
    surface points the one is taken that is farthest out, in standard deviations of the inner points along its
    direction.

    Args:
        inner: (N, D) features, those of the image first.
        surface: (S, D) features.
    Returns:
        None where no surface point can be separated.
    """
    best: tuple[float, Readout] | None = None
    for point in surface:
        away = point - inner
        spread = float(np.linalg.norm(away, axis=1).mean())
        if not spread:
            continue
        try:
            shares, _ = nnls(np.vstack([away.T / spread, np.ones(len(away))]), np.r_[np.zeros(away.shape[1]), 1.0])
        except RuntimeError:  # it did not converge: another point will do
            continue
        direction = shares @ away / shares.sum()
        along = (inner - inner[0]) @ direction
        out = float((point - inner[0]) @ direction)
        gap = out - float(along.max())
        if np.linalg.norm(direction) < _FLAT * spread or gap <= 0:
            continue
        far = (out - float(along.mean())) / max(float(along.std()), _FLAT * gap)
        if best is None or far > best[0]:
            threshold = (float(along.max()) + CLOSENESS * gap) / gap
            best = far, Readout(origin=inner[0], weights=direction / gap, threshold=threshold)
    return None if best is None else best[1]


class _Planted:
    """The `Classify` of a readout: two labels, the inner one first, for any number of rows about one question."""

    def __init__(self, model: Waist, question: Question, readout: Readout, rows: int) -> None:
        self._made = model, question, readout
        self._questions = [question] * rows

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        model, _, readout = self._made
        features = model.features(canvas, self._questions)
        origin, weights = (
            torch.tensor(part, dtype=features.dtype, device=features.device)
            for part in (readout.origin, readout.weights)
        )
        odds = ((features - origin) * weights).sum(1) - readout.threshold
        return torch.stack([-odds / 2, odds / 2], 1).log_softmax(1)

    def take(self, rows: Sequence[int]) -> _Planted:
        return _Planted(*self._made, len(rows))
