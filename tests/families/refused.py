"""Families that cannot be attacked or certified as they stand, each with what a refusal must say."""

from __future__ import annotations

from families._parts import TEXT, TOKENS, TOWER, make, square
from safemed_eval.models.tiny import Family

_IDS = {"image_token": "<image>"}

REFUSED = {
    "florence2": (
        Family(
            model_type="florence2",
            config={
                "text_config": {
                    "model_type": "bart",
                    **TOKENS,
                    "vocab_size": "vocab",
                    "d_model": 64,
                    "encoder_layers": 1,
                    "decoder_layers": 1,
                    "encoder_attention_heads": 4,
                    "decoder_attention_heads": 4,
                    "encoder_ffn_dim": 128,
                    "decoder_ffn_dim": 128,
                },
                "vision_config": {
                    "depths": [1, 1, 1, 1],
                    "embed_dim": [16, 16, 32, 32],
                    "num_heads": [4] * 4,
                    "num_groups": [4] * 4,
                    "projection_dim": 64,
                },
                "image_token_id": "token:<image>",
            },
            processor="Florence2Processor",
            image_processor=make("CLIPImageProcessor", size=square(56), crop_size=square(56), image_seq_length=5),
            image="<image>",
            tokens=_IDS,
            bos="<s>",
        ),
        "Florence2ForConditionalGeneration is an encoder-decoder",
    ),
    "chameleon": (
        Family(
            model_type="chameleon",
            config={
                **TEXT,
                "vq_config": {
                    "embed_dim": 16,
                    "num_embeddings": 8,
                    "latent_channels": 16,
                    "resolution": 56,
                    "base_channels": 32,
                    "channel_multiplier": [1, 1],
                    "num_res_blocks": 1,
                },
                "vocabulary_map": {
                    "<image>": "token:<image>",
                    **{f"IMGIMG{x}Z": f"token:IMGIMG{x}Z" for x in "ABCDEFGH"},
                },
            },
            processor="ChameleonProcessor",
            image_processor=make("ChameleonImageProcessor", size={"shortest_edge": 56}, crop_size=square(56)),
            image=None,
            tokens={**_IDS, "sep_token": "<sep>"},
            extra_tokens=("<racm3:break>", "<eoss>", *(f"IMGIMG{x}Z" for x in "ABCDEFGH")),
            settings={"image_seq_length": 784},
        ),
        "ends every prompt with the token <sep>",
    ),
    "video_llava": (
        Family(
            model_type="video_llava",
            config={
                "text_config": {"model_type": "llama", **TEXT},
                "vision_config": {"model_type": "clip_vision_model", **TOWER},
                "image_token_index": "token:<image>",
                "video_token_index": "token:<video>",
            },
            processor="VideoLlavaProcessor",
            image_processor=make("VideoLlavaImageProcessor", size={"shortest_edge": 56}, crop_size=square(56)),
            image="<image>",
            tokens={**_IDS, "video_token": "<video>"},
        ),
        "VideoLlavaImageProcessor takes 8-bit images only",
    ),
}
