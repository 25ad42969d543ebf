"""Tiny models of the Gemma family: name, class, settings, class of the configuration."""

from __future__ import annotations

from .tiny_shapes import SHAPE, VISION, VOCABULARY

GEMMA = SHAPE | {"num_hidden_layers": 7, "head_dim": 12, "query_pre_attn_scalar": 12, "sliding_window": 24}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}
GEMMA4 = SHAPE | {
    "num_hidden_layers": 7,
    "head_dim": 12,
    "global_head_dim": 16,
    "sliding_window": 24,
    "hidden_size_per_layer_input": 0,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2 + ["full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 5000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
}
GEMMA4_EXPERTS = {
    "enable_moe_block": True,
    "num_experts": 5,
    "top_k_experts": 2,
    "moe_intermediate_size": 24,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
}

GEMMAS = (
    ("gemma2", "Gemma2ForCausalLM", GEMMA | {"num_hidden_layers": 3}),
    ("gemma3", "Gemma3ForCausalLM", GEMMA | {"rope_parameters": GEMMA_ROPE}, "Gemma3TextConfig"),
    (
        "gemma3-untied",
        "Gemma3ForCausalLM",
        GEMMA
        | {"tie_word_embeddings": False, "rope_parameters": GEMMA_ROPE | {"full_attention": SHAPE["rope_parameters"]}},
        "Gemma3TextConfig",
    ),
    (
        "gemma3-multimodal",
        "Gemma3ForConditionalGeneration",
        {"text_config": GEMMA | {"rope_parameters": GEMMA_ROPE}, "vision_config": VISION, "mm_tokens_per_image": 4},
        "Gemma3Config",
    ),
    ("gemma4", "Gemma4ForCausalLM", GEMMA4, "Gemma4TextConfig"),
    (
        "gemma4-per-layer",
        "Gemma4ForCausalLM",
        GEMMA4
        | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY, "num_kv_shared_layers": 4}
        | {"use_double_wide_mlp": True, "final_logit_softcapping": 3.0, "tie_word_embeddings": False},
        "Gemma4TextConfig",
    ),
    ("gemma4-experts", "Gemma4ForCausalLM", GEMMA4 | GEMMA4_EXPERTS, "Gemma4TextConfig"),
    (
        "gemma4-multimodal",
        "Gemma4ForConditionalGeneration",
        {"text_config": GEMMA4 | GEMMA4_EXPERTS, "vision_config": VISION | {"head_dim": 8}, "audio_config": None},
        "Gemma4Config",
    ),
)
