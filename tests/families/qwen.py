"""Images as one long row of patches with their grid, and positions in three dimensions: Qwen's, and GLM-4V."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from families._parts import TEXT, make
from safemed_eval.models.tiny import QWEN2_5_VL, Family


def _text(**rope: Any) -> dict[str, Any]:
    return {**TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, **rope}}


_VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 64}
_IDS = {key: value for key, value in QWEN2_5_VL.config.items() if key.endswith("_id")}

FAMILIES = {
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen2_vl": replace(
        QWEN2_5_VL,
        model_type="qwen2_vl",
        config={
            **_IDS,
            "text_config": _text(mrope_section=[2, 3, 3]),
            "vision_config": {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 2},
        },
        processor="Qwen2VLProcessor",
    ),
    "qwen3_vl": replace(
        QWEN2_5_VL,
        model_type="qwen3_vl",
        config={
            **_IDS,
            "text_config": {**_text(mrope_section=[4, 2, 2]), "head_dim": 16},
            "vision_config": {
                **_VISION,
                "patch_size": 14,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
        },
        processor="Qwen3VLProcessor",
    ),
    "qwen3_5": replace(  # half of its layers read the text from left to right, padding first
        QWEN2_5_VL,
        model_type="qwen3_5",
        config={
            **_IDS,
            "text_config": {
                **_text(mrope_section=[1, 1, 0], mrope_interleaved=True, partial_rotary_factor=0.25),
                "head_dim": 16,
                "layer_types": ["linear_attention", "full_attention"],
                "linear_key_head_dim": 16,
                "linear_value_head_dim": 16,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
            },
            "vision_config": {**_VISION, "patch_size": 14, "num_position_embeddings": 16},
        },
        processor="Qwen3VLProcessor",
    ),
    "glm4v": Family(
        model_type="glm4v",
        config={
            "text_config": _text(mrope_section=[2, 3, 3]),
            "vision_config": {**_VISION, "image_size": 56},
            "image_token_id": "token:<|image|>",
            "video_token_id": "token:<|video|>",
            "image_start_token_id": "token:<|begin_of_image|>",
            "image_end_token_id": "token:<|end_of_image|>",
            "video_start_token_id": "token:<|begin_of_video|>",
            "video_end_token_id": "token:<|end_of_video|>",
        },
        processor="Glm4vProcessor",
        image_processor=make(  # whose areas count each image as two frames
            "Glm4vImageProcessor", size={"shortest_edge": 2 * 56 * 56, "longest_edge": 2 * 56 * 56}
        ),
        image="<|begin_of_image|><|image|><|end_of_image|>",
        tokens={"image_token": "<|image|>", "video_token": "<|video|>"},
        extra_tokens=("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
    ),
}
