"""Checks of a checkpoint's float path against its official 8-bit path."""

from __future__ import annotations

import math
from collections.abc import Iterator
from string import ascii_uppercase

import torch

from safemed_eval.core import NOT_SHRUNK, Question
from safemed_eval.models.checkpoints.processor import picture
from safemed_eval.models.checks.common import OTHER, Finding, largest_change
from safemed_eval.models.waist import Waist

PIXEL_TOLERANCE = 0.05
"""Largest accepted root-mean-square difference of model inputs, float path against 8-bit path, in their own std."""
LOG_PROB_TOLERANCE = 0.25
"""Largest accepted difference of log-probabilities between the two paths."""


def check_official(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    """Check the tokens of the option letters, and compare inputs and log-probabilities of the two paths."""
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
        shift = largest_change(undenoised.classify([question])(scene)[0] - official.to(scene.device))
    fits = relative <= PIXEL_TOLERANCE and shift <= LOG_PROB_TOLERANCE
    yield Finding(
        "float path against 8-bit path",
        "pass" if fits else "fail",
        f"{name} differ by {relative:.2g} of their std (limit {PIXEL_TOLERANCE}), log-probabilities by {shift:.2g} "
        f"(limit {LOG_PROB_TOLERANCE})",
    )


def check_size(model: Waist, size: tuple[int, int], question: Question) -> Iterator[Finding]:
    """Report the size at which the image processor hands a canvas to the model, and propose one that it leaves alone.

    Args:
        size: height and width of the canvas. A larger one is tried beside it, to see whether its size matters.
    """
    checkpoint = model.offers.checkpoint
    if checkpoint is None:
        return
    here = checkpoint.image_size(torch.zeros(3, *size), question)
    there = checkpoint.image_size(torch.zeros(3, 2 * size[0], 2 * size[1]), question)
    if here is None:
        yield Finding("image size", "n/a", "the processor's output does not tell it")
        return
    arrives, own = _size(here.size), here == there
    if here.images > 1:
        detail = f"a canvas of {_size(size)} reaches the model as {here.images} images of {arrives}"
        yield Finding("image size", "pass", detail)
        return
    detail = f"{arrives} whatever the canvas" if own else f"a canvas of {_size(size)} reaches the model as {arrives}"
    yield Finding("image size", "pass", f"the image processor's own: {detail}", canvas=arrives)


def check_canvas(model: Waist, size: tuple[int, int]) -> Iterator[Finding]:
    """Warn where the image processor shrinks the canvas so much that noise and perturbations average out."""
    here = model.offers.checkpoint and model.offers.checkpoint.image_size(torch.zeros(3, *size), OTHER)
    if here and here.images == 1 and math.prod(size) >= _SHRUNK * math.prod(here.size):
        arrives = _size(here.size)
        yield Finding(
            NOT_SHRUNK,
            "warn",
            f"--canvas {_size(size)}: the image processor shrinks it to {arrives}, and noise and perturbations average "
            f"out: the same sigma and eps are milder than at --canvas {arrives}, and numbers on the two do not compare",
            canvas=arrives,
        )


_SHRUNK = 4
"""Canvas pixels for each pixel that the model gets, from which on `check_canvas` warns."""


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def list_shortcuts(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    """Report which shortcuts the forward takes, and why it does not take the others."""
    if (checkpoint := model.offers.checkpoint) is not None:
        taken = f"taken: {', '.join(checkpoint.shortcuts) or 'none'}"
        refused = (f"{name} not: {reason}" for name, reason in checkpoint.refused.items())
        yield Finding("shortcuts", "pass", "; ".join((taken, *refused)))
