"""Recipes: all settings of a training, checked before anything expensive starts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypedDict, Unpack, get_args, get_type_hints

from safemed_eval import grammar
from safemed_eval.attacks.pgd import PGD
from safemed_eval.codec import fitted
from safemed_eval.data import AnyData
from safemed_eval.errors import SpecError, did_you_mean
from safemed_eval.scale import GREY_LEVEL, refuse_sigma
from safemed_eval.threat import Norm, Threat
from safemed_eval.train._vllm import canonical_vllm, read_vllm
from safemed_eval.train.rewards.functions import RewardFunction, rewards_of
from safemed_eval.train.watch.settings import Best, Validation, Watch, reporters, validation_of

WARM_UP = 0.03
"""Share of the steps over which the learning rate rises; it then falls as a cosine."""

MAX_WIDTH = 4096
"""Limit of an adapter's rank and of a denoiser's channels and blocks: larger values are typing errors."""
MAX_STEPS = 10**9
MAX_TOKENS = 10**6
MAX_ROWS = 2**16
MAX_LOADER_WORKERS = 256
MAX_DRAWS = 100

Aim = Literal["letter", "answer", "reward", "kl"]
PARTS = ("vision", "language", "projector")
THOUGHT_TOKENS, ANSWER_TOKENS = 512, 256
"""Default lengths of completions, with a thought (as `evaluate` has it) and without."""

MAX_SAMPLES = 16
"""Items that samples are taken of, at most: each is two small images and some texts on a page."""

Method = Literal["sft", "at-sft", "grpo", "at-grpo"]
Loss = Literal["grpo", "dr-grpo", "dapo", "bnpo"]

LEARNING_RATES: dict[tuple[bool, bool], float] = {
    (False, False): 1e-5,
    (False, True): 1e-4,
    (True, False): 1e-6,
    (True, True): 1e-5,
}
"""Default learning rates by (GRPO?, LoRA?): usual values for models of a few billion parameters."""


def _refuse(**counts: tuple[int, int]) -> None:
    """Raise ValueError if a count is below 1 or above its limit; each option is given as (count, limit)."""
    for name, (count, most) in counts.items():
        if not 1 <= count <= most:
            raise ValueError(f"{name} must be at least 1, and at most {most:,}, got {count}")


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
        _refuse(max_new_tokens=(self.max_new_tokens, MAX_TOKENS))


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
        _refuse(batch_size=(self.batch_size, MAX_ROWS), accumulate=(self.accumulate, MAX_ROWS))
        _refuse(save_every=(self.save_every, MAX_STEPS), steps=(1 if self.steps is None else self.steps, MAX_STEPS))
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
        _refuse(width=(self.width, MAX_WIDTH), blocks=(self.blocks, MAX_WIDTH), batch_size=(self.batch_size, MAX_ROWS))
        _refuse(steps=(self.steps, MAX_STEPS), save_every=(self.save_every, MAX_STEPS))
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


class TrainOptions(TypedDict, total=False):
    """The options of `train`, named as on the command line; missing options have the recipe's defaults."""

    steps: int | None
    epochs: float
    batch_size: int
    accumulate: int
    learning_rate: float | None
    weight_decay: float
    noise_sigma: float | str
    ablate: str | None
    lora: str | None
    freeze: Sequence[str] | None
    bf16: bool
    gradient_checkpointing: bool
    loader_workers: int
    save_every: int
    seed: int
    eps: float | str | None
    attack_steps: int
    attack_step: float | None
    norm: Norm
    attack_share: float
    eps_warm_up: float
    adversary: Aim | None
    kl_weight: float
    gain_weight: float
    group_size: int
    beta: float
    temperature: float
    max_new_tokens: int | None
    reward_correct: float
    reward_kept: float
    readout: Literal["generate", "think-choice"]
    vllm: str | None
    sigma: float | str
    mse_share: float
    stability_learning_rate: float
    width: int
    blocks: int
    eval_data: AnyData | None
    eval_every: int | None
    eval_attack: str | None
    best: Best | None
    patience: int | None
    keep: int
    keep_checkpoints: bool
    report_to: str | Sequence[str] | None
    samples: int
    loss: Loss
    reward: str | Sequence[str] | None
    resample_agreeing: int


