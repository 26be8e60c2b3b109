"""The attacks of ART that fit here, their options, and their construction from a spec."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from art.attacks import EvasionAttack, evasion
from art.estimators.classification import PyTorchClassifier
from art.estimators.classification.classifier import ClassGradientsMixin
from art.estimators.estimator import LossGradientsMixin

from safemed_eval import grammar
from safemed_eval.attacks._common.base import Value
from safemed_eval.errors import SpecError, canonical, did_you_mean
from safemed_eval.threat import Threat

_UNFIT = {
    *("AdversarialPatch", "AdversarialPatchNumpy", "AdversarialPatchPyTorch"),  # find a patch, not an image
    *("UniversalPerturbation", "TargetedUniversalPerturbation"),  # are for many images at once
    *("SimBA", "VirtualAdversarialMethod"),  # ask for probabilities
    "CompositeAdversarialAttackPyTorch",  # is bounded by ranges of hue, angle and more
    "FeatureAdversariesNumpy",  # asks for a second image
    "GeoDA",  # writes files into the working folder
    "LowProFool",  # is for tables
    "OverTheAirFlickeringPyTorch",  # is for films
    "Wasserstein",  # has an eps of another kind
}
"""Attacks that cannot be used here."""
_OURS = ("estimator", "classifier", "eps", "norm", "targeted", "verbose", "summary_writer", "parallel_pool_size")
"""Parameters that a spec cannot set as options."""
_BY_GRADIENT = ("AutoAttack",)
"""Attacks that use gradients although their requirements do not say so."""
BY_DECISION = ("BoundaryAttack", "HopSkipJump", "SignOPTAttack", "SpatialTransformation")
"""Attacks that use nothing but the likeliest class of each image. ART declares no such thing: this was read in their
code, and a test holds each of them against it."""
_OPTIONAL = re.compile(r"(?:typing\.Optional\[)?(int|float|str)(?: \| None|\])")
_TYPES = {"int": int, "float": float, "str": str}


@lru_cache(maxsize=1)
def methods() -> dict[str, type[EvasionAttack]]:
    """ART's evasion attacks that can be given one image and this estimator, and nothing else."""
    fitting, probe = {}, _probe()
    every: dict[str, type] = dict(inspect.getmembers(evasion, inspect.isclass))
    for name, cls in every.items():
        fits = issubclass(cls, EvasionAttack) and name not in _UNFIT and "TensorFlow" not in name
        if fits and _needs(cls) and EvasionAttack.is_estimator_valid(probe, _needs(cls)):
            _, *others = _parameters(cls)
            if all(parameter.default is not inspect.Parameter.empty for parameter in others):
                fitting[name] = cls
    return fitting


def method_of(name: str) -> str:
    """ART's own spelling of an attack's name.

    Raises:
        SpecError: there is no such attack.
    """
    stems = {known.removesuffix("Attack").removesuffix("Method"): known for known in methods()}
    for stem, known in stems.items():
        if name.lower() in (known.lower(), stem.lower()):
            return known
    raise SpecError(
        f"--attack art:{name}: no attack of ART's that fits here; {did_you_mean(name.removesuffix('Attack'), stems)}"
    )


def options_of(method: str, options: Mapping[str, Value], threat: Threat) -> dict[str, Value]:
    """The options as values, in ART's order, without those that equal their defaults.

    Raises:
        SpecError: an unknown option, or a value of another type than its default.
    """
    where, kinds, defaults = f"--attack art:{method}", {}, _defaults(method, threat)
    for parameter in _parameters(methods()[method]):
        if parameter.name not in _OURS and (kind := _kind(parameter)):
            kinds[parameter.name] = kind
    given: dict[str, Value] = {}
    for written, value in options.items():
        key = canonical(written, kinds)
        if key is None:
            raise SpecError(f"{where}: unknown option '{written}'; {did_you_mean(written, ['eps', 'norm', *kinds])}")
        if key in given:
            raise SpecError(f"{where}: '{key}' is given twice")
        given[key] = grammar.read(kinds[key], value, f"{where}: {key}") if isinstance(value, str) else value
    return {key: given[key] for key in kinds if key in given and given[key] != defaults[key]}


def refuse_unfit(method: str, options: Mapping[str, Value], threat: Threat) -> None:
    """Raise SpecError where ART refuses these options, or measures its eps in another norm."""
    parameters = {parameter.name for parameter in _parameters(methods()[method])}
    if threat.norm != "linf" and "eps" in parameters and "norm" not in parameters:
        raise SpecError(f"--attack art:{method}: has an eps for norm=linf only, got norm={threat.norm}")
    try:
        attack_of(method, options, threat, _probe())
    except (ValueError, TypeError) as error:
        raise SpecError(f"--attack art:{method}: {' '.join(str(error).split())}") from None


def uses_gradients(method: str) -> bool:
    """Whether the attack asks its estimator for gradients."""
    asked = [mixin for need in _needs(methods()[method]) for mixin in (need if isinstance(need, tuple) else (need,))]
    return LossGradientsMixin in asked or ClassGradientsMixin in asked or method in _BY_GRADIENT


def attack_of(
    method: str, options: Mapping[str, Value], threat: Threat, classifier: PyTorchClassifier
) -> EvasionAttack:
    """ART's own object, for this classifier.

    Raises:
        ValueError, TypeError: ART refuses an option.
    """
    attack = methods()[method](classifier, **{**_defaults(method, threat), **options})
    for part in getattr(attack, "attacks", [attack]):
        part.verbose = False
        if isinstance(part, evasion.SquareAttack):
            part.p_init = min(part.p_init, _largest_square(classifier.input_shape[1:]))
    return attack


def _needs(cls: type[EvasionAttack]) -> tuple[Any, ...]:
    return tuple(cls._estimator_requirements)


def _parameters(cls: type[EvasionAttack]) -> list[inspect.Parameter]:
    """The constructor's parameters, the estimator first."""
    return list(inspect.signature(cls).parameters.values())


def _kind(parameter: inspect.Parameter) -> type | None:
    """The type of a parameter that a spec can write: its default's, or the annotated one where that is None."""
    if parameter.default is None:
        annotated = _OPTIONAL.fullmatch(str(parameter.annotation))
        return _TYPES[annotated[1]] if annotated else None
    return type(parameter.default) if isinstance(parameter.default, (bool, int, float, str)) else None


def _defaults(method: str, threat: Threat) -> dict[str, Any]:
    """The value of each parameter that a spec does not set as an option."""
    defaults = {parameter.name: parameter.default for parameter in _parameters(methods()[method])[1:]}
    if "eps" in defaults and "eps_step" in defaults:
        defaults["eps_step"] *= threat.eps / defaults["eps"]
    norm = np.inf if threat.norm == "linf" else 2
    ours = {"eps": threat.eps, "norm": norm, "targeted": False, "verbose": False}
    return defaults | {key: value for key, value in ours.items() if key in defaults}


def _largest_square(size: tuple[int, int]) -> float:
    """The share of a canvas that a square may cover; ART's Square fails where its first ones do not fit."""
    height, width = size
    return max(0, min(height, width) - 2) ** 2 / (height * width)


def _probe() -> PyTorchClassifier:
    """A classifier by the mean colour, to try ART's attacks on."""
    colour = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    loss = torch.nn.CrossEntropyLoss()
    return PyTorchClassifier(colour, loss, (3, 8, 8), 3, clip_values=(0.0, 1.0), device_type="cpu")
