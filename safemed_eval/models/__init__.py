"""Models: anything that scores the options of a question about an image.

    >>> source = resolve("builtin:sft")           # what it is and where; no torch yet
    >>> model = load(source, device="auto")       # a Waist: .classify(questions), .vote(question)

Everything that knows transformers, tokens or a model family is inside this folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safemed_eval.models.checkpoints.prompts import Asking
from safemed_eval.models.files.source import Source, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from safemed_eval.core import Question
    from safemed_eval.models.waist import Waist

__all__ = ["Asking", "Source", "load", "load_to_train", "resolve"]


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
    """Load the model behind `source`, and the denoiser before it. This imports torch.

    Args:
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1", ...
        dtype: "auto" (the checkpoint's own on an accelerator, float32 on the CPU), "float32", "bfloat16", "float16".
        attn: transformers' attention implementation; None leaves the choice to transformers.
        device_map: accelerate's placement, such as "auto", for a model that one device cannot hold.
        asking: the readout and the template of a checkpoint. Without it, and without a template in it, a checkpoint is
            asked as it was trained, where it says how; see `Source.asked`. A model from Python asks by itself.
        questions: some that it will be asked, the shortest and the longest among them, and
        size: height and width of the images: what shortcuts of the forward are proved on, see `models.proof`. Without,
            on synthetic ones, and again whenever prompts come that are shorter or longer.
    Raises:
        CheckpointError: it cannot be loaded or cannot be asked; the message says why.
    """
    from safemed_eval.models.denoiser import load_denoiser
    from safemed_eval.models.waist import Waist

    place = _device(device)
    scorer: Any
    if source.kind == "python":
        from safemed_eval.models.factory import load_factory

        scorer = load_factory(source, place)
    else:
        from safemed_eval.models.checkpoints.load import load_checkpoint

        asked = source.asked(asking)
        scorer = load_checkpoint(source, place, dtype=dtype, attn=attn, device_map=device_map, asking=asked)
        scorer.take_shortcuts(questions, size)
    return Waist(scorer, place, load_denoiser(source.denoiser, place) if source.denoiser else None)


def load_to_train(
    source: Source, *, device: str = "auto", dtype: str = "auto", attn: str | None = None, asking: Asking | None = None
) -> tuple[Any, Waist]:
    """Load a checkpoint for a trainer; arguments and errors as in `load`.

    One that was not trained here before is asked for `<answer>` tags.

    Returns:
        What is trained, the model or the adapter around it, and the same network behind the waist.
    """
    from safemed_eval.models.checkpoints.load import load_trainable
    from safemed_eval.models.waist import Waist

    place = _device(device)
    asked = source.asked(asking, to_train=True)
    policy, vlm = load_trainable(source, place, dtype=dtype, attn=attn, asking=asked)
    return policy, Waist(vlm, device=place)


def _device(device: str) -> torch.device:
    import torch

    from safemed_eval.errors import SpecError

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
