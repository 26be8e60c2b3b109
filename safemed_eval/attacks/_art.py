"""The bridge to ART: our classifiers as its estimators, its attacks under our seeds."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from art.attacks import EvasionAttack, evasion
from art.estimators.classification import PyTorchClassifier
from art.estimators.classification.classifier import ClassGradientsMixin
from art.estimators.estimator import LossGradientsMixin

from safemed_eval import grammar
from safemed_eval.core import Classify, Question
from safemed_eval.errors import ModelOutputError, SpecError, did_you_mean
from safemed_eval.faults import ShrinkingBatch, faults_of_the_model

if TYPE_CHECKING:
    from safemed_eval.attacks.art import ART, Value

MOST_ROWS = 16
"""Rows that go through the model together, however many ART asks for: results do not depend on the run's batch."""

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
_OURS = ("estimator", "classifier", "eps", "norm", "targeted", "verbose", "summary_writer", "parallel_pool_size")
"""Parameters that a spec does not set as options."""
_BY_GRADIENT = ("AutoAttack",)
"""Attacks whose parts take gradients, of which their requirements say nothing."""
_OPTIONAL = re.compile(r"(?:typing\.Optional\[)?(int|float|str)(?: \| None|\])")
_TYPES = {"int": int, "float": float, "str": str}


class Bindable(Protocol):
    """A loaded model: `safemed_eval.models.waist.Waist`, or whatever binds questions as it does."""

    device: torch.device

    def classify(self, questions: Sequence[Question]) -> Classify: ...


# ------------------------------------------------------------------------------------------------------------ estimator


