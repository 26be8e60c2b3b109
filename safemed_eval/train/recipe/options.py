"""Builds recipes from the options of `train`, as commands and notebooks have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, TypedDict, Unpack, get_type_hints

from safemed_eval import grammar
from safemed_eval.codec import fitted
from safemed_eval.data import AnyData
from safemed_eval.errors import SpecError, did_you_mean
from safemed_eval.threat import Norm
from safemed_eval.train._vllm import canonical_vllm
from safemed_eval.train.recipe.parts import Ablation, Aim, Groups, Lora, Loss, Threats
from safemed_eval.train.recipe.whole import DenoiserRecipe, Method, Recipe
from safemed_eval.train.rewards.functions import rewards_of
from safemed_eval.train.watch.settings import Best, Watch, reporters, validation_of

THOUGHT_TOKENS, ANSWER_TOKENS = 512, 256
"""Default lengths of completions, with a thought (as `evaluate` has it) and without."""

LEARNING_RATES: dict[tuple[bool, bool], float] = {
    (False, False): 1e-5,
    (False, True): 1e-4,
    (True, False): 1e-6,
    (True, True): 1e-5,
}
"""Default learning rates by (GRPO?, LoRA?): usual values for models of a few billion parameters."""


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
