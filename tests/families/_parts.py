"""What the rows have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers

TOKENS = {"pad_token_id": "token:<|pad|>", "bos_token_id": None, "eos_token_id": "token:<|im_end|>"}
TEXT = {
    "vocab_size": "vocab",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    **TOKENS,
}
VIT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TOWER = {**VIT, "image_size": 56, "patch_size": 14}


def make(name: str, **settings: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, name)(**settings)


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}
