"""Certification of items: items in, records out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any, Literal, TypeVar

import torch

from safemed_eval.core import Certificate, Domain, Item, OptionOrder, Order, Question, Vote, item_fields
from safemed_eval.data import Canvas, Donor
from safemed_eval.faults import FAULTS, ShrinkingBatch, is_fault
from safemed_eval.models.waist import Waist
from safemed_eval.runs.record import CertifyRecord, PatchShot, Shot, asks_donor
from safemed_eval.runs.work.evaluate import blank
from safemed_eval.runs.work.shown import Shown, shown_of
from safemed_eval.seeds import generator, order_of
from safemed_eval.smoothing import Budget, DonorVote, Exhaustive, Ladder, Sequential, View
from safemed_eval.smoothing.bands import certify_bands
from safemed_eval.smoothing.certify import Orders, certify_gold, count_votes
from safemed_eval.smoothing.certify import certify as certify_image

T = TypeVar("T")
Purpose = Literal["select", "estimate"]
Falsify = Callable[[str, Shown, Question, Certificate], tuple[Shot, ...] | tuple[PatchShot, ...]]
"""Takes an item's id, image, question and certificate; returns the results of searches within its radius."""


@dataclass(kw_only=True)
class Certification:
    """Certifies items with a loaded model.

    Args:
        batch: noisy copies per batch, halved when memory runs out. The noise does not depend on it.
        falsify: attacks each certificate as soon as it is computed; see `falsify.Falsifier`.
        stop_when_wrong: skip the estimation for an item whose selected answer is wrong. It has no effect on sequential
            certificates, which are always for the gold answer.
        option_order: "random": each noisy copy is asked in an order of its own, drawn by item, purpose and number of
            the copy.
        grounding: settings of the vote on the donor's image; None: there is none.
        domain: "file": certificates are about the images at their own size.
        donors: the items whose images are shown then, by the id of the item that is asked; without one a blank image.
    """

    model: Waist
    canvas: Canvas
    smoothing: Budget
    seed: int
    batch: int
    falsify: Falsify | None = None
    stop_when_wrong: bool = False
    option_order: OptionOrder = "data"
    grounding: DonorVote | None = None
    domain: Domain = "canvas"
    donors: Mapping[str, Donor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._memory = ShrinkingBatch(self.batch)
        self._ladders: dict[View, Ladder] = {}

    def _ladder(self, view: View) -> Ladder:
        """The rule of sequential draws on such a canvas."""
        assert isinstance(self.smoothing, Sequential)
        if view not in self._ladders:
            self._ladders[view] = Ladder(self.smoothing, view)
        return self._ladders[view]

    def certify(self, item: Item) -> CertifyRecord:
        """Certify one item, and return its record."""
        started = time.perf_counter()

        def work(shown: Shown, vote: Vote) -> tuple[Certificate, dict[str, Any]]:
            certificate = self._memory.run(lambda size: self._certificate(item, shown, vote, size))
            more: dict[str, Any] = {"view": shown.view}
            if isinstance(self.smoothing, Exhaustive):
                more["fill"] = self.model.fill
            if self.falsify and certificate.radius is not None:
                more["falsified"] = self.falsify(item.id, shown, item.question, certificate)
            if self.grounding and asks_donor(certificate.votes0, item.label):
                more |= self._on_donor(item, shown.canvas, vote, self.grounding.n)
            return certificate, more

        done, error = self._safely(item, work)
        certificate, more = done or (None, {})
        return record(
            item,
            self.smoothing,
            certificate,
            **more,
            batch=self._memory.size,
            seconds=time.perf_counter() - started,
            error=error,
        )

    def count(self, item: Item, purpose: Purpose, first: int, n: int) -> Counted:
        """Count the votes of n of an item's noisy copies, starting at number `first`."""
        started = time.perf_counter()

        def work(shown: Shown, vote: Vote) -> tuple[tuple[int, ...], View]:
            return self._votes(item, shown.canvas, vote, purpose, n, first), shown.view

        done, error = self._safely(item, work)
        votes, view = done or (None, None)
        seconds = time.perf_counter() - started
        return Counted(votes=votes, view=view, error=error, batch=self._memory.size, seconds=seconds)

    def _votes(
        self, item: Item, canvas: torch.Tensor, vote: Vote, purpose: str, n: int, first: int = 0
    ) -> tuple[int, ...]:
        """Count the votes of n noisy copies of a canvas on the item's question."""
        streams, orders = partial(_rng, canvas.device, self.seed, item.id, purpose), self._orders(item)
        order = partial(orders, purpose) if orders else None
        assert not isinstance(self.smoothing, Exhaustive)
        noise = self.smoothing.kind
        return self._memory.run(
            lambda size: count_votes(vote, canvas, noise, n, size, streams, first=first, order=order)
        )

    def _on_donor(self, item: Item, canvas: torch.Tensor, vote: Vote, n: int) -> dict[str, Any]:
        """Let n noisy copies of the donor's image vote on the item's question.

        Unless the donor is of the same question with another gold answer, n of a blank image vote as well.
        """
        more: dict[str, Any] = {}
        donor = self.donors.get(item.id)
        if donor:
            shown = shown_of(donor.item, self.canvas, self.domain, canvas.device).canvas
            more |= {
                "donor": donor.item.id,
                "match": donor.match,
                "donor_votes": self._votes(item, shown, vote, "donor", n),
            }
        if not donor or donor.match != "question":
            more["blank_votes"] = self._votes(item, blank(canvas), vote, "blank", n)
        return more

    def _safely(self, item: Item, work: Callable[[Shown, Vote], T]) -> tuple[T | None, str | None]:
        """Do the work on the item's image, and return its result, or the error message if the item fails."""
        try:
            shown = shown_of(item, self.canvas, self.domain, self.model.device)
            return work(shown, self.model.vote(item.question)), None
        except FAULTS as fault:
            if not is_fault(fault):
                raise
            return None, str(fault)

    def _certificate(self, item: Item, shown: Shown, vote: Vote, batch: int) -> Certificate:
        canvas, view = shown.canvas, shown.view
        if isinstance(self.smoothing, Exhaustive):
            return certify_bands(vote, canvas, self.smoothing.kind, fill=self.model.fill, batch=batch)
        rng, orders = partial(_rng, canvas.device, self.seed, item.id), self._orders(item)
        if isinstance(self.smoothing, Sequential):
            ladder = self._ladder(view)
            return certify_gold(vote, canvas, ladder, gold=item.label, rng=rng, batch=batch, orders=orders)
        gold = item.label if self.stop_when_wrong else None
        return certify_image(vote, canvas, self.smoothing, rng=rng, batch=batch, gold=gold, orders=orders, view=view)

    def _orders(self, item: Item) -> Orders | None:
        """The orders in which the copies of an item are asked; None: all in its own."""
        if self.option_order == "data":
            return None
        return partial(_order, len(item.question.options), self.seed, item.id)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The votes of some of an item's draws for the classes 0 .. K, and the canvas they were drawn on, or the error."""

    votes: tuple[int, ...] | None
    error: str | None
    view: View | None = None
    batch: int | None = None
    seconds: float = 0.0


def record(item: Item, spec: Budget, certificate: Certificate | None, **values: Any) -> CertifyRecord:
    """Build the record of an item; `certificate` is None if it failed."""
    own = {f.name: getattr(certificate, f.name) for f in fields(certificate)} if certificate else {"prediction": None}
    whole = item_fields(item) | {"sampling": spec.sampling} | asdict(spec) | own | values
    whole = {name: tuple(value) if isinstance(value, list) else value for name, value in whole.items()}
    return CertifyRecord(**whole, correct=certificate is not None and certificate.prediction == item.label)


def _rng(device: torch.device, seed: int, item: str, purpose: str, chunk: int) -> torch.Generator:
    return generator(device, seed, "certify", item, purpose, chunk)


def _order(options: int, seed: int, item: str, purpose: str, copy: int) -> Order:
    return order_of(options, seed, "option order", item, purpose, copy)
