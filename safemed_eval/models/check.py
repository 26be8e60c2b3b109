"""Is this checkpoint attackable and certifiable as it stands? Each check answers pass, warn or fail, with a figure.

`models check` prints all; `evaluate` and `certify` run them at load and refuse a model that fails one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from string import ascii_uppercase
from typing import Literal

import torch

from safemed_eval.core import GRADIENT_REPEATS, MODALITIES, PRECISION, REPEATS, Need, Question
from safemed_eval.errors import CheckpointError, ModelOutputError
from safemed_eval.faults import faults_of_the_model
from safemed_eval.models.checkpoints.processor import picture
from safemed_eval.models.checkpoints.proof import limit
from safemed_eval.models.waist import Waist

Status = Literal["pass", "warn", "fail"]

PIXEL_TOLERANCE = 0.05
"""Largest accepted root-mean-square difference of model inputs, float path against 8-bit path, in their own std."""
LOG_PROB_TOLERANCE = 0.25
"""Largest accepted difference of log-probabilities between the two paths."""

GRADIENT_AGREEMENT = 0.9
"""Smallest accepted cosine, and share of equal signs, of gradients in half precision against float32."""

_ROUNDING = 0.1
"""How much of the largest score a row may change by where it can be compared in half precision only."""

_SHOWN = 120
_VISIBLE = 1e-5
"""Smallest change of a log-probability, between an image and its negative, that is no rounding error."""
_REPETITIONS = 16
_SILENT = -1
_OTHER = Question(text="Is there a visible abnormality in this image of the chest?", options=("Yes", "No"))


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    status: Status
    detail: str


def check(
    model: Waist,
    size: tuple[int, int],
    *,
    options: int = 4,
    questions: Sequence[Question] = (),
    gradients: bool = True,
) -> list[Finding]:
    """Run every check on synthetic images.

    Args:
        size: height and width of the images.
        options: the largest number of options that a question of the run has.
        questions: some of the run, the shortest and the longest among them.
        gradients: also run the checks that only an attack needs.
    """
    images = _images(size).to(model.device)
    names = (*MODALITIES, *(f"no. {i}" for i in range(len(MODALITIES), options)))
    question = Question(text="Which imaging modality is this?", options=names[:options])
    ends = _ends(_askable(model, questions) or (_OTHER, question))
    checks: list[Callable[[Waist, torch.Tensor, Question], Iterator[Finding]]] = [
        _texts,
        partial(_outputs, ends=ends),
        _official,
    ]
    if gradients:
        checks += [_gradient, _precision]
    findings: list[Finding] = []
    for run in (*checks, _shortcuts):
        try:
            findings.extend(run(model if run is _texts else _unthinking(model), images, question))
        except (ModelOutputError, CheckpointError) as error:
            findings.append(Finding("answers", "fail", str(error)))
            break
    return findings


def refuse_failures(found: list[Finding], name: str) -> None:
    """Raise CheckpointError that names every failed check."""
    failed = [f"{finding.name}: {finding.detail}" for finding in found if finding.status == "fail"]
    if failed:
        raise CheckpointError(f"--model {name}: {'; '.join(failed)} (safemed-eval models check shows all)")


_ASKED: dict[Need, str] = {
    "scores": "the scores of the options",
    "gradients": "gradients of the scores of the options",
    "texts": "texts that the model writes, and their log-probabilities",
}


def refuse_lacking(model: Waist, needs: Mapping[Need, str], name: str) -> None:
    """Raise CheckpointError where the model lacks what a run asks of it; `needs` says which option asks for it."""
    for need, option in needs.items():
        if why := model.lacks(need):
            raise CheckpointError(
                f"{option}: needs {_ASKED[need]}, and {name} {why}; leave it out (noise, corrupt and transfer "
                "need answers only)"
            )


def _images(size: tuple[int, int]) -> torch.Tensor:
    """(3, 3, H, W) on 8-bit grey levels: a smooth anatomy-like scene, its negative, and seeded noise."""
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, side) for side in size), indexing="ij")
    disc = torch.exp(-((rows - 0.45) ** 2 + (columns - 0.55) ** 2) / 0.08)
    scene = torch.stack([0.15 + 0.6 * disc, 0.1 + 0.5 * disc * columns, 0.2 + 0.4 * disc * rows])
    noise = torch.rand(scene.shape, generator=torch.Generator().manual_seed(0))
    return (torch.stack([scene, 1 - scene, noise]) * 255).round() / 255


def _refuse_8_bit_only(model: Waist, images: torch.Tensor, question: Question) -> None:
    """Raise CheckpointError if noise does not pass a checkpoint's image processor."""
    if model.offers.checkpoint is not None:
        model.offers.checkpoint.refuse_8_bit_only(images[0], images[:1] + 2 * (images[2:] - 0.5), question)