def estimator(classify: Classify, options: int, size: tuple[int, int], device: torch.device) -> PyTorchClassifier:
    """An ART classifier of (B, 3, H, W) pixels.

    Args:
        classify: bound to one question.
        options: how many the question has.
        size: height and width of the canvas.
        device: where `classify` wants its canvases.
    """
    return PyTorchClassifier(
        Logits(classify, options, device),
        torch.nn.CrossEntropyLoss(),
        (3, *size),
        options,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


class Logits(torch.nn.Module):
    """(B, 3, H, W) pixels -> (B, K) log-probabilities of one question's options, on the device of the pixels.

    The model is no submodule of it: train(), eval() and to(), which ART calls, do not reach the model.

    Attributes:
        rows: images that have gone through it so far.
    """

    def __init__(self, classify: Classify, options: int, device: torch.device) -> None:
        super().__init__()
        self.rows = 0
        self._memory = ShrinkingBatch(MOST_ROWS)

        def look(canvas: torch.Tensor) -> torch.Tensor:
            return classify.take([0] * len(canvas))(canvas)[:, :options]

        self._look, self._device = look, device

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.rows += len(pixels)
        return self._memory.run(lambda size: torch.cat([self._part(part) for part in torch.split(pixels, size)]))

    def _part(self, pixels: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and pixels.requires_grad:
            scores: torch.Tensor = _Graph.apply(pixels, self._look, self._device)
            return scores
        with torch.no_grad():
            return self._look(_canvas(pixels, self._device)).to(pixels.device)


class _Graph(torch.autograd.Function):
    """A gradient that reaches the pixels alone: ART calls backward(), which would fill those of the weights, too.

    A gradient that is not finite raises; ART would take it for 0, and the image would pass for robust.
    """

    @staticmethod
    def forward(
        ctx: Any, pixels: torch.Tensor, look: Callable[[torch.Tensor], torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        with torch.enable_grad():
            ctx.canvas = _canvas(pixels, device).requires_grad_()
            ctx.scores = look(ctx.canvas)
        scores: torch.Tensor = ctx.scores.detach().to(pixels.device)
        return scores

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        with faults_of_the_model():
            (gradient,) = torch.autograd.grad(ctx.scores, ctx.canvas, slope.to(ctx.scores), retain_graph=True)
        if not bool(gradient.isfinite().all()):
            raise ModelOutputError("the model's gradient is not finite")
        return gradient.to(slope), None, None


def _canvas(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """What ART shows, as the waist takes it."""
    return pixels.detach().to(device, torch.float32).clamp(0, 1)


# --------------------------------------------------------------------------------------------------------- what ART has


@lru_cache(maxsize=1)
def methods() -> dict[str, type[EvasionAttack]]:
    """ART's evasion attacks that can be given one image and this estimator, and nothing else."""
    found, dummy = {}, _dummy()
    every: dict[str, Any] = dict(inspect.getmembers(evasion, inspect.isclass))
    for name, cls in every.items():
        fits = issubclass(cls, EvasionAttack) and name not in _UNFIT and "TensorFlow" not in name
        if fits and _needs(cls) and EvasionAttack.is_estimator_valid(dummy, _needs(cls)):
            _, *others = _parameters(cls)
            if all(one.default is not inspect.Parameter.empty for one in others):
                found[name] = cls
    return found


def method_of(name: str) -> str:
    """ART's own spelling of an attack's name.

    Raises:
        SpecError: there is none such.
    """
    stems = {known.removesuffix("Attack").removesuffix("Method"): known for known in methods()}
    for stem, known in stems.items():
        if name.lower() in (known.lower(), stem.lower()):
            return known
    raise SpecError(f"--attack art:{name}: no attack of ART's that fits here; {did_you_mean(name, stems)}")


def options_of(spec: ART) -> dict[str, Value]:
    """The options of a spec as values, in ART's order, without those that it has anyway.

    Raises:
        SpecError: an unknown option, or a value of another type than its default.
    """
    where, kinds, usual = f"--attack art:{spec.method}", {}, _usual(spec)
    for one in _parameters(methods()[spec.method]):
        if one.name not in _OURS and (kind := _kind(one)):
            kinds[one.name] = kind
    for key in spec.options:
        if key not in kinds:
            raise SpecError(f"{where}: unknown option '{key}'; {did_you_mean(key, ['eps', 'norm', *kinds])}")
    given = {
        key: grammar.read(kinds[key], value, f"{where}: {key}") if isinstance(value, str) else value
        for key, value in spec.options.items()
    }
    return {key: given[key] for key in kinds if key in given and given[key] != usual[key]}


def refuse_unfit(spec: ART) -> None:
    """Raise SpecError where ART refuses these options, or measures its eps in another norm."""
    names = {one.name for one in _parameters(methods()[spec.method])}
    if spec.norm != "linf" and "eps" in names and "norm" not in names:
        raise SpecError(f"--attack art:{spec.method}: has an eps for norm=linf only, got norm={spec.norm}")
    try:
        _attack(spec, _dummy())
    except (ValueError, TypeError) as error:
        raise SpecError(f"--attack art:{spec.method}: {' '.join(str(error).split())}") from None


def uses_gradients(method: str) -> bool:
    """Whether the attack asks its estimator for gradients."""
    asked = [one for need in _needs(methods()[method]) for one in (need if isinstance(need, tuple) else (need,))]
    return LossGradientsMixin in asked or ClassGradientsMixin in asked or method in _BY_GRADIENT


def _needs(cls: type[EvasionAttack]) -> tuple[Any, ...]:
    return tuple(cls._estimator_requirements)


def _parameters(cls: type[EvasionAttack]) -> list[inspect.Parameter]:
    """Of the constructor, the estimator first."""
    return list(inspect.signature(cls).parameters.values())


def _kind(parameter: inspect.Parameter) -> type | None:
    """The type of a parameter that a spec can write: its default's, or the annotated one where that is None."""
    if parameter.default is None:
        found = _OPTIONAL.fullmatch(str(parameter.annotation))
        return _TYPES[found[1]] if found else None
    return type(parameter.default) if isinstance(parameter.default, (bool, int, float, str)) else None


def _usual(spec: ART) -> dict[str, Any]:
    """What each parameter is unless a spec sets it as an option."""
    usual = {one.name: one.default for one in _parameters(methods()[spec.method])[1:]}
    if "eps" in usual and "eps_step" in usual:
        usual["eps_step"] *= spec.threat.eps / usual["eps"]
    ours = {"eps": spec.threat.eps, "norm": np.inf if spec.norm == "linf" else 2, "targeted": False, "verbose": False}
    return usual | {key: value for key, value in ours.items() if key in usual}


def _attack(spec: ART, classifier: PyTorchClassifier) -> EvasionAttack:
    attack = methods()[spec.method](classifier, **{**_usual(spec), **spec.options})
    for part in getattr(attack, "attacks", [attack]):
        part.verbose = False
        if isinstance(part, evasion.SquareAttack):
            part.p_init = min(part.p_init, _largest_square(classifier.input_shape[1:]))
    return attack


def _largest_square(size: tuple[int, int]) -> float:
    """The share of a canvas that a square may cover; ART's Square fails where its first ones do not fit."""
    height, width = size
    return max(0, min(height, width) - 2) ** 2 / (height * width)


def _dummy() -> PyTorchClassifier:
    """A classifier by the mean colour, to ask ART what it takes."""
    colour = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    loss = torch.nn.CrossEntropyLoss()
    return PyTorchClassifier(colour, loss, (3, 8, 8), 3, clip_values=(0.0, 1.0), device_type="cpu")


# --------------------------------------------------------------------------------------------------------------- search


def search_rows(
    spec: ART,
    classify: Classify,
    canvas: torch.Tensor,
    labels: torch.Tensor,
    generators: Sequence[torch.Generator],
) -> tuple[torch.Tensor, list[int]]:
    """What ART finds for each row, in the ball or not, and how many images it showed to the model for that."""
    with torch.no_grad():
        log_probs = classify(canvas)
    found, queries = canvas.clone(), [0] * len(canvas)
    _, _, height, width = canvas.shape
    for row in (log_probs.argmax(1) == labels).nonzero().flatten().tolist():
        options = int(log_probs[row].isfinite().sum())
        classifier = estimator(classify.take([row]), options, (height, width), canvas.device)
        pixels = _generate(spec, classifier, canvas[row], int(labels[row]), generators[row])
        found[row] = torch.from_numpy(pixels).to(found)
        queries[row] = classifier.model.rows
    return found, queries


def _generate(
    spec: ART, classifier: PyTorchClassifier, canvas: torch.Tensor, label: int, generator: torch.Generator
) -> np.ndarray[Any, Any]:
    gold = np.eye(classifier.nb_classes, dtype=np.float32)[[label]]
    with seeded(generator), faults_of_the_model(f"ART's {spec.method}"):
        try:
            pixels = _attack(spec, classifier).generate(canvas[None].cpu().numpy().copy(), gold)
        except ImportError as error:
            raise SpecError(f"--attack art:{spec.method}: {error}; install it") from None
    if not np.isfinite(pixels).all():
        raise ModelOutputError(f"ART's {spec.method} returned NaN or infinite pixels")
    return np.asarray(pixels[0])


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch's CPU, which ART draws from; their state comes back.

    Some attacks draw from a numpy RandomState that they make without a seed: here it gets one.
    """
    seed = int(torch.randint(2**32, (), generator=generator, device=generator.device))
    python, numpy, unseeded = random.getstate(), np.random.get_state(), np.random.RandomState
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        np.random.RandomState = _Seeded  # type: ignore[misc]
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            np.random.RandomState = unseeded  # type: ignore[misc]


class _Seeded(np.random.RandomState):
    """Without a seed, seeded by the global generator."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(np.random.randint(2**32, dtype=np.uint32) if seed is None else seed)
