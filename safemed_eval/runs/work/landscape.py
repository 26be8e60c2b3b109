"""Indicators of attack failure around images: does the loss repeat, does its gradient lead uphill, do restarts help?

Source:
    Pintor et al. 2022, "Indicators of Attack Failure" (arXiv:2106.09947). Theirs are read from one run of an attack on
    each image; unavailable gradients, incomplete optimisation, transfer and unconstrained attacks are read from a run's
    records here, see `report.findings.checklist`. Differs: unstable predictions are measured as the spread of the loss
    at one point, against what a step along the gradient gains, and a gradient is tried against random directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from safemed_eval.attacks import Attack
from safemed_eval.faults import faults_of_the_model
from safemed_eval.models.waist import Waist
from safemed_eval.runs.work.planted import Row
from safemed_eval.seeds import generator
from safemed_eval.threat import Threat

REPEATS = 8
"""Evaluations of the loss at one point, and random directions that a gradient is tried against."""
STARTS = 3
"""Runs of the attack with random numbers of their own."""
STEP = 0.25
"""Length of the step along the gradient, as a share of the ball's size."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """The loss around one image: the log-odds of all other options against the one that the model answers.

    Args:
        spread: standard deviation of the loss at the image itself, over REPEATS evaluations.
        gain: what a step along the gradient adds to the loss.
        by_chance: the most that one of REPEATS random steps of the same length adds.
    """

    spread: float
    gain: float
    by_chance: float

    @property
    def uphill(self) -> bool:
        """Whether the gradient leads higher than random directions and the spread explain."""
        return self.gain > max(0.0, self.by_chance, 3 * self.spread)


def slope_at(model: Waist, attack: Attack, row: Row, *, seed: int) -> Slope:
    """Measure the loss around one image, in steps of the attack's norm.

    Raises:
        ModelOutputError: the model raised, or returned NaN or infinite scores.
    """
    name, question, canvas = row
    canvas, ball = canvas.to(model.device)[None], attack.threat
    small = Threat(norm=ball.norm, eps=STEP * ball.eps)
    classify = model.classify([question])
    with torch.no_grad():
        answer = int(classify(canvas).argmax())

    def loss(point: torch.Tensor) -> torch.Tensor:
        log_probs = classify(point)[0]
        others = torch.cat([log_probs[:answer], log_probs[answer + 1 :]])
        return others.logsumexp(0) - log_probs[answer]

    at = canvas.clone().requires_grad_()
    with faults_of_the_model():
        (gradient,) = torch.autograd.grad(loss(at), at)
    rng = generator(model.device, seed, "landscape", name)
    with torch.no_grad():
        here = torch.stack([loss(canvas) for _ in range(REPEATS)]).double()
        base = here.mean()

        def gain(direction: torch.Tensor) -> float:
            moved = small.project(canvas, canvas + small.eps * small.direction(direction))
            return float(loss(moved) - base)

        drawn = [torch.empty_like(canvas).normal_(generator=rng) for _ in range(REPEATS)]
        return Slope(spread=float(here.std()), gain=gain(gradient), by_chance=max(map(gain, drawn)))


def flipped(model: Waist, attack: Attack, rows: Sequence[Row], *, seed: int, batch: int) -> list[list[bool]]:
    """Run an attack STARTS times, and say for each run which rows it turned from the model's own clean answer."""
    runs: list[list[bool]] = [[] for _ in range(STARTS)]
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        canvas = torch.stack([canvas for _, _, canvas in part]).to(model.device)
        classify = model.classify([question for _, question, _ in part], at_once=batch)
        with torch.no_grad():
            clean = classify(canvas).argmax(1)
        for start, fell in enumerate(runs):
            rngs = [generator(model.device, seed, "restart", start, str(attack), name) for name, _, _ in part]
            attacked = attack(classify, canvas, clean, rngs)
            with torch.no_grad():
                fell += (classify(attacked.canvas).argmax(1) != clean).tolist()
    return runs
