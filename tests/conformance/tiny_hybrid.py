"""Tiny models of families with state-space layers, and of those that share a table with them: name, class, settings."""

from __future__ import annotations

from .tiny_shapes import SHAPE

TIED = {"tie_word_embeddings": True}
MULTIPLIED = {
    "attention_multiplier": 0.2,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "logits_scaling": 1.7,
}
GRANITE = SHAPE | MULTIPLIED
GRANITE_4 = GRANITE | {
    "num_hidden_layers": 3,
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "shared_intermediate_size": 80,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "mamba_n_heads": 8,
    "mamba_d_state": 16,
}
GRANITE_EXPERTS = {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 24}
NEMOTRON_H = {key: value for key, value in SHAPE.items() if key not in ("rms_norm_eps", "rope_parameters")} | {
    "head_dim": 16,
    "layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp", "linear_attention"],
    "mamba_num_heads": 8,
    "mamba_head_dim": 10,
    "n_groups": 2,
    "ssm_state_size": 16,
    "layer_norm_epsilon": 0.02,
    "time_step_min": 1e-9,  # transformers cuts off what is below, and llama.cpp does not
}
NEMOTRON_H_MOE = NEMOTRON_H | {
    "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"],
    "n_routed_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 40,
    "routed_scaling_factor": 1.7,
}
FALCON_H1 = SHAPE | {
    "head_dim": 8,
    "mamba_d_ssm": 80,
    "mamba_n_heads": 8,
    "mamba_d_head": 10,
    "mamba_d_state": 16,
    "embedding_multiplier": 2.5,
    "lm_head_multiplier": 0.7,
    "attention_in_multiplier": 1.2,
    "attention_out_multiplier": 0.8,
    "key_multiplier": 0.6,
    "ssm_in_multiplier": 1.3,
    "ssm_out_multiplier": 0.4,
    "ssm_multipliers": [0.9, 0.8, 0.7, 1.1, 1.2],
    "mlp_multipliers": [0.75, 0.5],
}

HYBRID = (
    ("granite-4", "GraniteMoeHybridForCausalLM", GRANITE_4),
    (
        "granite-4-experts",
        "GraniteMoeHybridForCausalLM",
        GRANITE_4 | GRANITE_EXPERTS | TIED | {"shared_intermediate_size": 40, "mamba_d_conv": 3, "mamba_n_heads": 4},
    ),
    (
        "granite-4-dense",
        "GraniteMoeHybridForCausalLM",
        GRANITE_4 | {"layer_types": ["full_attention"] * 3, "position_embedding_type": "rope"},
    ),
    ("granite-moe", "GraniteMoeForCausalLM", GRANITE | GRANITE_EXPERTS),
    (
        "granite-moe-shared",
        "GraniteMoeSharedForCausalLM",
        GRANITE | GRANITE_EXPERTS | TIED | {"shared_intermediate_size": 40},
    ),
    ("nemotron-h", "NemotronHForCausalLM", NEMOTRON_H),
    (
        "nemotron-h-short",
        "NemotronHForCausalLM",
        NEMOTRON_H | {"layers_block_type": ["full_attention", "linear_attention"], "conv_kernel": 3, "n_groups": 1},
    ),
    ("nemotron-h-moe", "NemotronHForCausalLM", NEMOTRON_H_MOE),
    (
        "nemotron-h-moe-latent",
        "NemotronHForCausalLM",
        NEMOTRON_H_MOE | {"moe_latent_size": 32, "norm_topk_prob": False, "mamba_head_dim": 12},
    ),
    ("falcon-h1", "FalconH1ForCausalLM", FALCON_H1),
    (
        "falcon-h1-normed",
        "FalconH1ForCausalLM",
        FALCON_H1
        | {"mamba_rms_norm": True, "mamba_norm_before_gate": False, "mamba_n_groups": 2, "mamba_d_conv": 3}
        | {"head_dim": 16},
    ),
)
