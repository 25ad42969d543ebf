"""Tiny models with latent attention (DeepSeek, GLM-4.7-Flash): name, class and settings."""

from __future__ import annotations

from .tiny_shapes import SHAPE, YARN

LATENT = {
    "q_lora_rank": 20,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 10,
    "n_routed_experts": 5,
    "first_k_dense_replace": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 2,
    "num_key_value_heads": 6,
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-6,  # transformers computes the norms of latent vectors with this one whatever is configured
}
FOUR_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4}
GROUPS = {"n_routed_experts": 12, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3}

LATENTS = (
    ("glm4-moe-lite", "Glm4MoeLiteForCausalLM", SHAPE | LATENT),
    ("deepseek-v3", "DeepseekV3ForCausalLM", SHAPE | LATENT | GROUPS),
    (
        "deepseek-v3-yarn",
        "DeepseekV3ForCausalLM",
        SHAPE
        | LATENT
        | {"n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.7, "norm_topk_prob": False}
        | {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1}},
    ),
    ("deepseek-v2", "DeepseekV2ForCausalLM", SHAPE | LATENT | FOUR_HEADS | {"first_k_dense_replace": 0}),
    (
        "deepseek-v2-lite",  # llama.cpp knows models without q_lora_rank by their 26 layers
        "DeepseekV2ForCausalLM",
        SHAPE
        | LATENT
        | FOUR_HEADS
        | {"q_lora_rank": None, "num_hidden_layers": 26, "hidden_size": 96, "first_k_dense_replace": 24}
        | {"n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.3}
        | {"rope_parameters": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}},
    ),
)
