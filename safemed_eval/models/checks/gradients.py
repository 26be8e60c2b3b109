"""Checks that only attacks need: do gradients reach the pixels, and are they those of float32?"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from safemed_eval.core import GRADIENT_REPEATS, PRECISION, Question
from safemed_eval.errors import CheckpointError
from safemed_eval.faults import faults_of_the_model
from safemed_eval.models.checks.common import REACHES, Finding, in_full_precision, largest_change
from safemed_eval.models.waist import Waist

GRADIENT_AGREEMENT = 0.9
"""Smallest accepted cosine, and share of equal signs, of gradients in half precision against float32."""


def check_gradient(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    """Check that a gradient reaches the pixels, is finite and not zero, and repeats."""
    name = REACHES
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
    drift = largest_change(gradient - again)
    yield Finding(
        GRADIENT_REPEATS,
        "pass" if drift == 0 else "warn",
        f"largest difference {drift:.2g}" + ("" if drift == 0 else ": attacks will not repeat bit by bit"),
    )


def check_precision(model: Waist, images: torch.Tensor, question: Question) -> Iterator[Finding]:
    """Compare the gradients of a model in half precision with those of the same model in float32."""
    checkpoint = model.offers.checkpoint
    if checkpoint is None or not checkpoint.is_half:
        return
    try:
        with in_full_precision(model) as exact:
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
