"""Is this checkpoint attackable and certifiable as it stands? Each check answers pass, warn or fail, with a figure.

`models check` prints all; `evaluate` and `certify` run them at load and refuse a model that fails one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image

from safemed_eval.core import Question
from safemed_eval.errors import CheckpointError, ModelOutputError
from safemed_eval.models.waist import Waist

Status = Literal["pass", "warn", "fail"]

PIXEL_TOLERANCE = 0.05
"""Largest accepted root-mean-square difference of model inputs, float path against 8-bit path, in their own std."""

_QUESTION = Question(text="Which imaging modality is this?", options=("CT", "MRI", "X-Ray", "Ultrasound"))
_OTHER = Question(text="Is there a visible abnormality in this image of the chest?", options=("Yes", "No"))


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    status: Status
    detail: str


def check(model: Waist, size: tuple[int, int], *, gradients: bool = True) -> list[Finding]:
    """Run every check on synthetic images of this (height, width).

    Args:
        gradients: leave out the checks that only an attack needs when False.
    """
    images = _images(size).to(model.device)
    checks: list[Callable[[Waist, torch.Tensor], Iterator[Finding]]] = [_outputs, _official]
    if gradients:
        checks.append(_gradient)
    found: list[Finding] = []
    for one in checks:
        try:
            found.extend(one(model, images))
        except ModelOutputError as error:
            found.append(Finding("finite log-probabilities", "fail", str(error)))
            break
        except Exception as error:  # a processor or a model that cannot take float tensors raises what it likes
            text = " ".join(str(error).split())[:300]
            found.append(Finding("takes float tensors", "fail", f"{type(error).__name__}: {text}"))
            break
    return found


def refuse_failures(found: list[Finding], name: str) -> None:
    """Raise CheckpointError that names every failed check."""
    failed = [f"{finding.name}: {finding.detail}" for finding in found if finding.status == "fail"]
    if failed:
        raise CheckpointError(f"--model {name}: {'; '.join(failed)} (safemed-eval models check shows all)")


def _images(size: tuple[int, int]) -> torch.Tensor:
    """(3, 3, H, W) on 8-bit grey levels: a smooth anatomy-like scene, its negative, and seeded noise."""
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, side) for side in size), indexing="ij")
    disc = torch.exp(-((rows - 0.45) ** 2 + (columns - 0.55) ** 2) / 0.08)
    scene = torch.stack([0.15 + 0.6 * disc, 0.1 + 0.5 * disc * columns, 0.2 + 0.4 * disc * rows])
    noise = torch.rand(scene.shape, generator=torch.Generator().manual_seed(0))
    return (torch.stack([scene, 1 - scene, noise]) * 255).round() / 255


def _outputs(model: Waist, images: torch.Tensor) -> Iterator[Finding]:
    if not model.differentiable:
        votes = model.vote(_QUESTION)(images)
        yield Finding("votes", "pass", f"only votes, here {votes.tolist()}; cannot be attacked")
        return
    with torch.no_grad():
        three = model.classify([_QUESTION] * 3)(images)
        yield Finding("finite log-probabilities", "pass", "for 3 images, and for noise far outside [0, 1]")
        model.classify([_QUESTION])(images[:1] + 2 * (images[2:] - 0.5))
        again = model.classify([_QUESTION] * 3)(images)
        drift = _worst(three, again)
        yield Finding(
            "same input, same output",
            "pass" if drift == 0 else "warn",
            f"largest difference {drift:.2g}" + ("" if drift == 0 else ": runs will not repeat bit by bit"),
        )
        mixed = model.classify([_OTHER, _QUESTION, _OTHER])(images.flip(0))[1]
        alone = model.classify([_QUESTION])(images[1:2])[0]
        leak = _worst(mixed, alone)
        scale = max(1.0, float(alone.abs().max()))
        limit = scale * (1e-4 if _single_precision(model) else 0.1)
        yield Finding(
            "rows are independent",
            "pass" if leak <= limit else "fail",
            f"a row changes by {leak:.2g} with other questions beside it (limit {limit:g})",
        )
        moved = _worst(three[0], three[1])
        yield Finding(
            "the image matters",
            "pass" if moved > 0 else "fail",
            f"log-probabilities change by {moved:.2g} between an image and its negative"
            + ("" if moved > 0 else ": the model does not look at it"),
        )


def _official(model: Waist, images: torch.Tensor) -> Iterator[Finding]:
    from safemed_eval.models.canvas import official_inputs, pixel_inputs
    from safemed_eval.models.prompts import render
    from safemed_eval.models.vlm import VLM

    if not isinstance(model.scorer, VLM):
        return
    vlm, scene = model.scorer, images[:1]
    yield Finding("option letters", "pass", "26 distinct tokens after the answer cue")
    picture = Image.fromarray((scene[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy())
    inputs, call = official_inputs(vlm.processor, picture, render(vlm.processor, _QUESTION))
    ours = pixel_inputs(vlm.processor, scene.cpu(), call)
    name = next(key for key in call.outputs if inputs[key].is_floating_point())
    shapes = inputs[name].shape, ours[name].shape
    if shapes[0] != shapes[1]:
        yield Finding(
            "float path against 8-bit path", "fail", f"{name} has shape {tuple(shapes[1])}, not {tuple(shapes[0])}"
        )
        return
    off = (inputs[name] - ours[name]).double()
    relative = float(off.square().mean().sqrt() / inputs[name].double().std().clamp_min(1e-12))
    with torch.no_grad():
        official = vlm.official_scores(picture, _QUESTION).log_softmax(0)
        shift = _worst(model.classify([_QUESTION])(scene)[0], official)
    yield Finding(
        "float path against 8-bit path",
        "pass" if relative <= PIXEL_TOLERANCE else "fail",
        f"{name} differ by {relative:.2g} of their std (limit {PIXEL_TOLERANCE}), log-probabilities by {shift:.2g}",
    )


def _gradient(model: Waist, images: torch.Tensor) -> Iterator[Finding]:
    name = "gradient reaches the pixels"
    if not model.differentiable:
        yield Finding(name, "fail", "the model has no 'scores', only votes")
        return
    canvas = images[2:].clone().requires_grad_()
    log_probs = model.classify([_QUESTION])(canvas)
    if not log_probs.requires_grad:
        yield Finding(name, "fail", "the processor or the model cuts the graph between pixels and answer")
        return
    (gradient,) = torch.autograd.grad(log_probs[0, 0], canvas)
    share = float((gradient != 0).any(1).double().mean())
    if not bool(gradient.isfinite().all()):
        yield Finding(name, "fail", "the gradient is not finite")
    elif share == 0:
        yield Finding(name, "fail", "the gradient is zero everywhere: gradient attacks would find nothing")
    else:
        kept = "" if share > 0.99 else "; the processor drops the others (crop, or sizes that patches do not divide)"
        yield Finding(
            name, "pass", f"{100 * share:.4g} % of pixels have one, largest {float(gradient.abs().max()):.2g}{kept}"
        )


def _worst(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference between two rows of log-probabilities, padding left out."""
    return float(np.nanmax((a[..., : b.shape[-1]].double().cpu() - b.double().cpu()).abs().numpy()))


def _single_precision(model: Waist) -> bool:
    dtype = getattr(getattr(model.scorer, "model", None), "dtype", torch.float32)
    return dtype in (torch.float32, torch.float64)
