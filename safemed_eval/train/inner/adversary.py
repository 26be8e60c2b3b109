"""The adversary inside training: PGD on the rows of a batch, for supervised fine-tuning and GRPO alike."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from safemed_eval.attacks.pgd import PGD
from safemed_eval.faults import faults_of_the_model, refuse_broken_gradient
from safemed_eval.models.checkpoints.processor import picture
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator, seed_of
from safemed_eval.smoothing.bands import ablated
from safemed_eval.train._rows import Row, to_canvas
from safemed_eval.train.inner.modes import inner_loop
from safemed_eval.train.inner.objectives import (
    Divergence,
    Letter,
    LetterAfterThought,
    MinusReward,
    Objective,
    Policy,
    Read,
    Tokens,
)
from safemed_eval.train.recipe import Ablation, Aim, Threats


@dataclass(frozen=True, kw_only=True)
class Perturbed:
    """The rows after the adversary, in the same order, and statistics of the attacked ones.

    Losses are cross-entropies over the options of the question, or else what the adversary maximises; None where no
    row was attacked.
    """

    rows: list[Row]
    attacked: list[int] = field(default_factory=list)
    """The places of the attacked rows."""
    eps: float = 0.0
    clean_loss: float | None = None
    adversarial_loss: float | None = None
    flipped: float | None = None
    """Share of the attacked rows whose answer the attack turned from right to wrong; None where none is read."""
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

    The network runs in eval mode, with gradient checkpointing where it is switched on, and only pixels get gradients
    (`autograd.grad`): `.grad` of the weights stays untouched, and `requires_grad` is afterwards as it was; see
    `inner_loop`. Adversarial images are on 8-bit grey levels, and none is easier than
    its clean image, by the quantity that was maximised.

    Args:
        model: the network in training, behind the waist; its template is the one that is trained.
        threats: the attack; None leaves images clean.
        at_once: rows that fit into memory together; None: all.
        policy: what samples and rewards completions; not needed to aim at the letter.
        noise_sigma: standard deviation of Gaussian noise added at the end, in [0, 1] pixel units and not clamped, as
            under smoothing (Cohen et al. 2019). The image is then a float tensor on the scale [0, 255], not PIL.
        ablate: ablation to a band of columns, last of all, as in certificates against patches (Salman et al. 2022). All
            images are then float tensors, too: the mean colour is no 8-bit colour.
    """

    model: Waist
    threats: Threats | None
    at_once: int | None = None
    policy: Policy | None = None
    noise_sigma: float = 0.0
    ablate: Ablation | None = None
    seed: int = 0

    @property
    def aim(self) -> Aim:
        """The quantity that is maximised, see `objectives`."""
        return self.threats.aim if self.threats else "letter"

    def perturb(
        self,
        rows: Sequence[Row],
        *,
        step: int = 0,
        progress: float = 1.0,
        right: Sequence[Counter[Tokens]] | None = None,
    ) -> Perturbed:
        """Return the rows with adversarial, noisy and ablated images.

        Args:
            step: optimizer steps so far; with the row's id it seeds random starts, noise, and the places of bands.
            progress: completed share of the training, for the warm-up of eps.
            right: to aim at "kl", the completions of each row's clean image that answer rightly, counted.
        """
        started = time.perf_counter()
        done = self._attacked(rows, step, progress, right) if self.threats else Perturbed(rows=list(rows))
        if self.noise_sigma:
            done = replace(done, rows=[self._noisy(row, step) for row in done.rows])
        if self.ablate:
            done = replace(done, rows=[self._ablated(row, step, self.ablate) for row in done.rows])
        return replace(done, seconds=time.perf_counter() - started)

    def _attacked(
        self, rows: Sequence[Row], step: int, progress: float, right: Sequence[Counter[Tokens]] | None
    ) -> Perturbed:
        assert self.threats is not None
        attack = self.threats.attack(progress)
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            if np.random.default_rng(seed_of(self.seed, "attacked", step, row["id"])).random() < self.threats.share:
                by_size[row["image"].size].append(place)
        result, clean, attacked = list(rows), list[Read](), list[Read]()
        with inner_loop(self.model.scorer.model):
            for places in [part for alike in by_size.values() for part in self._parts(alike)]:
                chosen = [rows[place] for place in places]
                said = [right[place] for place in places] if right else []
                images, before, after = self._search(chosen, attack, step, said)
                clean.append(before)
                attacked.append(after)
                for place, image in zip(places, images, strict=True):
                    result[place] = {**rows[place], "image": picture(image)}
        done = Perturbed(
            rows=result,
            attacked=sorted(place for places in by_size.values() for place in places),
            eps=attack.threat.eps,
        )
        if not clean:
            return done
        flips = [
            a.right & ~b.right
            for a, b in zip(clean, attacked, strict=True)
            if a.right is not None and b.right is not None
        ]
        return replace(
            done,
            clean_loss=float(torch.cat([read.loss for read in clean]).mean()),
            adversarial_loss=float(torch.cat([read.loss for read in attacked]).mean()),
            flipped=float(torch.cat(flips).float().mean()) if flips else None,
        )

    def _parts(self, places: Sequence[int]) -> Iterator[Sequence[int]]:
        """Cut rows into parts that fit into memory: a group's sequences count where its texts are read."""
        most = self.at_once or len(places)
        if self.aim in ("reward", "kl") and self.policy:
            most = max(1, most // self.policy.size)
        yield from (places[start : start + most] for start in range(0, len(places), most))

    def _search(
        self, rows: Sequence[Row], attack: PGD, step: int, right: Sequence[Counter[Tokens]]
    ) -> tuple[torch.Tensor, Read, Read]:
        """Return (B, 3, H, W) attacked canvases, and losses and correctness before and after.

        The ascent is that of the attack pgd without early stopping, from a random point and on 8-bit grey levels. A
        goal that depends on samples gets new ones halfway.
        """
        device, threat = self.model.device, attack.threat
        clean = torch.stack([to_canvas(row["image"]) for row in rows]).to(device)
        objective = self._objective(rows, clean, step, right)
        x = threat.sample(clean, [generator(device, self.seed, "adversary", step, row["id"]) for row in rows])
        for taken in range(attack.steps):
            if taken and taken == attack.steps // 2:
                objective.refresh(threat.snap(clean, x))
            slope = _slope(objective, threat.snap(clean, x))
            x = threat.project(clean, x + attack.step_size * threat.direction(slope))
        attacked = threat.snap(clean, x)
        before, after = objective.read(clean), objective.read(attacked)
        easier = after.loss < before.loss
        if before.right is not None and after.right is not None:
            after = after._replace(right=before.right.where(easier, after.right))
        kept = clean.where(easier.view(-1, 1, 1, 1), attacked)
        return kept, before, after._replace(loss=before.loss.where(easier, after.loss))

    def _objective(
        self, rows: Sequence[Row], clean: torch.Tensor, step: int, right: Sequence[Counter[Tokens]]
    ) -> Objective:
        if self.aim == "letter" or self.policy is None:
            return Letter(self.model, rows)
        if self.aim == "answer":
            return LetterAfterThought(self.model, self.policy, rows, clean, step)
        return (
            MinusReward(self.policy, rows, clean, step)
            if self.aim == "reward"
            else Divergence(self.policy, rows, clean, right)
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


def _slope(objective: Objective, shown: torch.Tensor) -> torch.Tensor:
    """The gradient of the objective at these canvases; zero where it does not depend on the pixels.

    Raises:
        ModelOutputError: it is not finite.
    """
    shown = shown.detach().requires_grad_()
    with torch.enable_grad():
        value = objective.height(shown).sum()
    with faults_of_the_model():
        found = torch.autograd.grad(value, shown, allow_unused=True)[0] if value.requires_grad else None
    slope = torch.zeros_like(shown) if found is None else found
    refuse_broken_gradient(slope)
    return slope
