"""The tokens of option letters, and their rows of the output head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from safemed_eval.core import MAX_OPTIONS, Question
from safemed_eval.errors import CheckpointError
from safemed_eval.models.checkpoints.protocols import Network, Tokenizer

Head = tuple[torch.nn.Module, str, torch.nn.Linear]
"""The module that holds the output head, the head's name in it, and the head."""


@contextmanager
def letters_only(place: Head, tokens: torch.Tensor) -> Iterator[LetterHead]:
    """For one forward, narrow lm_head to the rows of some tokens, in float32: in bfloat16 ties would favour A.

    The rest of the model's forward, such as soft-capping of logits, is left as it is. Not for two threads at once.

    Yields:
        The narrowed head, which keeps the features that it reads.
    """
    parent, name, head = place
    letters = LetterHead(head, tokens)
    setattr(parent, name, letters)
    try:
        yield letters
    finally:
        setattr(parent, name, head)


class LetterHead(torch.nn.Module):
    """The rows of an output head that belong to some tokens, applied in float32 or better.

    Attributes:
        features: (B, D) what it read at the last token in its last call.
    """

    features: torch.Tensor

    def __init__(self, head: torch.nn.Linear, tokens: torch.Tensor) -> None:
        super().__init__()
        self.rows = head.weight[tokens]
        self.bias = None if head.bias is None else head.bias[tokens]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(hidden.device, wide)
        self.features = hidden[:, -1]
        with torch.autocast(hidden.device.type, enabled=False):  # which would narrow them again, in training
            return F.linear(hidden.to(wide), self.rows.to(hidden.device, wide), bias)


def find_head(model: Network) -> Head:
    """Find the output head and its place in the model; raises CheckpointError if it cannot be narrowed."""
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or not head.weight.is_floating_point() or head.weight.is_meta:
        kind = "none" if head is None else type(head).__name__
        raise CheckpointError(
            f"the output head must be a plain linear layer in memory to read option letters in float32, found {kind}; "
            "merge the adapter, or leave lm_head out of quantization and offloading"
        )
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is head:
                return parent, name, head
    raise CheckpointError("the output head is not a module of the model")


def letter_tokens(tokenizer: Tokenizer, ending: str, count: int = MAX_OPTIONS) -> list[int]:
    """Token ids of " A", " B", ... after what the prompt ends with; of "A", "B", ... after white space.

    Raises:
        CheckpointError: a letter is not one token, two letters share one, or the letter changes the ending's tokens.
    """
    blank = "" if ending[-1:].isspace() else " "

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    before, ids = encode(ending), list[int]()
    for letter in Question(text="", options=("",) * count).letters:
        tokens = encode(f"{ending}{blank}{letter}")
        if tokens[:-1] != before or tokens[-1] == tokenizer.unk_token_id or tokens[-1] in ids:
            raise CheckpointError(
                f"option letter {letter} is not one distinct token after {ending!r}, but "
                f"{tokenizer.convert_ids_to_tokens(tokens)}; answers cannot be read as letters"
            )
        ids.append(tokens[-1])
    return ids
