"""Check what a model returns, and convert it to answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from safemed_eval.core import Answers, Question
from safemed_eval.errors import ModelOutputError
from safemed_eval.faults import faults_of_the_model
from safemed_eval.models.answers import parse

NOT_FINITE = "the model returned NaN or infinite scores"


@contextmanager
def guarded(canvas: torch.Tensor, who: str = "model") -> Iterator[None]:
    """Turn what the model raises inside this block into ModelOutputError, and refuse a model that writes into `canvas`.

    Others still need the canvas.
    """
    version = canvas._version
    with faults_of_the_model(f"the {who}"):
        yield
    if canvas._version != version:
        raise ModelOutputError(f"the {who} writes into its input; let it work on a copy")


def as_tensor(output: object, what: str, who: str = "model") -> torch.Tensor:
    """Return the output if it is a dense real tensor, else raise ModelOutputError."""
    if not isinstance(output, torch.Tensor):
        kind = type(output).__name__
    elif output.is_complex() or output.layout != torch.strided or output.is_meta:
        kind = f"{output.dtype} {output.layout}"
    else:
        return output
    raise ModelOutputError(f"the {who} returned {what} of type {kind}, expected a dense real tensor")


def refuse_other_kind(output: torch.Tensor, expected: torch.Tensor, who: str) -> None:
    """Raise ModelOutputError if two tensors differ in type, shape or device."""
    kinds = [f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}" for tensor in (output, expected)]
    if kinds[0] != kinds[1]:
        raise ModelOutputError(f"the {who} returned {kinds[0]}, expected {kinds[1]}")


def refuse_rows(broken: torch.Tensor, what: str) -> None:
    """Raise ModelOutputError if any row is broken; `broken` holds a truth value per row."""
    if bool(broken.any()):
        raise ModelOutputError(f"{what} for {int(broken.sum())} of {len(broken)} rows")


def parsed(texts: Sequence[str], questions: Sequence[Question]) -> Answers:
    """Parse one text per question."""
    if len(texts) != len(questions) or not all(isinstance(text, str) for text in texts):
        raise ModelOutputError(f"the model wrote {len(texts)} answers to {len(questions)} questions, or not texts")
    predictions = [parse(text, question) for text, question in zip(texts, questions, strict=True)]
    return Answers(predictions=predictions, texts=list(texts))


def likeliest(log_probs: torch.Tensor, questions: Sequence[Question]) -> Answers:
    """Answer each row with its likeliest option."""
    rows = [row[: len(q.options)] for row, q in zip(log_probs.cpu(), questions, strict=True)]
    return Answers(predictions=[int(row.argmax()) for row in rows], log_probs=[row.tolist() for row in rows])
