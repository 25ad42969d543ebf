"""Tiny models that see pictures, of which the text part is taken: name, class, settings, class of the configuration."""

from __future__ import annotations

from typing import Any

from .tiny_shapes import SHAPE, WIDE_HEADS

VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 48,
    "patch_size": 14,
    "num_position_embeddings": 16,
}
TURNS = {"rope_type": "default", "rope_theta": 700.0, "mrope_section": [3, 3, 2], "mrope_interleaved": True}
QWEN3_VL = SHAPE | WIDE_HEADS | {"rope_parameters": TURNS}
EXPERTS = {"num_local_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 512}
QWEN2_VL = SHAPE | {
    "rms_norm_eps": 1e-7,  # llama.cpp does not read it for this family
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0, "mrope_section": [1, 2, 1]},
}


def seeing(text: dict[str, Any], vision: dict[str, Any], tied: bool = False) -> dict[str, Any]:
    text = text | {"tie_word_embeddings": tied}
    return {"text_config": text, "vision_config": vision, "tie_word_embeddings": tied}


DEEP = VISION | {"deepstack_visual_indexes": [0]}
QWEN2_VISION = {"depth": 1, "embed_dim": 16, "hidden_size": 48, "num_heads": 2}
PICTURES = (
    ("qwen3-vl", "Qwen3VLForConditionalGeneration", seeing(QWEN3_VL, DEEP), "Qwen3VLConfig"),
    ("qwen3-vl-tied", "Qwen3VLForConditionalGeneration", seeing(QWEN3_VL, DEEP, tied=True), "Qwen3VLConfig"),
    ("qwen3-vl-moe", "Qwen3VLMoeForConditionalGeneration", seeing(QWEN3_VL | EXPERTS, DEEP), "Qwen3VLMoeConfig"),
    (
        "qwen2.5-vl",
        "Qwen2_5_VLForConditionalGeneration",
        seeing(QWEN2_VL, VISION | {"fullatt_block_indexes": [0]}),
        "Qwen2_5_VLConfig",
    ),
    (
        "qwen2-vl-tied",
        "Qwen2VLForConditionalGeneration",
        seeing(QWEN2_VL | {"num_hidden_layers": 3}, QWEN2_VISION, tied=True),
        "Qwen2VLConfig",
    ),
)
