"""The function `check_model`: checks that a model can be attacked and certified as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safemed_eval.core import Question
from safemed_eval.data import DEFAULT_CANVAS, parse_canvas
from safemed_eval.errors import CheckpointError, SpecError
from safemed_eval.models import AnyModel, Model, find_model

if TYPE_CHECKING:
    from safemed_eval.models.checks.common import Finding

_EXAMPLE = Question(text="Which imaging modality is this?", options=("CT", "MRI"))


def check_model(model: AnyModel, *, canvas: str = "384x384") -> list[Finding]:
    """Run every check of a model on synthetic images: gradients, finite outputs, letters, the official path, ...

    >>> import safemed_eval as se
    >>> {finding.status for finding in se.check_model("builtin:sft", canvas="64x64")}
    {'pass'}

    Args:
        model: from `load_model`, or what that takes.
        canvas: HxW, the canvas size of the check.
    Returns:
        The findings: `name`, `status` ("pass", "warn" or "fail") and `detail`. A model that cannot be loaded has one
        finding, "loads", which fails.
    Raises:
        SpecError: an argument is wrong.
    """
    size = parse_canvas(canvas, "stretch", DEFAULT_CANVAS).size
    if size is None:
        raise SpecError("--canvas native: there is no image here to take the size from; write HxW")
    from safemed_eval.models.checks.common import Finding

    try:
        checked = model if isinstance(model, Model) else find_model(model)
        waist = checked.waist
    except CheckpointError as error:
        return [Finding("loads", "fail", str(error))]
    from safemed_eval.models.check import check

    denoiser = checked.source.denoiser
    name = waist.describe(_EXAMPLE).get("architecture", checked.name)
    behind = f", behind {denoiser.name}" if denoiser else ""
    loads = Finding("loads", "pass", f"{name} on {waist.device}{behind}")
    return [loads, *check(waist, size, gradients=waist.differentiable)]