def _outputs(
    model: Waist, images: torch.Tensor, question: Question, ends: tuple[Question, Question]
) -> Iterator[Finding]:
    if not model.differentiable:
        yield from _votes(model, images, question)
        return
    with torch.no_grad():
        three = model.classify([question] * 3)(images)
        model.classify([question])(images[:1] + 2 * (images[2:] - 0.5))
        yield Finding("finite log-probabilities", "pass", "for 3 images, and for noise far outside [0, 1]")
        drift = _largest(three - model.classify([question] * 3)(images))
        yield _repeats(model, images, question, drift)
        yield _independent(model, images, ends)
        mixed = model.classify([_OTHER, question, _OTHER])(images.flip(0))
        twins = model.classify([question] * 3)(images[[0, 0, 0]])
        yield _image_matters(model, images, question, three, max(drift, _largest(twins[0] - twins[1])))
        turned = model.classify([_turned(question)] * 3)(images)
        yield _varies([*three.argmax(1).tolist(), *turned.argmax(1).tolist(), *mixed[[0, 2]].argmax(1).tolist()])


def _askable(model: Waist, questions: Sequence[Question]) -> Sequence[Question]:
    """Return those that a checkpoint can be asked; of a model of the user's own none: an item that it refuses fails."""
    return () if model.offers.checkpoint is None else model.offers.checkpoint.askable(questions)


def _ends(questions: Sequence[Question]) -> tuple[Question, Question]:
    """The shortest and the longest question, in characters."""
    by_length = sorted(questions, key=lambda question: question.characters)
    return by_length[0], by_length[-1]


def _independent(model: Waist, images: torch.Tensor, ends: tuple[Question, Question]) -> Finding:
    """Whether a row's scores change with the rows beside it, by more than with copies of itself beside it.

    Measured in float32, where the weights can be held so: in half precision padding alone changes as much as some
    mistakes.
    """
    try:
        with _exact(model) as exact:
            leak, noise, largest = _leak(exact, images, ends)
        allowed, where = limit(noise, largest), ""
    except CheckpointError as error:
        leak, noise, largest = _leak(model, images, ends)
        allowed, where = max(limit(noise, largest), _ROUNDING * max(1.0, largest)), f"; {error}: limit of rounding"
    return Finding(
        "rows are independent",
        "pass" if leak <= allowed else "fail",
        f"a row changes by {leak:.2g} with other questions beside it, by {noise:.2g} with copies of itself "
        f"(limit {allowed:.2g}{where})",
    )


def _leak(model: Waist, images: torch.Tensor, ends: tuple[Question, Question]) -> tuple[float, float, float]:
    """The largest changes of a row beside another question, and beside a copy; and the largest log-probability."""
    alone = [model.classify([question])(images[i : i + 1])[0] for i, question in enumerate(ends)]
    copies = [model.classify([question] * 2)(images[[i, i]])[0] for i, question in enumerate(ends)]
    together = [row[: len(own)] for row, own in zip(model.classify(ends)(images[:2]), alone, strict=True)]
    leak, noise = (max(_largest(a - b) for a, b in zip(rows, alone, strict=True)) for rows in (together, copies))
    return leak, noise, max(map(_largest, alone))


@contextmanager
def _exact(model: Waist) -> Iterator[Waist]:
    """The model computing in float32, where it does not do so anyway. Raises CheckpointError as `in_float32`."""
    checkpoint = model.offers.checkpoint
    if checkpoint is None or not checkpoint.is_half:
        yield model
        return
    with checkpoint.exact() as twin:
        yield Waist(twin, model.device, model.denoiser)


