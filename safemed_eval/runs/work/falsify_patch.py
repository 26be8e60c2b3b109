"""Attacks on certificates against patches: search inside patches of each certified size, and count the votes again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from safemed_eval.core import Certificate, Classify, Question
from safemed_eval.models.waist import Waist
from safemed_eval.runs.record import PatchShot
from safemed_eval.runs.work.shown import Shown
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Patch, PatchSearch
from safemed_eval.smoothing.bands import ablated
from safemed_eval.smoothing.votes import selected
from safemed_eval.threat import Rectangle

_TOGETHER = 16
"""Copies in memory together for a gradient, at most."""
_TRAVEL = 2.5
"""All steps together may cross [0, 1] this many times."""


@dataclass(frozen=True, kw_only=True)
class PatchFalsifier:
    """Attacks the certificates against patches of one model.

    At some places, patches of the certified size start with random pixels and descend, by gradient signs, on the mean
    over all bands of how far the runner-up is from winning the band's vote. Then every band votes again. The
    certificate is refuted if another class has most votes, if a vote changed of a band that shows none of the patch,
    or, without any patch, if the votes are other than the certificate's.

    Bands are placed and laid over patches here, not by `noise.Patch`, so that an error there cannot hide itself. Copies
    are ablated as the certificate's were: that they depend on their band alone is part of what is tested.

    Args:
        batch: copies in memory together when voting.
        keep: called with the item, the number of the patch (0: without any) and the (3, H, W) canvas that refuted.
    """

    model: Waist
    spec: PatchSearch
    patch: Patch
    seed: int
    batch: int
    keep: Callable[[str, float, torch.Tensor], None]

    def __call__(self, item: str, shown: Shown, question: Question, certificate: Certificate) -> tuple[PatchShot, ...]:
        """Search at each place, and return the votes under each patch.

        Args:
            item: id of the item, which seeds the search.
            shown: the image that was certified.
        Raises:
            ModelOutputError: the model returned NaN or infinite scores or gradients.
        """
        canvas = shown.canvas
        assert certificate.radius is not None and certificate.prediction is not None and certificate.votes is not None
        size, classes = int(certificate.radius), len(certificate.votes)
        before = self._votes(canvas, question)
        places = [Rectangle(top=0, left=0, height=0, width=0)]
        height, width = canvas.shape[1:]
        rng = generator(canvas.device, self.seed, "falsify", "patch", item)
        for _ in range(self.spec.positions if size else 0):
            sides = [min(size, whole) for whole in (height, width)]
            top, left = (
                int(torch.randint(whole - side + 1, (), generator=rng, device=canvas.device))
                for whole, side in zip((height, width), sides, strict=True)
            )
            places.append(Rectangle(top=top, left=left, height=sides[0], width=sides[1]))
        rival = selected(tuple(-1 if c == certificate.prediction else n for c, n in enumerate(certificate.votes[:-1])))
        shots: list[PatchShot] = []
        for number, place in enumerate(places):
            moved = self._search(canvas, question, place, rival, rng) if place.width else canvas
            after = self._votes(moved, question)
            votes = torch.bincount(after, minlength=classes).tolist()
            shot = PatchShot(
                size=size if place.width else 0,
                top=place.top,
                left=place.left,
                votes=tuple(votes),
                unexplained=int(((before != after) & ~self._meets(place, canvas.shape[2]).to(after.device)).sum()),
            )
            shots.append(shot)
            if shot.refutes(certificate.votes):
                self.keep(item, float(number), moved)
        return tuple(shots)

    def _starts(self, width: int) -> list[int]:
        return list(range(0, width, self.patch.stride))

    def _meets(self, place: Rectangle, width: int) -> torch.Tensor:
        """(n,) bool: the bands that show a column of the patch, column by column."""
        columns = {*range(place.left, place.left + place.width)}
        shown = ({(start + step) % width for step in range(self.patch.band)} for start in self._starts(width))
        return torch.tensor([bool(columns & band) for band in shown])

    @torch.no_grad()
    def _votes(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
        """(n,) int64: the vote of each band."""
        vote = self.model.vote(question)
        return torch.cat([vote(self._copies(canvas, part)) for part in self._parts(canvas.shape[2], self.batch)])

    def _parts(self, width: int, size: int) -> list[list[int]]:
        starts = self._starts(width)
        return [starts[first : first + size] for first in range(0, len(starts), size)]

    def _copies(self, canvas: torch.Tensor, starts: list[int]) -> torch.Tensor:
        return ablated(canvas, starts, self.patch.band, self.model.fill)

    def _search(
        self, canvas: torch.Tensor, question: Question, place: Rectangle, rival: int, rng: torch.Generator
    ) -> torch.Tensor:
        """Return the canvas with the patch that was found."""
        moved = canvas.clone()
        patch = place.inside(moved)
        patch.uniform_(generator=rng)
        for _ in range(self.spec.steps):
            slope = torch.zeros_like(moved)
            for part in self._parts(canvas.shape[2], min(self.batch, _TOGETHER)):
                classify: Classify = self.model.classify([question] * len(part))
                point = moved.clone().requires_grad_(True)
                log_probs = classify(self._copies(point, part))
                others = log_probs.clone()
                others[:, rival] = -torch.inf
                lacking = (others.amax(1) - log_probs[:, rival]).clamp_min(-1).sum()  # a vote that is won is won
                slope += torch.autograd.grad(lacking, point)[0]
            patch.sub_(_TRAVEL / self.spec.steps * place.inside(slope).sign()).clamp_(0, 1)
        return moved
