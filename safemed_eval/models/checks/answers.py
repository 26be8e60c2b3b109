"""Checks of a model's answers: do they repeat, do rows stay apart, does the image matter?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from string import ascii_uppercase

import torch

from safemed_eval.core import REPEATS, Question
from safemed_eval.errors import CheckpointError
from safemed_eval.models.checkpoints.proof import limit
from safemed_eval.models.checks.common import IMAGE_MATTERS, OTHER, Finding, in_full_precision, largest_change
from safemed_eval.models.waist import Waist

_ROUNDING = 0.1
"""How much of the largest score a row may change by where it can be compared in half precision only."""

_SHOWN = 120
_VISIBLE = 1e-5
"""Smallest change of a log-probability, between an image and its negative, that is no rounding error."""
_REPETITIONS = 16
_SILENT = -1


def check_texts(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    """Check what the model writes, and that it repeats: the noise of sampling is seeded by the row's pixels."""
    if model.offers.checkpoint is not None:
        model.offers.checkpoint.refuse_8_bit_only(images[0], images[:1] + 2 * (images[2:] - 0.5), question)
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


def check_outputs(
    model: Waist, images: torch.Tensor, question: Question, ends: tuple[Question, Question]
) -> Iterator[Finding]:
    """Check scores, or votes where there are none; `ends` are the shortest and the longest question."""
    if not model.differentiable:
        yield from _votes(model, images, question)
        return
    with torch.no_grad():
        three = model.classify([question] * 3)(images)
        model.classify([question])(images[:1] + 2 * (images[2:] - 0.5))
        yield Finding("finite log-probabilities", "pass", "for 3 images, and for noise far outside [0, 1]")
        drift = largest_change(three - model.classify([question] * 3)(images))
        yield _repeats(model, images, question, drift)
        yield _independent(model, images, ends)
        mixed = model.classify([OTHER, question, OTHER])(images.flip(0))
        twins = model.classify([question] * 3)(images[[0, 0, 0]])
        yield _image_matters(model, images, question, three, max(drift, largest_change(twins[0] - twins[1])))
        turned = model.classify([_turned(question)] * 3)(images)
        yield _varies([*three.argmax(1).tolist(), *turned.argmax(1).tolist(), *mixed[[0, 2]].argmax(1).tolist()])


def _independent(model: Waist, images: torch.Tensor, ends: tuple[Question, Question]) -> Finding:
    """Check that other rows of a batch change a row's scores no more than copies of the row itself do.

    Measured in float32 if the weights can be held so: in half precision, padding alone changes scores as much as some
    mistakes do.
    """
    try:
        with in_full_precision(model) as exact:
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
    """The largest change of a row beside another question and beside a copy, and the largest log-probability."""
    alone = [model.classify([question])(images[i : i + 1])[0] for i, question in enumerate(ends)]
    copies = [model.classify([question] * 2)(images[[i, i]])[0] for i, question in enumerate(ends)]
    together = [row[: len(own)] for row, own in zip(model.classify(ends)(images[:2]), alone, strict=True)]
    leak, noise = (max(largest_change(a - b) for a, b in zip(rows, alone, strict=True)) for rows in (together, copies))
    return leak, noise, max(map(largest_change, alone))


def _votes(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    asked = (question, question, _turned(question), OTHER)
    votes, again, turned, other = (
        [vote if vote < len(q.options) else _SILENT for vote in model.vote(q)(images).tolist()] for q in asked
    )
    said, then = (", ".join(map(_letter, some)) for some in (votes, again))
    yield Finding("votes", "warn", f"{model.lacks('scores')}, here {said}: can be certified, not attacked")
    same = votes == again
    detail = "the same votes on 3 images" if same else f"{said}, then {then} on the same images: it votes at random"
    yield Finding(REPEATS, "pass" if same else "warn", detail)
    yield _varies([*votes, *turned, *other])


def _repeats(model: Waist, images: torch.Tensor, question: Question, drift: float) -> Finding:
    """Check that a model repeats itself; if it does not, see whether its answers change, too."""
    if drift == 0:
        return Finding(REPEATS, "pass", "largest difference 0")
    answers = [model.classify([question] * 3)(images).argmax(1) for _ in range(_REPETITIONS)]
    changed = sum(not torch.equal(answer, answers[0]) for answer in answers)
    said = "runs will not repeat bit by bit"
    if changed:
        said = f"answers change in {changed} of {_REPETITIONS} repetitions, the model answers at random: {said}"
    return Finding(REPEATS, "warn", f"largest difference {drift:.2g}: {said}")


def _image_matters(
    model: Waist, images: torch.Tensor, question: Question, answered: torch.Tensor, noise: float
) -> Finding:
    """Check that scores differ between an image and its negative by more than between copies of one image.

    If the model's own noise is as large, the mean over repetitions must differ by four standard errors.
    """
    name, moved = IMAGE_MATTERS, largest_change(answered[0] - answered[1])
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
    """Check that the letters differ among some images, two questions, and two orders of the options of one."""
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
