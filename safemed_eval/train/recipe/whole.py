"""Recipes: all settings of a training, checked before anything expensive starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from safemed_eval.errors import did_you_mean
from safemed_eval.scale import refuse_sigma
from safemed_eval.train.recipe.limits import MAX_LOADER_WORKERS, MAX_ROWS, MAX_STEPS, MAX_WIDTH, refuse_counts
from safemed_eval.train.recipe.parts import Ablation, Groups, Lora, Threats
from safemed_eval.train.watch.settings import Validation, Watch

WARM_UP = 0.03
"""Share of the steps over which the learning rate rises; it then falls as a cosine."""

PARTS = ("vision", "language", "projector")

MAX_SAMPLES = 16
"""Items that samples are taken of, at most: each is two small images and some texts on a page."""

Method = Literal["sft", "at-sft", "grpo", "at-grpo"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of one training of a checkpoint.

    Args:
        threats: the adversary; None trains on clean images.
        groups: the settings of GRPO; None is supervised fine-tuning.
        noise_sigma: Gaussian noise added to every image, for a model that will be smoothed. 0: none.
        ablate: ablation of images to a band of their columns; None: none.
        freeze: parts of the network that are not trained, of "vision", "language" and "projector".
        steps: optimizer steps; None: as many as `epochs` need.
        batch_size: rows per device and step (for GRPO: completions); `accumulate` steps make one update.
        learning_rate: highest learning rate, after a warm-up over 3 % of the steps; it then falls as a cosine.
        bf16: compute in bfloat16, with weights as they are loaded.
        loader_workers: processes that decode images beside the training; 0: the training does it.
        validation: evaluations that choose the weights to save; None: the last weights are saved.
        watch: what is kept and reported.
        samples: items that the model is asked about on their clean and attacked images, to show what it writes.
    """

    method: Method
    threats: Threats | None = None
    groups: Groups | None = None
    noise_sigma: float = 0.0
    ablate: Ablation | None = None
    lora: Lora | None = None
    freeze: tuple[str, ...] = ()
    steps: int | None = None
    epochs: float = 1.0
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float
    weight_decay: float = 0.0
    bf16: bool = False
    gradient_checkpointing: bool = False
    loader_workers: int = 0
    save_every: int = 200
    seed: int = 0
    validation: Validation | None = None
    watch: Watch = field(default_factory=Watch)
    samples: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.loader_workers <= MAX_LOADER_WORKERS:
            raise ValueError(f"loader_workers must be in 0 to {MAX_LOADER_WORKERS}, got {self.loader_workers}")
        if not 0 <= self.samples <= MAX_SAMPLES:
            raise ValueError(f"samples must be at least 0, and at most {MAX_SAMPLES}, got {self.samples}")
        refuse_counts(batch_size=(self.batch_size, MAX_ROWS), accumulate=(self.accumulate, MAX_ROWS))
        refuse_counts(
            save_every=(self.save_every, MAX_STEPS), steps=(1 if self.steps is None else self.steps, MAX_STEPS)
        )
        if not 0 < self.epochs < math.inf:
            raise ValueError(f"epochs must be above 0, got {self.epochs:g}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate:g}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay:g}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), got {self.seed}")
        if self.threats and self.threats.aim == "kl" and (self.noise_sigma or self.ablate):
            raise ValueError("adversary kl compares attacked images with clean ones; leave noise_sigma and ablate out")
        if self.threats and self.threats.aim == "kl" and self.groups and self.groups.loss != "grpo":
            raise ValueError("adversary kl averages as loss grpo does; leave loss out")
        if self.noise_sigma and self.groups and self.groups.vllm:
            raise ValueError("vLLM takes 8-bit images, which cannot hold noise beyond [0, 1]; leave one of the two out")
        if self.ablate and self.groups and self.groups.vllm:
            raise ValueError("vLLM takes 8-bit images, which cannot hold a mean colour; leave vllm or ablate out")
        if self.noise_sigma:
            refuse_sigma(self.noise_sigma, "noise_sigma")
        if self.freeze and self.lora:
            raise ValueError("an adapter leaves all weights as they are; choose its layers by targets, without freeze")
        for part in self.freeze:
            if part not in PARTS:
                raise ValueError(f"freeze: '{part}' is not a part; {did_you_mean(part, PARTS)}")
        if {*self.freeze} == {*PARTS}:
            raise ValueError("freeze: leaves nothing to train; name fewer parts")
        rows = self.batch_size * self.accumulate
        if self.groups and rows % self.groups.size:
            raise ValueError(
                f"a group of {self.groups.size} does not divide the {rows} rows of a batch (batch_size x accumulate)"
            )


@dataclass(frozen=True, kw_only=True)
class DenoiserRecipe:
    """All settings of one training of a denoiser for a frozen model.

    Args:
        sigma: standard deviation of the noise to remove, in [0, 1] pixel units.
        mse_share: share of the steps, from the first, with the mean squared error as loss; the rest trains the denoiser
            to preserve the model's answer. 1: denoising only, 0: the answer from the start.
        width, blocks: size of the network, see `models.denoiser.Shape`.
        steps: optimizer steps.
        batch_size: rows per device and step.
        learning_rate: highest learning rate of the denoising phase.
        stability_learning_rate: highest learning rate of the second phase. Both phases have a warm-up over 3 % of their
            steps, after which the rate falls as a cosine.
    """

    sigma: float
    mse_share: float = 0.5
    width: int = 64
    blocks: int = 4
    steps: int = 5000
    batch_size: int = 32
    learning_rate: float = 1e-3
    stability_learning_rate: float = 3e-5
    save_every: int = 200
    seed: int = 0
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        refuse_sigma(self.sigma)
        if not 0 <= self.mse_share <= 1:
            raise ValueError(f"mse_share is a share of the steps, in [0, 1], got {self.mse_share:g}")
        refuse_counts(
            width=(self.width, MAX_WIDTH), blocks=(self.blocks, MAX_WIDTH), batch_size=(self.batch_size, MAX_ROWS)
        )
        refuse_counts(steps=(self.steps, MAX_STEPS), save_every=(self.save_every, MAX_STEPS))
        for name in ("learning_rate", "stability_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name):g}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), got {self.seed}")

    @property
    def mse_steps(self) -> int:
        """Number of steps, from the first, with the mean squared error as loss."""
        return round(self.mse_share * self.steps)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        first = self.mse_steps
        highest, start, end = self.learning_rate, 0, first
        if step >= first:
            highest, start, end = self.stability_learning_rate, first, self.steps
        done, steps = step - start, max(1, end - start)
        return highest * min(1.0, (done + 1) / (WARM_UP * steps)) * (1 + math.cos(math.pi * done / steps)) / 2
