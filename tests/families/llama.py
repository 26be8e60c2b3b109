"""Images cut into tiles: Idefics3, Mllama and Llama 4."""

from __future__ import annotations

from families._parts import TEXT, TOWER, make, square
from safemed_eval.models.tiny import Family


def _idefics3(longest_edge: int) -> Family:
    """Tiles of 56 pixels: one where the longest edge is 56, four and a small copy of the whole where it is 112."""
    return Family(
        model_type="idefics3",
        config={
            "text_config": {"model_type": "llama", **TEXT},
            "vision_config": TOWER,
            "image_token_id": "token:<image>",
            "scale_factor": 2,
            "pad_token_id": "token:<|pad|>",
        },
        processor="Idefics3Processor",
        image_processor=make(
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
    "idefics3": _idefics3(longest_edge=56),
    "idefics3_tiled": _idefics3(longest_edge=112),
    "mllama": Family(
        model_type="mllama",
        config={
            "text_config": {
                **TEXT,
                "bos_token_id": "token:<|begin_of_text|>",
                "cross_attention_layers": [1],
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            },
            "vision_config": {
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_global_layers": 1,
                "attention_heads": 4,
                "intermediate_layers_indices": [0],
                "vision_output_dim": 128,
                "image_size": 28,
            },
            "image_token_index": "token:<|image|>",
        },
        processor="MllamaProcessor",
        image_processor=make("MllamaImageProcessor", size=square(28), max_image_tiles=4),
        image="<|image|>",
        tokens={"image_token": "<|image|>"},
        extra_tokens=("<|python_tag|>",),
        bos="<|begin_of_text|>",
    ),
    "llama4": Family(
        model_type="llama4",
        config={
            "text_config": {
                **TEXT,
                "head_dim": 16,
                "intermediate_size_mlp": 128,
                "num_local_experts": 2,
                "interleave_moe_layer_step": 2,
                "no_rope_layer_interval": 2,
                "attention_chunk_size": 32,
            },
            "vision_config": {
                **TOWER,
                "intermediate_size": 256,
                "vision_output_dim": 64,
                "projector_input_dim": 64,
                "projector_output_dim": 64,
            },
            "image_token_index": "token:<|patch|>",
            "boi_token_index": "token:<|image_start|>",
            "eoi_token_index": "token:<|image_end|>",
        },
        processor="Llama4Processor",
        image_processor=make("Llama4ImageProcessor", size=square(56), max_patches=2),
        image="<|image|>",
        extra_tokens=(
            "<|image|>",
            "<|image_start|>",
            "<|image_end|>",
            "<|patch|>",
            "<|tile_x_separator|>",
            "<|tile_y_separator|>",
        ),
        settings={"patch_size": 14},
    ),
}
