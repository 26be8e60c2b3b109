"""Image tokens that see each other both ways: Gemma's, and Molmo2."""

from __future__ import annotations

from families._parts import TEXT, TOWER, VIT, make, square
from safemed_eval.models.tiny import Family

FAMILIES = {
    "gemma3": Family(
        model_type="gemma3",
        config={
            "text_config": {
                **TEXT,
                "head_dim": 16,
                "query_pre_attn_scalar": 16,
                "sliding_window": 32,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "vision_config": TOWER,
            "mm_tokens_per_image": 4,
            "image_token_index": "token:<image_soft_token>",
            "boi_token_index": "token:<start_of_image>",
            "eoi_token_index": "token:<end_of_image>",
        },
        processor="Gemma3Processor",
        image_processor=make("Gemma3ImageProcessor", size=square(56)),
        image="<start_of_image>",
        tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        settings={"image_seq_length": 4},
    ),
    "paligemma": Family(
        model_type="paligemma",
        config={
            "text_config": {"model_type": "gemma", **TEXT, "bos_token_id": "token:<bos>", "head_dim": 16},
            "vision_config": {"model_type": "siglip_vision_model", **TOWER, "vision_use_head": False},
            "image_token_index": "token:<image>",
            "projection_dim": 64,
        },
        processor="PaliGemmaProcessor",
        image_processor=make("SiglipImageProcessor", size=square(56), image_seq_length=16),
        image=None,
        tokens={"image_token": "<image>"},
        bos="<bos>",
    ),
    "molmo2": Family(
        model_type="molmo2",
        config={
            "text_config": {**TEXT, "head_dim": 16, "additional_vocab_size": 8},
            "vision_config": {
                **VIT,
                "num_key_value_heads": 4,
                "head_dim": 16,
                "image_size": [56, 56],
                "patch_size": 14,
            },
            "adapter_config": {
                "vision_feature_layer": [-1, -2],
                "hidden_size": 64,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "head_dim": 16,
                "intermediate_size": 128,
                "text_hidden_size": 64,
            },
            "image_patch_id": "token:<im_patch>",
            "image_start_token_id": "token:<im_start>",
            "image_end_token_id": "token:<im_end>",
            "low_res_image_start_token_id": "token:<low_res_im_start>",
            "frame_start_token_id": "token:<frame_start>",
            "frame_end_token_id": "token:<frame_end>",
        },
        processor="Molmo2Processor",
        image_processor=make("Molmo2ImageProcessor", size=square(56), overlap_margins=[1, 1], max_crops=2),
        image="<|image|>",
        extra_tokens=(
            "<|image|>",
            "<|video|>",
            "<im_patch>",
            "<im_col>",
            "<im_start>",
            "<low_res_im_start>",
            "<frame_start>",
            "<im_end>",
            "<frame_end>",
            "<im_low>",
        ),
    ),
}
