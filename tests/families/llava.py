"""A vision tower, a projector, and image tokens in the text."""

from __future__ import annotations

from families._parts import TEXT, TOWER, VIT, make, square
from safemed_eval.models.tiny import Family

FAMILIES = {
    "llava": Family(
        model_type="llava",
        config={
            "text_config": {"model_type": "llama", **TEXT},
            "vision_config": {"model_type": "clip_vision_model", **TOWER},
            "image_token_id": "token:<image>",
            "vision_feature_layer": -1,
        },
        processor="LlavaProcessor",
        image_processor=make("CLIPImageProcessor", size={"shortest_edge": 56}, crop_size=square(56)),
        image="<image>",
        tokens={"image_token": "<image>"},
        settings={"patch_size": 14, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"},
    ),
    "cohere2": Family(
        model_type="llava",
        config={
            "text_config": {"model_type": "cohere2", **TEXT, "sliding_window": 64, "logit_scale": 1.0},
            "vision_config": {"model_type": "clip_vision_model", **TOWER},
            "image_token_id": "token:<image>",
            "vision_feature_layer": -1,
        },
        processor="LlavaProcessor",
        image_processor=make("CLIPImageProcessor", size={"shortest_edge": 56}, crop_size=square(56)),
        image="<image>",
        tokens={"image_token": "<image>"},
        settings={"patch_size": 14, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"},
    ),
    "llava_onevision": Family(
        model_type="llava_onevision",
        config={
            "text_config": {"model_type": "qwen2", **TEXT},
            "vision_config": {"model_type": "siglip_vision_model", **TOWER, "vision_use_head": False},
            "image_token_index": "token:<image>",
            "video_token_index": "token:<video>",
            "image_grid_pinpoints": [[56, 56], [56, 112]],
        },
        processor="LlavaOnevisionProcessor",
        image_processor=make(
            "LlavaOnevisionImageProcessor", size=square(56), image_grid_pinpoints=[[56, 56], [56, 112]]
        ),
        image="<image>",
        tokens={"image_token": "<image>", "video_token": "<video>"},
        settings={"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
    ),
    "internvl": Family(
        model_type="internvl",
        config={
            "text_config": {"model_type": "qwen2", **TEXT},
            "vision_config": {**VIT, "image_size": [56, 56], "patch_size": [14, 14]},
            "image_token_id": "token:<IMG_CONTEXT>",
            "downsample_ratio": 0.5,
        },
        processor="InternVLProcessor",
        image_processor=make("GotOcr2ImageProcessor", size=square(56), min_patches=1, max_patches=2),
        image="<IMG_CONTEXT>",
        tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        settings={"image_seq_length": 4},
    ),
    "mistral3": Family(
        model_type="mistral3",
        config={
            "text_config": {"model_type": "mistral", **TEXT},
            "vision_config": {"model_type": "pixtral", **TOWER},
            "image_token_index": "token:[IMG]",
        },
        processor="PixtralProcessor",
        image_processor=make("PixtralImageProcessor", size={"longest_edge": 56}, patch_size=14),
        image="[IMG]",
        extra_tokens=("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        settings={"patch_size": 14, "spatial_merge_size": 2},
    ),
}
