"""Attacks on certificates: search within each certified radius for an image that refutes the certificate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Self

import torch

from safemed_eval.attacks import Problem
from safemed_eval.attacks.pgd import PGD
from safemed_eval.core import Certificate, Classify, OptionOrder, Order, Question
from safemed_eval.models.waist import Waist
from safemed_eval.runs.record import Shot
from safemed_eval.runs.work.shown import Resized, Shown, canvas_from
from safemed_eval.seeds import generator, order_of
from safemed_eval.smoothing import Falsification, Noise
from safemed_eval.smoothing.claims import judge
from safemed_eval.smoothing.scores import SmoothedClassify
from safemed_eval.threat import L1Ball, Threat

_CHUNK = 64
"""Noisy copies that share one random stream."""


@dataclass(frozen=True, kw_only=True)
class _Climb(PGD):
    """PGD that may leave [0, 1]: a certificate holds for every canvas within its radius, valid image or not."""

    norm: str = "l2"  # type: ignore[assignment]
    early_stop: bool = False
    ball: type[Threat] = Threat

    @property
    def threat(self) -> Threat:
        return self.ball(norm="l2", eps=super().threat.eps, box=False)


NEEDS = _Climb(eps=1.0).needs
"""The capabilities of a model that the search needs."""


@dataclass(frozen=True, kw_only=True)
class Falsifier:
    """Attacks the certificates of one model.

    For each share of a certified radius, PGD attacks the certified class in the ball of that radius, on the mean
    probabilities of m noisy copies per step, neither clamped nor rounded to 8 bits; then n fresh noisy copies of the
    final point vote. Where the radius is of a parameter, values of it up to the radius are tried instead, as many as
    PGD has steps. A certificate implies more than an unchanged answer: with p_lower at the image, the class's
    probability at a distance d is at least `noise.probability_left`. Votes that refute this bound refute the
    certificate, whether or not the answer changes. The share 0 counts fresh votes on the image itself.

    Where certificates are about the file, the search moves its pixels, with gradients through the resize, and the votes
    are on the canvas of what it found.

    Noise is drawn here, not by `noisy_copies`, so that an error there cannot hide itself.

    Args:
        batch: noisy copies per batch when voting; the copies of one gradient are always in memory together.
        keep: called with the item, the share and the (3, H, W) float32 canvas, or image at its own size, that refutes a
            certificate.
        option_order: of the certificates. "random": each copy, in gradients and votes alike, is asked in an order of
            its own, drawn anew at each step.
        two_classes: the certificates are of the two-class test; see `smoothing.claims.judge` for what they claim.
    """

    model: Waist
    spec: Falsification
    noise: Noise
    seed: int
    batch: int
    keep: Callable[[str, float, torch.Tensor], None]
    option_order: OptionOrder = "data"
    two_classes: bool = False

    def __call__(self, item: str, shown: Shown, question: Question, certificate: Certificate) -> tuple[Shot, ...]:
        """Search at each share of the radius, and return the length and the votes of each result.

        Args:
            item: id of the item, which seeds the search.
            shown: the image that was certified.
        Raises:
            ModelOutputError: the model returned NaN or infinite scores or gradients.
        """
        assert certificate.radius is not None and certificate.prediction is not None and certificate.p_lower is not None
        shots: list[Shot] = []
        for share in self.spec.shares:
            reach = share * certificate.radius
            moved, canvas, length = self._search(item, shown, question, certificate.prediction, share, reach)
            counts = self._votes(item, canvas, question, share)
            votes = counts.pop(certificate.prediction)
            rival = max(counts) if self.two_classes else None
            shots.append(Shot(share=share, length=length, votes=votes, rival=rival))
            judged = judge(
                self.noise,
                self.spec,
                votes,
                rival,
                p_lower=certificate.p_lower,
                radius=certificate.radius,
                distance=length,
                view=shown.view,
                classes=len(counts) + 1,
            )
            if judged.refuted:
                self.keep(item, share, moved)
        return tuple(shots)

    def _search(
        self, item: str, shown: Shown, question: Question, chosen: int, share: float, reach: float
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Search within `reach`; return the image where the chosen class does worst, its canvas, and its distance."""
        own, canvas = shown.own, shown.canvas
        if not reach:
            return canvas if own is None else own.pixels.float(), canvas, 0.0
        device, measure = canvas.device, self.noise.measure
        rng = generator(device, self.seed, "falsify", "search", item, str(share))
        plain: Classify = self.model.classify([question])
        if self.option_order == "random":
            orders = map(self._orders("search", item, question, share), count())
            plain = _Reordered(model=self.model, question=question, orders=orders)
        classify = SmoothedClassify(plain, noise=self.noise, m=self.spec.m, generators=[rng])
        if measure == "parameter":
            moved, length = self._worst_of(canvas, chosen, classify, reach)
            return moved, moved, length
        labels = torch.tensor([chosen], device=device)
        climb = _Climb(eps=reach, steps=self.spec.steps, ball=L1Ball if measure == "l1" else Threat)
        if own is not None:
            start = own.pixels.float().to(device)[None]
            resized = Resized(classify=classify, resize=own.resize)
            problem = Problem(classify=resized, canvas=start, labels=labels, generators=[rng])
            moved = climb.search(problem).canvas
            climb.threat.check(start, moved)
            exact = moved[0].double().cpu()
            return moved[0], canvas_from(exact, own.resize).to(device), float((exact - own.pixels).norm())
        problem = Problem(classify=classify, canvas=canvas[None], labels=labels, generators=[rng])
        moved = self.noise.snap(canvas, climb.search(problem).canvas[0])[None]
        climb.threat.check(canvas[None], moved)
        return moved[0], moved[0], float(climb.threat.size(moved.double() - canvas.double()))

    @torch.no_grad()
    def _worst_of(
        self, canvas: torch.Tensor, chosen: int, classify: Classify, reach: float
    ) -> tuple[torch.Tensor, float]:
        """Try values of the parameter up to `reach` on both sides."""
        half = [reach * (number + 1) / self.spec.steps * 2 for number in range(math.ceil(self.spec.steps / 2))]
        values = torch.tensor([sign * min(value, reach) for value in half for sign in (-1, 1)], device=canvas.device)
        moved = [self.noise.apply(canvas, value.view(1, 1, 1, 1))[0] for value in values]
        scores = torch.cat([classify(one[None])[:, chosen] for one in moved])
        worst = int(scores.argmin())
        return moved[worst], float(values[worst].abs())

    @torch.no_grad()
    def _votes(self, item: str, canvas: torch.Tensor, question: Question, share: float) -> list[int]:
        """Count the votes of fresh copies for each class."""
        vote = self.model.vote(question)
        votes = torch.zeros(vote.classes, dtype=torch.int64, device=canvas.device)
        orders = map(self._orders("count", item, question, share), count())
        for chunk, start in enumerate(range(0, self.spec.n, _CHUNK)):
            rng = generator(canvas.device, self.seed, "falsify", "count", item, str(share), chunk)
            drawn = self.noise.draw(canvas, min(_CHUNK, self.spec.n - start), rng)
            copies = self.noise.apply(canvas, drawn)
            for part in torch.split(copies, self.batch):
                asked = list(islice(orders, len(part))) if self.option_order == "random" else None
                votes += torch.bincount(vote(part, asked), minlength=vote.classes)
        return [int(count) for count in votes.tolist()]

    def _orders(self, purpose: str, item: str, question: Question, share: float) -> Callable[[int], Order]:
        """Map a copy's number to the order in which it is asked."""
        return partial(order_of, len(question.options), self.seed, "falsify", purpose, "order", item, str(share))


@dataclass(frozen=True, kw_only=True)
class _Reordered:
    """The scores of one question whose options stand in the next of these orders, for each row of each call.

    Scores are returned in the question's own order. It has one question, so that `take` takes any number of rows.
    """

    model: Waist
    question: Question
    orders: Iterator[Order]

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        orders = list(islice(self.orders, len(canvas)))
        log_probs = self.model.classify([self.question.reordered(order) for order in orders])(canvas)
        places = torch.tensor(orders, device=canvas.device).argsort(1)  # the inverse: the place of each option
        return log_probs.gather(1, places)

    def take(self, rows: Sequence[int]) -> Self:
        return self
