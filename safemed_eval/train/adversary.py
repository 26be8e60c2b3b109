"""The adversary inside training: PGD on the rows of a batch, for supervised fine-tuning and GRPO alike."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from safemed_eval.attacks.pgd import PGD
from safemed_eval.core import Classify
from safemed_eval.models.checkpoints.processor import picture
from safemed_eval.models.checkpoints.protocols import Network
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator, seed_of
from safemed_eval.smoothing.bands import ablated
from safemed_eval.train._recipe import Ablation, Threats
from safemed_eval.train._rows import Row, to_canvas


@dataclass(frozen=True, kw_only=True)
class Perturbed:
    """The rows after the adversary, in the same order, and statistics of the attacked ones.

    Losses are cross-entropies over the options of the question, by the letter after the template's cue; None where no
    row was attacked.
    """

    rows: list[Row]
    attacked: list[int] = field(default_factory=list)
    """The places of the attacked rows."""
    eps: float = 0.0
    clean_loss: float | None = None
    adversarial_loss: float | None = None
    flipped: float | None = None
    """Share of the attacked rows whose answer the attack turned from right to wrong."""
    seconds: float = 0.0

    @property
    def metrics(self) -> dict[str, float]:
        """The statistics for the training log, without unknown ones."""
        values = {
            "adversary/eps": self.eps,
            "adversary/clean_loss": self.clean_loss,
            "adversary/loss": self.adversarial_loss,
            "adversary/flipped": self.flipped,
            "adversary/seconds": self.seconds,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """Attacks some rows of a batch, adds noise to all of them, and ablates some.

    The network runs in eval mode, and only pixels get gradients (`autograd.grad`): `.grad` and `requires_grad` of the
    weights stay untouched, since a change would corrupt the training step, or lose gradients under FSDP. Adversarial
    images are on 8-bit grey levels, and none has a lower loss than its clean image.

    Args:
        model: the network in training, behind the waist; its template is the one that is trained.
        threats: the attack; None leaves images clean.
        noise_sigma: standard deviation of Gaussian noise added at the end, in [0, 1] pixel units and not clamped, as
            under smoothing (Cohen et al. 2019). The image is then a float tensor on the scale [0, 255], not PIL.
        ablate: ablation to a band of columns, last of all, as in certificates against patches (Salman et al. 2022). All
            images are then float tensors, too: the mean colour is no 8-bit colour.
    """

    model: Waist
    threats: Threats | None
    noise_sigma: float = 0.0
    ablate: Ablation | None = None
    seed: int = 0

    def perturb(self, rows: Sequence[Row], *, step: int = 0, progress: float = 1.0) -> Perturbed:
        """Return the rows with adversarial, noisy and ablated images.

        Args:
            step: optimizer steps so far; with the row's id it seeds random starts, noise, and the places of bands.
            progress: completed share of the training, for the warm-up of eps.
        """
        started = time.perf_counter()
        done = self._attacked(rows, step, progress) if self.threats else Perturbed(rows=list(rows))
        if self.noise_sigma:
            done = replace(done, rows=[self._noisy(row, step) for row in done.rows])
        if self.ablate:
            done = replace(done, rows=[self._ablated(row, step, self.ablate) for row in done.rows])
        return replace(done, seconds=time.perf_counter() - started)

    def _attacked(self, rows: Sequence[Row], step: int, progress: float) -> Perturbed:
        assert self.threats is not None
        attack = self.threats.attack(progress)
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            if np.random.default_rng(seed_of(self.seed, "attacked", step, row["id"])).random() < self.threats.share:
                by_size[row["image"].size].append(place)
        result, clean, attacked = list(rows), list[_Read](), list[_Read]()
        with in_eval_mode(self.model.scorer.model):
            for places in by_size.values():
                images, before, after = self._search([rows[place] for place in places], attack, step)
                clean.append(before)
                attacked.append(after)
                for place, image in zip(places, images, strict=True):
                    result[place] = {**rows[place], "image": picture(image)}
        if not clean:
            return Perturbed(rows=result, eps=attack.threat.eps)
        losses, right = (torch.cat(parts) for parts in zip(*clean, strict=True))
        new_losses, still_right = (torch.cat(parts) for parts in zip(*attacked, strict=True))
        return Perturbed(
            rows=result,
            attacked=sorted(place for places in by_size.values() for place in places),
            eps=attack.threat.eps,
            clean_loss=float(losses.mean()),
            adversarial_loss=float(new_losses.mean()),
            flipped=float((right & ~still_right).float().mean()),
        )

    def _search(self, rows: Sequence[Row], attack: PGD, step: int) -> tuple[torch.Tensor, _Read, _Read]:
        """Return (B, 3, H, W) attacked canvases, and losses and correctness before and after."""
        device = self.model.device
        classify = self.model.classify([row["question"] for row in rows])
        labels = torch.tensor([row["label"] for row in rows], device=device)
        clean = torch.stack([to_canvas(row["image"]) for row in rows]).to(device)
        generators = [generator(device, self.seed, "adversary", step, row["id"]) for row in rows]
        attacked = attack(classify, clean, labels, generators, quantize=True).canvas
        before, after = _read(classify, clean, labels), _read(classify, attacked, labels)
        easier = after.loss < before.loss
        keep = easier.view(-1, 1, 1, 1)
        return (
            clean.where(keep, attacked),
            before,
            _Read(*(a.where(easier, b) for a, b in zip(before, after, strict=True))),
        )

    def _noisy(self, row: Row, step: int) -> Row:
        canvas = to_canvas(row["image"])
        rng = generator("cpu", self.seed, "noise", step, row["id"])
        return {**row, "image": (canvas + torch.empty_like(canvas).normal_(0, self.noise_sigma, generator=rng)) * 255}

    def _ablated(self, row: Row, step: int, ablate: Ablation) -> Row:
        rng = np.random.default_rng(seed_of(self.seed, "ablated", step, row["id"]))
        canvas = to_canvas(row["image"])
        if rng.random() < ablate.share:
            start = int(rng.integers(canvas.shape[2]))
            canvas = ablated(canvas, [start], ablate.band, self.model.fill)[0]
        return {**row, "image": canvas * 255}


class _Read(NamedTuple):
    """(B,) cross-entropies of the gold options, and (B,) bools: gold is the likeliest."""

    loss: torch.Tensor
    right: torch.Tensor


@torch.no_grad()
def _read(classify: Classify, canvas: torch.Tensor, labels: torch.Tensor) -> _Read:
    log_probs = classify(canvas)
    return _Read(-log_probs.gather(1, labels.unsqueeze(1)).squeeze(1), log_probs.argmax(1) == labels)


@contextmanager
def in_eval_mode(network: Network) -> Iterator[None]:
    """Put a network in training into eval mode for a while."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