def _shortcuts(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    """Report which shortcuts the forward takes, and why it does not take the others."""
    if (checkpoint := model.offers.checkpoint) is not None:
        taken = f"taken: {', '.join(checkpoint.shortcuts) or 'none'}"
        refused = (f"{name} not: {reason}" for name, reason in checkpoint.refused.items())
        yield Finding("shortcuts", "pass", "; ".join((taken, *refused)))


def _unthinking(model: Waist) -> Waist:
    """The model without the thought that it writes before an answer: two thoughts differ by more than rounding."""
    checkpoint = model.offers.checkpoint
    if checkpoint is None or checkpoint.unthinking is checkpoint:
        return model
    return Waist(checkpoint.unthinking, model.device, model.denoiser)


def _texts(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    """What it writes about an image, and whether it writes that again: sampling has its noise from the row's pixels."""
    _refuse_8_bit_only(model, images, question)
    if not model.writes:
        return
    answers = model.answer(images[[0, 0]], [question] * 2)
    first, second = answers.texts or []
    read = answers.predictions[0]
    meaning = "no answer" if read is None else f"answer {question.letters[read]}"
    short = first if len(first) <= _SHOWN else f"{first[:_SHOWN]}..."
    yield Finding("writes", "warn" if read is None else "pass", f"{short!r}, read as {meaning}")
    if first != second:
        yield Finding(REPEATS, "warn", "it writes two texts about one image: runs will not repeat")


def _votes(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    asked = (question, question, _turned(question), _OTHER)
    votes, again, turned, other = (
        [vote if vote < len(one.options) else _SILENT for vote in model.vote(one)(images).tolist()] for one in asked
    )
    said, then = (", ".join(map(_letter, some)) for some in (votes, again))
    yield Finding("votes", "warn", f"{model.lacks('scores')}, here {said}: can be certified, not attacked")
    same = votes == again
    detail = "the same votes on 3 images" if same else f"{said}, then {then} on the same images: it votes at random"
    yield Finding(REPEATS, "pass" if same else "warn", detail)
    yield _varies([*votes, *turned, *other])


def _repeats(model: Waist, images: torch.Tensor, question: Question, drift: float) -> Finding:
    """Whether a model says the same twice; where it does not, whether the answers change, too."""
    if drift == 0:
        return Finding(REPEATS, "pass", "largest difference 0")
    answers = [model.classify([question] * 3)(images).argmax(1) for _ in range(_REPETITIONS)]
    changed = sum(not torch.equal(one, answers[0]) for one in answers)
    said = "runs will not repeat bit by bit"
    if changed:
        said = f"answers change in {changed} of {_REPETITIONS} repetitions, the model answers at random: {said}"
    return Finding(REPEATS, "warn", f"largest difference {drift:.2g}: {said}")


def _image_matters(
    model: Waist, images: torch.Tensor, question: Question, answered: torch.Tensor, noise: float
) -> Finding:
    """Whether an image and its negative are answered differently, by more than a model differs from itself.

    Where its own noise is as large, by four standard errors of the mean over repetitions.
    """
    name, moved = "the image matters", _largest(answered[0] - answered[1])
    if moved > max(2 * noise, _VISIBLE):
        return Finding(name, "pass", f"log-probabilities change by {moved:.2g} between an image and its negative")
    detail = f"log-probabilities change by {moved:.2g} between an image and its negative, by {noise:.2g} between copies"
    if moved > _VISIBLE:
        pairs = [model.classify([question] * 2)(images[:2]).double() for _ in range(_REPETITIONS)]
        steps = torch.stack([pair[0] - pair[1] for pair in pairs])
        errors = steps.std(0) / _REPETITIONS**0.5
        if bool((steps.mean(0).abs() > 4 * errors).any()):
            return Finding(name, "pass", f"{detail}; in the mean over {_REPETITIONS} repetitions it shows")
    return Finding(name, "fail", f"{detail}: the model does not look at it")


def _varies(answers: list[int]) -> Finding:
    """Whether the letters differ among some images, two questions, and two orders of the options of one."""
    name = "answers vary"
    if len(set(answers)) > 1:
        return Finding(name, "pass", f"{len(answers)} answers to 3 images and 2 questions")
    return Finding(
        name,
        "warn",
        f"{_letter(answers[0])} is the answer to all of {len(answers)} combinations of 3 images and 2 questions, one "
        "with its options in another order: a constant, or a model that prefers a letter",
    )


def _letter(answer: int) -> str:
    return "no answer" if answer == _SILENT else ascii_uppercase[answer]


def _turned(question: Question) -> Question:
    return replace(question, options=(*question.options[1:], question.options[0]))


def _official(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    checkpoint = model.offers.checkpoint
    if checkpoint is None:
        return
    scene, last = images[:1], ascii_uppercase[len(question.options) - 1]
    tokens = checkpoint.letter_names(len(question.options))
    yield Finding("option letters", "pass", f"A to {last} are the tokens {' '.join(map(repr, tokens))}")
    name, inputs, ours = checkpoint.image_inputs(scene[0], question)
    if inputs.shape != ours.shape:
        shapes = f"{tuple(ours.shape)}, not {tuple(inputs.shape)}"
        yield Finding("float path against 8-bit path", "fail", f"{name} has shape {shapes}")
        return
    off = inputs.double() - ours.double().cpu()
    relative = float(off.square().mean().sqrt() / inputs.double().std().clamp_min(1e-12))
    with torch.no_grad():
        official = checkpoint.official_scores(picture(scene[0]), question).log_softmax(0)
        undenoised = Waist(checkpoint, model.device)  # the 8-bit path has no denoiser either
        shift = _largest(undenoised.classify([question])(scene)[0] - official.to(scene.device))
    fits = relative <= PIXEL_TOLERANCE and shift <= LOG_PROB_TOLERANCE
    yield Finding(
        "float path against 8-bit path",
        "pass" if fits else "fail",
        f"{name} differ by {relative:.2g} of their std (limit {PIXEL_TOLERANCE}), log-probabilities by {shift:.2g} "
        f"(limit {LOG_PROB_TOLERANCE})",
    )


def _gradient(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    name = "gradient reaches the pixels"
    if not model.differentiable:
        yield Finding(name, "fail", "the model has no 'scores', only votes")
        return
    canvas = images[2:].clone().requires_grad_()
    log_probs = model.classify([question])(canvas)
    if not log_probs.requires_grad:
        cut = "the denoiser, the processor or the model" if model.denoiser else "the processor or the model"
        yield Finding(name, "fail", f"{cut} cuts the graph between pixels and answer")
        return
    with faults_of_the_model():
        (gradient,) = torch.autograd.grad(log_probs[0, 0], canvas, allow_unused=True)
    if gradient is None or not bool(gradient.any()):
        yield Finding(name, "fail", "the gradient is zero everywhere: gradient attacks would find nothing")
        return
    if not bool(gradient.isfinite().all()):
        yield Finding(name, "fail", "the gradient is not finite")
        return
    share = float((gradient != 0).any(1).double().mean())
    kept = "" if share > 0.99 else "; the processor drops the others (crop, or sizes that patches do not divide)"
    yield Finding(
        name, "pass", f"{100 * share:.4g} % of pixels have one, largest {float(gradient.abs().max()):.2g}{kept}"
    )
    with faults_of_the_model():
        (again,) = torch.autograd.grad(model.classify([question])(canvas)[0, 0], canvas)
    drift = _largest(gradient - again)
    yield Finding(
        GRADIENT_REPEATS,
        "pass" if drift == 0 else "warn",
        f"largest difference {drift:.2g}" + ("" if drift == 0 else ": attacks will not repeat bit by bit"),
    )


def _precision(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    """Gradients of a model in half precision against those of its own copy in float32."""
    checkpoint = model.offers.checkpoint
    if checkpoint is None or not checkpoint.is_half:
        return
    try:
        with _exact(model) as exact:
            theirs = _slope(exact, images[:1], question).double().flatten()
        ours = _slope(model, images[:1], question).double().flatten()
    except (RuntimeError, MemoryError, ValueError, CheckpointError) as error:
        yield Finding(PRECISION, "warn", f"cannot be compared with float32: {str(error).splitlines()[0][:120]}")
        return
    cosine = float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0))
    agree = float((theirs.abs() * (ours.sign() == theirs.sign())).sum() / theirs.abs().sum())
    yield Finding(
        PRECISION,
        "pass" if min(cosine, agree) >= GRADIENT_AGREEMENT else "warn",
        f"cosine {cosine:.3f} with float32, {100 * agree:.1f} % of its length has the same sign (limit "
        f"{GRADIENT_AGREEMENT:g} of both); --dtype float32 is exact",
    )


def _slope(model: Waist, canvas: torch.Tensor, question: Question) -> torch.Tensor:
    canvas = canvas.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.classify([question])(canvas)[0, 0], canvas)
    return gradient


def _largest(difference: torch.Tensor) -> float:
    """The largest absolute value; the -inf of padded options, and their differences, are left out."""
    return float(difference[difference.isfinite()].abs().max())
