"""Tiny random-weight checkpoints of real architectures, built on the spot: for the demo, the docs and the tests.

They answer at random. They exist so that every command can be tried, and every code path tested, without a download.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_CORPUS = (
    "Answer: " + " ".join(ascii_uppercase),
    "Answer with the letter of the correct option.",
    "Which imaging modality was used to take this image? Which organ does this image show?",
    "user assistant A) B) C) D) CT MRI X-Ray Ultrasound Dermoscopy Microscopy OCT Fundus Photography",
)
_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row of the table of architectures: a small configuration and the processor that goes with it.

    `config` may name special tokens as values, "token:<image>"; they become ids.
    """

    model_type: str
    config: Json
    processor: str
    image_processor: Callable[[], Any]
    image: str | None
    """The text that the chat template writes for an image; None for a checkpoint without a chat template."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens that the processor asks its tokenizer for, by attribute."""
    extra_tokens: tuple[str, ...] = ()
    bos: str | None = None
    """The token that every prompt begins with, if any."""
    settings: Json = field(default_factory=dict)
    """Further arguments of the processor."""


def build(family: Family, folder: Path, seed: int = 0, phrases: Sequence[str] = ()) -> Path:
    """Save a random-weight checkpoint of this family, with its processor, into `folder`.

    Args:
        phrases: the vocabulary of its tokenizer, each phrase as one token, and its words; any other word is unknown.
            Without phrases, it gets a byte-level tokenizer, which can write anything.
    """
    model, processor = make(family, phrases, seed=seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make(
    family: Family, phrases: Sequence[str] = (), *, seed: int = 0, dtype: torch.dtype | None = None, device: str = "cpu"
) -> tuple[Any, Any]:
    """A random-weight model of this family and its processor, as `build` saves them."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForImageTextToText

    tokenizer = _tokenizer(family, phrases)

    def ids(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ids(part) for key, part in value.items()}
        if isinstance(value, str) and value.startswith("token:"):
            return tokenizer.convert_tokens_to_ids(value.removeprefix("token:"))
        return len(tokenizer) if value == "vocab" else value

    config = AutoConfig.for_model(family.model_type, **ids(family.config))
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype or torch.float32)
        _enlarge(model)
    processor = getattr(transformers, family.processor)(
        image_processor=family.image_processor(),
        tokenizer=tokenizer,
        **_chat_template(family),
        **_video(family),
        **family.settings,
    )
    return model, processor


def _chat_template(family: Family) -> Json:
    if family.image is None:
        return {}
    return {"chat_template": (family.bos or "") + _TURNS.replace("IMAGE", family.image)}


def _enlarge(model: Any) -> None:
    """Enlarge the initial weights: those of transformers (0.02, or 0 for some projections) suit wide models.

    With them, the image would not influence the answers of a narrow model.
    """
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            if not parameter.any():
                parameter.data.normal_(0, 0.02)
            parameter.data.mul_(0.5 / (0.02 * parameter[0].numel() ** 0.5))
        elif parameter.numel() == 1 and not parameter.any():
            parameter.data.fill_(1.0)  # a gate, such as Mllama's, which keeps the image out while it is closed


def _tokenizer(family: Family, phrases: Sequence[str]) -> Any:
    from transformers import PreTrainedTokenizerFast

    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>", *family.tokens.values(), *family.extra_tokens]
    specials += [family.bos] if family.bos else []
    return PreTrainedTokenizerFast(
        tokenizer_object=_by_phrase(specials, phrases) if phrases else _by_byte(specials),
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        bos_token=family.bos,
        unk_token="<|unknown|>" if phrases else None,
        extra_special_tokens=dict(family.tokens),
    )


def _by_phrase(specials: Sequence[str], phrases: Sequence[str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    blanks = pre_tokenizers.Whitespace()
    words = {word for text in (*_CORPUS, *phrases) for word, _ in blanks.pre_tokenize_str(text)}
    known = [*specials, "<|unknown|>", *_TAGS, *sorted(words)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = blanks
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (*specials, "<|unknown|>")])
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in _TAGS])
    tokenizer.add_tokens([AddedToken(phrase, normalized=False, single_word=True) for phrase in sorted(set(phrases))])
    return tokenizer


def _by_byte(specials: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def _video(family: Family) -> Json:
    """A video processor for the few processors that cannot be built without one; it is never used here."""
    import transformers

    if "video_processor" not in inspect.signature(getattr(transformers, family.processor).__init__).parameters:
        return {}
    name = family.processor.replace("Processor", "VideoProcessor")
    name = "Qwen2VLVideoProcessor" if family.model_type == "qwen2_5_vl" else name
    return {"video_processor": getattr(transformers, name)()} if hasattr(transformers, name) else {}


def _qwen_image_processor(patch: int, side: int) -> Any:
    from transformers import Qwen2VLImageProcessor

    size = {"shortest_edge": side * side, "longest_edge": side * side}
    return Qwen2VLImageProcessor(patch_size=patch, merge_size=2, size=size)


_QWEN_TOKENS = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
_QWEN_BRACKETS = ("<|vision_start|>", "<|vision_end|>")
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN_IDS = {
    "image_token_id": "token:<|image_pad|>",
    "video_token_id": "token:<|video_pad|>",
    "vision_start_token_id": "token:<|vision_start|>",
    "vision_end_token_id": "token:<|vision_end|>",
}

QWEN2_5_VL = Family(
    model_type="qwen2_5_vl",
    config={
        "text_config": {
            "vocab_size": "vocab",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": "token:<|im_end|>",
            "pad_token_id": "token:<|pad|>",
        },
        "vision_config": {
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 64,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        **_QWEN_IDS,
    },
    processor="Qwen2_5_VLProcessor",
    image_processor=partial(_qwen_image_processor, 14, 56),
    image=_QWEN_IMAGE,
    tokens=_QWEN_TOKENS,
    extra_tokens=_QWEN_BRACKETS,
)


SMALL_QWEN2_VL = Family(
    model_type="qwen2_vl",
    config={
        "text_config": {
            "vocab_size": "vocab",
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
            "bos_token_id": None,
            "eos_token_id": "token:<|im_end|>",
            "pad_token_id": "token:<|pad|>",
        },
        "vision_config": {
            "depth": 3,
            "embed_dim": 128,
            "hidden_size": 128,
            "num_heads": 4,
            "hidden_act": "gelu",
            "mlp_ratio": 4,
            "patch_size": 8,
            "spatial_merge_size": 2,
        },
        **_QWEN_IDS,
        "tie_word_embeddings": False,
    },
    processor="Qwen2VLProcessor",
    image_processor=partial(_qwen_image_processor, 8, 64),
    image=_QWEN_IMAGE,
    tokens=_QWEN_TOKENS,
    extra_tokens=_QWEN_BRACKETS,
)
"""The family of the checkpoints in this package: about two million parameters, 16 image tokens for 64 x 64 pixels."""
