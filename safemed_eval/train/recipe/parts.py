"""Parts of a recipe: the adapter, the adversary, the groups of GRPO, ablation."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from safemed_eval.attacks.pgd import PGD
from safemed_eval.scale import GREY_LEVEL
from safemed_eval.threat import Norm, Threat
from safemed_eval.train._vllm import read_vllm
from safemed_eval.train.recipe.limits import MAX_DRAWS, MAX_TOKENS, MAX_WIDTH, refuse_counts
from safemed_eval.train.rewards.functions import RewardFunction

Aim = Literal["letter", "answer", "reward", "kl"]
Loss = Literal["grpo", "dr-grpo", "dapo", "bnpo"]


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A low-rank adapter on linear layers, but not on the output head.

    Args:
        r: rank.
        alpha: the adapter is scaled by alpha / r; by default 2 r.
        dropout: dropout rate.
        targets: the linear layers: "all", "language", "vision", "projector", or a regular expression that the whole
            name of a layer matches.
    """

    r: int
    alpha: int | None = None
    dropout: float = 0.0
    targets: str = "all"

    def __post_init__(self) -> None:
        if self.r < 1 or (self.alpha is not None and self.alpha < 1):
            raise ValueError("r and alpha must be at least 1")
        if self.r > MAX_WIDTH:
            raise ValueError(f"r must be at most {MAX_WIDTH:,}, got {self.r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout:g}")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise ValueError(f"targets: '{self.targets}' is not a regular expression: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Threats:
    """The adversary inside training.

    Args:
        eps: attack bound in [0, 1] pixel units, at least one grey level; by default that of the attack pgd.
        steps: gradient steps of the inner loop.
        step: step size as a fraction of eps; by default that of the attack pgd.
        norm: norm of the bound.
        share: share of the rows that are attacked; the others stay clean, which keeps clean accuracy.
        warm_up: share of the training over which eps grows from 0 (for L-infinity, from one grey level).
        aim: the quantity that is maximised, see `objectives`: only GRPO's adversary has a choice.
        kl_weight, gain_weight: the weights b and c of the loss on attacked images where the aim is "kl", see
            `_trainers.AdversarialGRPO`.
    """

    eps: float | None = None
    steps: int = 5
    step: float | None = None
    norm: Norm = "linf"
    share: float = 0.75
    warm_up: float = 0.2
    aim: Aim = "letter"
    kl_weight: float = 1.0
    gain_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.aim not in get_args(Aim):
            raise ValueError(f"the adversary is one of {', '.join(get_args(Aim))}, got {self.aim!r}")
        if self.aim != "kl" and (self.kl_weight, self.gain_weight) != (1.0, 1.0):
            raise ValueError("kl_weight and gain_weight have no effect without adversary kl")
        if not (0 <= self.kl_weight < math.inf and 0 <= self.gain_weight < math.inf):
            raise ValueError("kl_weight and gain_weight must be at least 0")
        if not 0 < self.share <= 1:
            raise ValueError(f"the share of attacked rows must be in (0, 1], got {self.share:g}")
        if not 0 <= self.warm_up <= 1:
            raise ValueError(f"warm_up is a share of the training, in [0, 1], got {self.warm_up:g}")
        threat = self.attack(1.0).threat
        if threat.norm == "linf" and threat.eps < GREY_LEVEL * (1 - 1e-6):
            raise ValueError("eps is below 1/255: an image of 8 bits cannot be changed by so little")

    @property
    def ball(self) -> Threat:
        """The ball of the attack once its eps has grown."""
        return self.attack(1.0).threat

    def attack(self, progress: float) -> PGD:
        """Return the PGD attack at this progress in [0, 1], without early stopping: training needs the highest loss."""
        full = PGD(eps=self.eps, steps=self.steps, step=self.step, norm=self.norm, early_stop=False)
        grown = min(1.0, progress / self.warm_up) if self.warm_up else 1.0
        least = GREY_LEVEL if self.norm == "linf" else 1e-3 * full.threat.eps
        return replace(full, eps=min(full.threat.eps, max(least, grown * full.threat.eps)))


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The sampling and reward settings of GRPO.

    Args:
        size: completions per question (G in DeepSeekMath).
        beta: weight of the KL divergence from the model before training; 0 leaves the reference out.
        temperature: sampling temperature.
        max_new_tokens: length at which a completion is cut off.
        mask_truncated: completions that are cut off are left out of the loss, though not out of the mean reward of
            their group. A step in which all are cut off has a loss of 0 and trains nothing.
        correct, kept: weights of the two rewards, see `rewards`.
        readout: the reward `correct` either parses the answer from the completion ("generate"), or takes the policy's
            likeliest letter after the completion's thought, on the same image ("think-choice").
        vllm: how TRL samples with vLLM, see `_vllm.read_vllm`; None: without vLLM. Probabilities of vLLM differ by
            rounding, which TRL corrects: the loss of a completion is multiplied by the ratio of its probability in
            training to that in vLLM, and left out where that is above 3.
        loss: how the losses of tokens are summed up, as TRL names it. The ratio is 1 in all of them, and nothing is
            clipped. "grpo": the mean over a completion's tokens, then over completions (DeepSeekMath,
            arXiv:2402.03300): a token of a longer completion counts less. "dapo": the mean over all tokens of the
            completions of a step, on all devices (DAPO, arXiv:2503.14476; its other parts, such as a wider clip range,
            are not in it). "bnpo": the same mean over the tokens of each batch alone, so that it depends on the batch
            size; TRL names no paper for it, and with one completion per batch it is "grpo". "dr-grpo": the sum over a
            completion's tokens divided by `max_new_tokens`, and advantages that are not divided by the group's standard
            deviation (Dr. GRPO, arXiv:2503.20783). Differs there from TRL's loss_type "dr_grpo", which divides
            them by default.
        functions: further rewards by functions of the user's own.
        resample_agreeing: how often, at most, groups whose completions all earn the same are drawn again.
    """

    size: int = 8
    beta: float = 0.04
    temperature: float = 1.0
    max_new_tokens: int = 256
    correct: float = 1.0
    kept: float = 0.2
    readout: Literal["generate", "think-choice"] = "generate"
    vllm: str | None = None
    mask_truncated: bool = True
    loss: Loss = "grpo"
    functions: tuple[RewardFunction, ...] = ()
    resample_agreeing: int = 0

    def __post_init__(self) -> None:
        if self.vllm is not None:
            read_vllm(self.vllm)
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, got {self.loss!r}")
        if not 0 <= self.resample_agreeing <= MAX_DRAWS:
            raise ValueError(f"resample_agreeing must be in 0 to {MAX_DRAWS}, got {self.resample_agreeing}")
        if self.resample_agreeing and self.vllm:
            raise ValueError("resample_agreeing does not work with vllm; leave one of the two out")
        if self.size < 2:
            raise ValueError(f"a group needs at least 2 completions to compare, got {self.size}")
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta must be at least 0, got {self.beta:g}")
        if not (0 <= self.correct < math.inf and 0 <= self.kept < math.inf and self.correct > 0):
            raise ValueError("the reward of a right answer must be above 0, that of the form at least 0")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be above 0, got {self.temperature:g}")
        refuse_counts(max_new_tokens=(self.max_new_tokens, MAX_TOKENS))


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Ablation inside training, for a model that will be certified against patches.

    Args:
        band: columns of the canvas that stay; all others get the mean colour. Where the band lies is drawn anew for
            each row and step, among all columns of the canvas and with wrap-around.
        share: share of the rows that are ablated; the others stay whole, which keeps clean accuracy.
    """

    band: int
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.band < 1:
            raise ValueError(f"band is a number of columns, at least 1, got {self.band}")
        if not 0 < self.share <= 1:
            raise ValueError(f"the share of ablated rows must be in (0, 1], got {self.share:g}")
