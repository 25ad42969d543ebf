"""Tiny models with gated delta nets (Qwen3-Next, Qwen 3.5): name, class, settings, class of the configuration."""

from __future__ import annotations

from .tiny_shapes import SHAPE

DELTA = {
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 12,
    "linear_conv_kernel_dim": 4,
    "rms_norm_eps": 1e-6,  # llama.cpp takes it for queries and keys of delta nets as well, where transformers has 1e-6
    "num_hidden_layers": 4,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 700.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1],
    },
}
SHARED = {
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "norm_topk_prob": True,
}
NEXT = SHAPE | DELTA | SHARED | {"rope_parameters": SHAPE["rope_parameters"] | {"partial_rotary_factor": 0.5}}
DELTA_VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 48,
    "patch_size": 14,
    "num_position_embeddings": 16,
}

DELTA_NETS = (
    ("qwen3.5", "Qwen3_5ForCausalLM", SHAPE | DELTA, "Qwen3_5TextConfig"),
    (
        "qwen3.5-every-third-tied",
        "Qwen3_5ForCausalLM",
        SHAPE
        | DELTA
        | {
            "num_hidden_layers": 5,
            "full_attention_interval": 3,
            "linear_num_value_heads": 2,
            "tie_word_embeddings": True,
        },
        "Qwen3_5TextConfig",
    ),
    (
        "qwen3.5-multimodal",
        "Qwen3_5ForConditionalGeneration",
        {"text_config": SHAPE | DELTA, "vision_config": DELTA_VISION, "tie_word_embeddings": False},
        "Qwen3_5Config",
    ),
    ("qwen3-next", "Qwen3NextForCausalLM", NEXT),
    (
        "qwen3-next-odd",
        "Qwen3NextForCausalLM",
        NEXT
        | {"num_hidden_layers": 5, "full_attention_interval": 2, "linear_num_value_heads": 2}
        | {"linear_conv_kernel_dim": 3, "tie_word_embeddings": True},
    ),
    ("qwen3.5-moe", "Qwen3_5MoeForCausalLM", SHAPE | DELTA | SHARED, "Qwen3_5MoeTextConfig"),
    (
        "qwen3.5-moe-multimodal",
        "Qwen3_5MoeForConditionalGeneration",
        {"text_config": SHAPE | DELTA | SHARED, "vision_config": DELTA_VISION, "tie_word_embeddings": False},
        "Qwen3_5MoeConfig",
    ),
)
