"""The settings of watching: what is measured while a checkpoint is trained, and what is kept and reported of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from safemed_eval import attacks
from safemed_eval.attacks.pgd import PGD
from safemed_eval.codec import Json
from safemed_eval.errors import SpecError
from safemed_eval.models.checkpoints.prompts import Template, answers_first, thinks
from safemed_eval.threat import Threat

Best = Literal["robust", "clean", "last"]
Reporter = Literal["wandb", "tensorboard", "mlflow", "trackio"]
NO_REPORTER = "none"

EVERY = 100
"""Default number of steps between evaluations."""
STEPS = 10
"""Gradient steps of the default attack on the validation data."""
_PACKAGES: Mapping[str, tuple[str, ...]] = {"tensorboard": ("tensorboard", "tensorboardX")}
_OPTIONS = {"eval_every": "every", "eval_attack": "attack", "best": "best", "patience": "patience"}


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Evaluations on validation data during a training; they choose the weights that are saved at its end.

    Args:
        every: optimizer steps between evaluations. The last step is evaluated, too.
        attack: spec of the attack under which accuracy is measured; a `safemed-eval evaluate --attack` of the saved
            checkpoint with this spec, and the training's seed, gives the same number.
        best: the accuracy that chooses. Of equal ones the earliest is the best. "last": the last weights are saved.
        patience: the training ends after this many evaluations in a row without a new best one; None: never.
    """

    every: int = EVERY
    attack: str
    best: Best = "robust"
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"eval_every must be at least 1, got {self.every}")
        if self.best not in get_args(Best):
            raise ValueError(f"best must be one of {', '.join(get_args(Best))}, got {self.best!r}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1, got {self.patience}")
        if self.patience is not None and self.best == "last":
            raise ValueError("patience waits for a new best evaluation: it has no effect with best=last")


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is kept and reported of a training. None of it changes the weights.

    Args:
        keep: intermediate checkpoints that are kept at a time. The newest and the best are always among them.
        keep_checkpoints: keep them when the training is complete, too.
        report_to: the trackers that get the log, by their names in transformers.
    """

    keep: int = 2
    keep_checkpoints: bool = False
    report_to: tuple[Reporter, ...] = ()

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"keep must be at least 1, got {self.keep}")


def validation_of(options: Json, threat: Threat | None, steps: int | None, *, has_data: bool) -> Validation | None:
    """Build the settings of the validation from the options of `train`; None without validation data.

    Args:
        threat: the ball of the training's own adversary, which the default attack has, too.
        steps: optimizer steps of the training, where they are known.
        has_data: whether validation data are given.
    Raises:
        SpecError: an option has no effect, or the attack cannot be made on a model in training.
        ValueError: a value is out of range.
    """
    given = {field: options[name] for name, field in _OPTIONS.items() if options.get(name) is not None}
    if not has_data:
        for name in (name for name in _OPTIONS if options.get(name) is not None):
            raise SpecError(f"--{name.replace('_', '-')}: has no effect without --eval-data")
        return None
    if steps and "every" in given and given["every"] > steps:
        raise ValueError(f"eval_every={given['every']} is more than the {steps} steps of the training")
    given.setdefault("every", max(1, min(EVERY, steps // 10)) if steps else EVERY)
    try:
        attack = attacks.parse(given.get("attack") or default_attack(threat))
    except SpecError as error:
        raise SpecError(f"--eval-attack {str(error).removeprefix('--attack ')}") from None
    if attack.facts.role != "attack" or attack.fits or attack.surrogates:
        raise SpecError(
            f"--eval-attack {attack}: name an attack that searches the judged model itself for each item, such as "
            f"{attacks.example_of(strength=2)}"
        )
    return Validation(**{**given, "attack": str(attack)})


def default_attack(threat: Threat | None) -> str:
    """Return the spec of PGD in the ball of the training's adversary, or with PGD's default eps where it has none."""
    ball = PGD(steps=STEPS, eps=threat.eps, norm=threat.norm) if threat else PGD(steps=STEPS)
    return str(ball)


def reporters(names: str | Sequence[str]) -> tuple[Reporter, ...]:
    """Check the names of trackers, and that their packages are there.

    Raises:
        SpecError: a tracker is not known or not installed, or "none" stands beside others.
    """
    chosen = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    known = get_args(Reporter)
    for name in chosen:
        if name not in (*known, NO_REPORTER):
            raise SpecError(f"--report-to {name}: not known; write {', '.join(known)}, or {NO_REPORTER}")
        packages = _PACKAGES.get(name, (name,))
        if name != NO_REPORTER and not any(map(find_spec, packages)):
            raise SpecError(f"--report-to {name}: is not installed; pip install {packages[0]}")
    if NO_REPORTER in chosen and len(chosen) > 1:
        raise SpecError(f"--report-to {NO_REPORTER}: stands beside {', '.join(chosen[:2])}; leave one out")
    return tuple(name for name in known if name in chosen)


def writes_its_thought(template: Template) -> bool:
    """True if the answer can only be read from what the model writes: a template asks for a thought before it.

    After any other template the answer begins with the letter, and the likeliest letter is the answer.
    """
    return thinks(template) and not answers_first(template)
