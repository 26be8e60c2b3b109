"""art: any evasion attack of the Adversarial Robustness Toolbox that works on a classifier of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from safemed_eval.attacks._common.base import BallAttack, Facts, Value
from safemed_eval.attacks._common.problem import Attacked, Problem
from safemed_eval.codec import typed
from safemed_eval.core import CANVAS_SIZE, Classify, Need, Question
from safemed_eval.errors import SpecError
from safemed_eval.grammar import FIRST, REST

if TYPE_CHECKING:
    import torch
    from art.estimators.classification import PyTorchClassifier


@dataclass(frozen=True, kw_only=True)
class ART(BallAttack):
    """One call of an ART attack per row, on an estimator of that row's own question.

    A row whose clean image is answered wrongly is left as it is. An attack that looks for the nearest adversarial
    image, and so has no eps, runs unchanged: its result is projected into the ball before it is judged. Attacks by
    decision (BoundaryAttack, HopSkipJump, SignOPTAttack, SpatialTransformation) see the likeliest option, or, of a
    model without scores, its answers; "no answer" is then an answer other than gold.

    Args:
        method: ART's name of the attack, in any case, with or without its ending Attack or Method.
        options: further arguments of that class, as text or as values; those that equal ART's defaults are dropped.
            `targeted` cannot be set, nor what is no number, word, yes or no. Unless given, `eps_step` is the same share
            of eps as in ART's defaults, a third, since ART's own 0.1 is far outside a small ball.
    Source:
        Nicolae et al. 2018 (arXiv:1807.01069). Differs: the first squares of Square are made to fit into the canvas,
        and in L2 a canvas that is higher than wide is transposed for it; ART fails there.
    """

    facts = Facts(example="art:SquareAttack", summary="or any other of ART's")

    method: str = field(metadata=FIRST)
    options: Mapping[str, Value] = field(default_factory=dict, metadata=REST, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_without_art()
        from safemed_eval.attacks.art.methods import method_of, options_of, refuse_unfit

        object.__setattr__(self, "method", method_of(self.method))
        object.__setattr__(self, "options", options_of(self.method, self.options, self.threat))
        refuse_unfit(self.method, self.options, self.threat)

    @property
    def needs(self) -> tuple[Need, ...]:
        """The answers alone for attacks by decision, else scores, and gradients where ART's class asks for them."""
        from safemed_eval.attacks.art.methods import BY_DECISION, uses_gradients

        if self.method in BY_DECISION:
            return ("votes",)
        return super().needs if uses_gradients(self.method) else ("scores",)

    @property
    def described(self) -> dict[str, object]:
        return {**super().described, "needs_gradients": "gradients" in self.needs}

    def search(self, problem: Problem) -> Attacked:
        from safemed_eval.attacks.art.estimator import search_rows

        attacked, queries = search_rows(problem, self.method, self.options, self.threat)
        if problem.quantize:
            attacked = self.threat.snap(problem.canvas, self.threat.project(problem.canvas, attacked))
        return Attacked(canvas=attacked, steps=queries)


@runtime_checkable
class Bindable(Protocol):
    """A loaded model: `safemed_eval.models.waist.Waist`, or another object that binds questions in the same way."""

    device: torch.device

    def classify(self, questions: Sequence[Question]) -> Classify: ...


@typed
def to_art(model: Bindable, question: Question, *, canvas_size: tuple[int, int] = CANVAS_SIZE) -> PyTorchClassifier:
    """Wrap a loaded model and one question as a classifier of ART, for its attacks, metrics and certificates.

    It maps (B, 3, H, W) pixels to (B, K) log-probabilities of the question's options, which serve ART as logits, and
    has gradients; of a model without scores to (B, K + 1) one-hot vectors of its answers, the last class being "no
    answer", without gradients. The model sees the pixels as they are, outside [0, 1] too, as under noise; ART's attacks
    stay in [0, 1] by the classifier's clip_values. The classifier works on the CPU, and the model stays on its device;
    train(), eval() and backward() do not reach the model's modules and weights.

    >>> import numpy as np
    >>> import torch
    >>> from art.attacks.evasion import SquareAttack
    >>> from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
    >>> from safemed_eval import data, models, to_art
    >>> drawn = data.load("phantom:images=1")
    >>> item = drawn.items[0]
    >>> pixels = data.canvas_of(item, drawn.canvas).numpy()[None]
    >>> model = models.load(models.resolve("builtin:sft"))
    >>> classifier = to_art(model, item.question, canvas_size=(64, 64))
    >>> attack = SquareAttack(classifier, eps=4 / 255, max_iter=10, verbose=False)
    >>> attack.generate(pixels, np.array([item.label])).shape
    (1, 3, 64, 64)
    >>> smoothed = PyTorchRandomizedSmoothing(
    ...     classifier.model, torch.nn.CrossEntropyLoss(), classifier.input_shape, classifier.nb_classes, scale=0.1
    ... )
    >>> answers, radii = smoothed.certify(pixels, n=50)

    Args:
        model: what `safemed_eval.models.load` returns.
        canvas_size: height and width of the pixels; those of any other size are refused.
    Raises:
        SpecError: ART is not installed.
    """
    _refuse_without_art()
    from safemed_eval.attacks.art.estimator import Decisions, estimator, shown_to_art

    classify = shown_to_art(model.classify([question]))
    classes = len(question.options) + isinstance(classify, Decisions)
    return estimator(classify, classes, canvas_size, model.device)


def _refuse_without_art() -> None:
    try:
        import_module("art.attacks.evasion")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "art":
            raise
        raise SpecError("art needs ART: pip install 'adversarial-robustness-toolbox>=1.20,<2'") from None


ATTACK = ART
