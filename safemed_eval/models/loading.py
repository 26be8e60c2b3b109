"""From a source to a loaded model behind the waist; torch is imported when a function here is called."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from safemed_eval.errors import SpecError
from safemed_eval.models.checkpoints.prompts import Asking
from safemed_eval.models.source import Source

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Question
    from safemed_eval.models.waist import Waist

_log = logging.getLogger(__name__)


def load(
    source: Source,
    *,
    device: str = "auto",
    dtype: str = "auto",
    attn: str | None = None,
    device_map: str | None = None,
    asking: Asking | None = None,
    questions: Sequence[Question] = (),
    size: tuple[int, int] | None = None,
) -> Waist:
    """Load the model behind `source` and the denoiser before it, and take the shortcuts that are proved.

    Args:
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1", ...
        dtype: "auto" (the checkpoint's own on an accelerator, float32 on the CPU), "float32", "bfloat16", "float16".
        attn: transformers' attention implementation; None leaves the choice to transformers.
        device_map: accelerate's placement, such as "auto", for a model that one device cannot hold.
        asking: the readout and the template of a checkpoint; completed by `Source.asked`. A model that does not take
            prompts disregards it.
        questions: see `prove_shortcuts`.
        size: see `prove_shortcuts`.
    Raises:
        CheckpointError: it cannot be loaded or asked; the message says why.
        SpecError: the device cannot be used.
    """
    waist = load_plain(source, device=device, dtype=dtype, attn=attn, device_map=device_map, asking=asking)
    prove_shortcuts(waist, questions, size)
    return waist


def load_plain(
    source: Source, *, device: str, dtype: str, attn: str | None, device_map: str | None, asking: Asking | None
) -> Waist:
    """Load a model and its denoiser, without shortcuts; arguments and errors as in `load`."""
    from safemed_eval.models.denoiser import load_denoiser
    from safemed_eval.models.waist import Waist

    if device == "auto" and source.device is not None:
        device = source.device
    place = find_device(device)
    scorer = source.load(place, dtype=dtype, attn=attn, device_map=device_map, asking=source.asked(asking))
    return Waist(scorer, place, load_denoiser(source.denoiser, place) if source.denoiser else None)


def prove_shortcuts(
    waist: Waist, questions: Sequence[Question] = (), size: tuple[int, int] | None = None, *, compiled: bool = False
) -> None:
    """Let a checkpoint take the shortcuts of its forward that are proved not to change its scores; see `proof`.

    Args:
        questions: some that it will be asked, the shortest and the longest among them; synthetic ones by default.
        size: height and width of the images that it will be shown. Whenever a shorter or longer prompt comes later,
            the shortcuts are proved again.
        compiled: compile its layers, too; a warning says why where that is not to be had.
    """
    from safemed_eval.models.checkpoints.shortcuts import COMPILED

    if (checkpoint := waist.offers.checkpoint) is None:
        return
    if compiled and waist.device.type == "cpu":
        _log.warning("--compile: takes a minute or more on a CPU, and gains next to nothing; it is meant for GPUs")
    checkpoint.take_shortcuts(questions, size, compiled=compiled)
    if compiled and COMPILED not in checkpoint.shortcuts:
        reason = checkpoint.refused[COMPILED].partition(" Set TORCHDYNAMO_VERBOSE")[0]
        _log.warning("--compile: has no effect here: %s", reason)


def load_to_train(
    source: Source, *, device: str = "auto", dtype: str = "auto", attn: str | None = None, asking: Asking | None = None
) -> tuple[Any, Waist]:
    """Load a checkpoint for a trainer; arguments and errors as in `load`.

    A checkpoint that was not trained here before is asked for `<answer>` tags.

    Returns:
        The network to train, or the adapter around it, and the same network behind the waist.
    """
    from safemed_eval.models.waist import Waist

    place = find_device(device)
    asked = source.asked(asking, to_train=True)
    policy, scorer = source.load_to_train(place, dtype=dtype, attn=attn, asking=asked)
    return policy, Waist(scorer, device=place)


def find_device(device: str) -> torch.device:
    """Return the device that "auto", "cpu", "cuda", "cuda:1", ... names.

    Raises:
        SpecError: there is no such device, or it cannot be used.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError:
        raise SpecError(f"--device {device}: not a device; write auto, cpu, cuda or cuda:1") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise SpecError(f"--device {device}: torch {torch.__version__} sees no CUDA device here")
    try:
        torch.zeros(1, device=place).cpu()
    except (RuntimeError, NotImplementedError) as error:
        raise SpecError(f"--device {device}: cannot be used here: {str(error).splitlines()[0]}") from None
    return place


def quiet_transformers() -> None:
    """Stop the messages and progress bars of transformers; the progress and errors of this package are enough."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
