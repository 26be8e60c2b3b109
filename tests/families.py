"""The architectures of the conformance suite, as tiny random-weight checkpoints. A new family is one row."""

from __future__ import annotations

from typing import Any

import transformers

from safemed_eval.models.tiny import QWEN2_5_VL, Family

_LLAMA = {
    "vocab_size": "vocab",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": "token:<|pad|>",
    "bos_token_id": None,
    "eos_token_id": "token:<|im_end|>",
}
_VIT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def _make(name: str, **settings: Any) -> Any:
    return lambda: getattr(transformers, name)(**settings)


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _idefics3(longest_edge: int) -> Family:
    """Tiles of 56 pixels: one where the longest edge is 56, four and a small copy of the whole where it is 112."""
    return Family(
        model_type="idefics3",
        config={
            "text_config": {"model_type": "llama", **_LLAMA},
            "vision_config": {**_VIT, "image_size": 56, "patch_size": 14},
            "image_token_id": "token:<image>",
            "scale_factor": 2,
            "pad_token_id": "token:<|pad|>",
        },
        processor="Idefics3Processor",
        image_processor=_make(
            "Idefics3ImageProcessor",
            size={"longest_edge": longest_edge},
            max_image_size={"longest_edge": 56},
        ),
        image="<image>",
        extra_tokens=(
            "<fake_token_around_image>",
            "<image>",
            "<end_of_utterance>",
            "<global-img>",
            *(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)),
        ),
        settings={"image_seq_len": 4},
    )


FAMILIES = {
    "qwen2_5_vl": QWEN2_5_VL,
    "llava": Family(
        model_type="llava",
        config={
            "text_config": {"model_type": "llama", **_LLAMA},
            "vision_config": {"model_type": "clip_vision_model", **_VIT, "image_size": 56, "patch_size": 14},
            "image_token_id": "token:<image>",
            "vision_feature_layer": -1,
        },
        processor="LlavaProcessor",
        image_processor=_make("CLIPImageProcessor", size={"shortest_edge": 56}, crop_size=_square(56)),
        image="<image>",
        tokens={"image_token": "<image>"},
        settings={
            "patch_size": 14,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
        },
    ),
    "idefics3": _idefics3(longest_edge=56),
    "idefics3_tiled": _idefics3(longest_edge=112),
    "gemma3": Family(
        model_type="gemma3",
        config={
            "text_config": {
                **_LLAMA,
                "head_dim": 16,
                "query_pre_attn_scalar": 16,
                "sliding_window": 32,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "vision_config": {**_VIT, "image_size": 56, "patch_size": 14},
            "mm_tokens_per_image": 4,
            "image_token_index": "token:<image_soft_token>",
            "boi_token_index": "token:<start_of_image>",
            "eoi_token_index": "token:<end_of_image>",
        },
        processor="Gemma3Processor",
        image_processor=_make("Gemma3ImageProcessor", size=_square(56)),
        image="<start_of_image>",
        tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        settings={"image_seq_length": 4},
    ),
    "internvl": Family(
        model_type="internvl",
        config={
            "text_config": {"model_type": "qwen2", **_LLAMA},
            "vision_config": {**_VIT, "image_size": [56, 56], "patch_size": [14, 14]},
            "image_token_id": "token:<IMG_CONTEXT>",
            "downsample_ratio": 0.5,
        },
        processor="InternVLProcessor",
        image_processor=_make("GotOcr2ImageProcessor", size=_square(56), min_patches=1, max_patches=2),
        image="<IMG_CONTEXT>",
        tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        settings={"image_seq_length": 4},
    ),
}