_OF_THREATS = {
    "eps": "eps",
    "attack_steps": "steps",
    "attack_step": "step",
    "norm": "norm",
    "attack_share": "share",
    "eps_warm_up": "warm_up",
}
_OF_AIM = {"adversary": "aim", "kl_weight": "kl_weight", "gain_weight": "gain_weight"}
_OF_GROUPS = {
    "group_size": "size",
    "beta": "beta",
    "temperature": "temperature",
    "max_new_tokens": "max_new_tokens",
    "reward_correct": "correct",
    "reward_kept": "kept",
    "readout": "readout",
    "vllm": "vllm",
    "loss": "loss",
    "reward": "functions",
    "resample_agreeing": "resample_agreeing",
}
_PARTS = ("method", "threats", "groups", "validation", "watch")
_OWN = {f.name: f.name for f in fields(Recipe) if f.name not in _PARTS}
_OF_DENOISER = {f.name: f.name for f in fields(DenoiserRecipe) if f.name != "watch"}
_OF_WATCH = {f.name: f.name for f in fields(Watch)}
_OF_VALIDATION = dict.fromkeys(("eval_data", "eval_every", "eval_attack", "best", "patience"), "")
"""The options of the validation, which `validation_of` reads."""
_NUMBERS = ("eps", "noise_sigma", "sigma")
"""Options that may be given as fractions, such as 4/255."""


def recipe_of(
    method: Method | Literal["denoiser"],
    *,
    adapter: bool = False,
    thinks: bool = False,
    **options: Unpack[TrainOptions],
) -> Recipe | DenoiserRecipe:
    """Build the recipe from options.

    Args:
        adapter: True if the model to train is an adapter already.
        thinks: True if its template asks for a thought, for which completions may be longer, and at which AT-GRPO's
            adversary aims by default.
    Raises:
        SpecError: the method is unknown, it has no such option, or a value is out of range.
    """
    given: dict[str, Any] = dict(options)
    kinds = {"sft": (_OWN,), "at-sft": (_OWN, _OF_THREATS), "grpo": (_OWN, _OF_GROUPS)}
    kinds |= {"at-grpo": (_OWN, _OF_THREATS, _OF_AIM, _OF_GROUPS)}
    kinds = {name: (*parts, _OF_VALIDATION, _OF_WATCH) for name, parts in kinds.items()}
    kinds["denoiser"] = (_OF_DENOISER, _OF_WATCH)
    if method not in kinds:
        raise SpecError(f"train {method}: unknown method; {did_you_mean(method, kinds)}")
    known = {name for names in kinds[method] for name in names}
    for name in (name for name in given if name not in known):
        raise SpecError(f"train {method}: has no option {name}; {did_you_mean(name, known)}")
    hints = get_type_hints(TrainOptions)
    given = {name: fitted(value, hints[name], f"train {method}: {name}") for name, value in given.items()}
    if method == "denoiser" and given.get("sigma") is None:
        raise SpecError("train denoiser: needs a sigma, that of the noise to remove: 0.25, say")
    if method == "at-grpo" and given.get("adversary") is None:
        given["adversary"] = "reward" if thinks else "letter"
    for name in _NUMBERS:
        if isinstance(given.get(name), str):
            given[name] = grammar.number(given[name], f"--{name.replace('_', '-')}")
    for name, kind in (("lora", Lora), ("ablate", Ablation)):
        if isinstance(given.get(name), str):
            given[name] = grammar.build(kind, grammar.split(f"{name}:{given[name]}")[1], f"--{name}")
    given["report_to"] = reporters(given.get("report_to") or ())
    if "reward" in given:
        given["reward"] = rewards_of(given["reward"] or ())

    if given.get("max_new_tokens", 0) is None:
        given["max_new_tokens"] = THOUGHT_TOKENS if thinks else ANSWER_TOKENS
    if given.get("vllm"):
        given["vllm"] = canonical_vllm(given["vllm"])
    if "freeze" in given:
        given["freeze"] = tuple(dict.fromkeys(given["freeze"] or ()))

    def part(names: dict[str, str]) -> dict[str, Any]:
        return {field: given[name] for name, field in names.items() if name in given}

    try:
        if method == "denoiser":
            return DenoiserRecipe(**part(_OF_DENOISER), watch=Watch(**part(_OF_WATCH)))
        usual = LEARNING_RATES["grpo" in method, adapter or given.get("lora") is not None]
        own = part(_OWN) | {"learning_rate": usual if given.get("learning_rate") is None else given["learning_rate"]}
        threats = Threats(**part(_OF_THREATS | _OF_AIM)) if _OF_THREATS in kinds[method] else None
        ball = threats.ball if threats else None
        has_data = given.get("eval_data") is not None
        return Recipe(
            method=method,
            threats=threats,
            validation=validation_of(given, ball, given.get("steps"), has_data=has_data),
            watch=Watch(**part(_OF_WATCH)),
            groups=Groups(**part(_OF_GROUPS)) if _OF_GROUPS in kinds[method] else None,
            **own,
        )
    except (TypeError, ValueError) as error:
        raise SpecError(f"train {method}: {error}") from None
