"""Tiny models of families whose layers descend from Llama's: name, class and settings."""

from __future__ import annotations

from .tiny_shapes import LINEAR, LLAMA3, SHAPE, WIDE_HEADS, YARN

TIED = {"tie_word_embeddings": True}
UNTIED = {"tie_word_embeddings": False}
WITHOUT_RMS = {key: value for key, value in SHAPE.items() if key != "rms_norm_eps"}
LAYER_NORMS = WITHOUT_RMS | {"layer_norm_eps": 0.02}
HALF_ROTATED = {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.5}}
WINDOWED = {"sliding_window": 24, "num_hidden_layers": 5}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2}
# llama.cpp's converter writes this epsilon whatever is configured.
OLMOE = SHAPE | EXPERTS | {"intermediate_size": 24, "num_key_value_heads": 6, "rms_norm_eps": 1e-5}
GLM4_MOE = (
    SHAPE
    | WIDE_HEADS
    | HALF_ROTATED
    | {"num_hidden_layers": 3, "n_routed_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    | {"n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "num_nextn_predict_layers": 0}
)
LFM2 = SHAPE | {
    "num_hidden_layers": 4,
    "layer_types": ["conv", "conv", "full_attention", "conv"],
    "norm_eps": 0.02,
    "block_multiple_of": 16,
}

LLAMA_LIKE = (
    ("gemma", "GemmaForCausalLM", SHAPE | WIDE_HEADS),
    ("gemma-narrow-heads", "GemmaForCausalLM", SHAPE | {"head_dim": 8, "num_hidden_layers": 3}),
    ("seed-oss", "SeedOssForCausalLM", SHAPE | WIDE_HEADS | {"attention_bias": True, "attention_out_bias": False}),
    ("seed-oss-tied-yarn", "SeedOssForCausalLM", SHAPE | WIDE_HEADS | TIED | {"rope_parameters": YARN}),
    ("ernie4.5", "Ernie4_5ForCausalLM", SHAPE | WIDE_HEADS),
    ("ernie4.5-untied", "Ernie4_5ForCausalLM", SHAPE | UNTIED | {"head_dim": 8}),
    ("cohere", "CohereForCausalLM", LAYER_NORMS | {"logit_scale": 0.3}),
    (
        "cohere-normed",
        "CohereForCausalLM",
        LAYER_NORMS | {"logit_scale": 0.2, "use_qk_norm": True, "num_hidden_layers": 64},
    ),
    ("olmo3", "Olmo3ForCausalLM", SHAPE | WINDOWED),
    ("olmo3-tied", "Olmo3ForCausalLM", SHAPE | TIED | {"sliding_window": 20, "num_hidden_layers": 4}),
    ("exaone4", "Exaone4ForCausalLM", SHAPE | WINDOWED | {"num_hidden_layers": 64}),
    (
        "exaone4-no-window",
        "Exaone4ForCausalLM",
        SHAPE | TIED | {"sliding_window": None, "layer_types": ["full_attention"] * 2, "rope_parameters": LLAMA3},
    ),
    ("hunyuan", "HunYuanDenseV1ForCausalLM", SHAPE | WIDE_HEADS),
    ("hunyuan-tied", "HunYuanDenseV1ForCausalLM", SHAPE | TIED | {"head_dim": 12}),
    ("glm4", "Glm4ForCausalLM", SHAPE | WIDE_HEADS | HALF_ROTATED | {"attention_bias": True}),
    ("glm4-plain", "Glm4ForCausalLM", SHAPE | HALF_ROTATED | {"num_hidden_layers": 3, "attention_bias": False}),
    ("phi", "PhiForCausalLM", LAYER_NORMS | HALF_ROTATED),
    (
        "phi-grouped",
        "PhiForCausalLM",
        LAYER_NORMS | {"num_key_value_heads": 6, "hidden_act": "gelu_new"} | HALF_ROTATED,
    ),
    ("arcee", "ArceeForCausalLM", SHAPE | WIDE_HEADS),
    ("arcee-yarn", "ArceeForCausalLM", SHAPE | {"rope_parameters": YARN}),
    ("nemotron", "NemotronForCausalLM", WITHOUT_RMS | HALF_ROTATED | {"norm_eps": 0.02}),
    ("nemotron-tied", "NemotronForCausalLM", WITHOUT_RMS | HALF_ROTATED | TIED | {"norm_eps": 0.01}),
    ("stablelm", "StableLmForCausalLM", LAYER_NORMS | HALF_ROTATED | {"use_qkv_bias": True}),
    (
        "stablelm-parallel",
        "StableLmForCausalLM",
        LAYER_NORMS | HALF_ROTATED | {"qk_layernorm": True, "use_parallel_residual": True},
    ),
    (
        "qwen2-moe",
        "Qwen2MoeForCausalLM",
        SHAPE | EXPERTS | {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 40},
    ),
    ("olmoe", "OlmoeForCausalLM", OLMOE),
    (
        "olmoe-linear",
        "OlmoeForCausalLM",
        OLMOE | {"rope_parameters": LINEAR},
    ),
    ("glm4-moe", "Glm4MoeForCausalLM", GLM4_MOE | {"attention_bias": True, "use_qk_norm": True}),
    ("glm4-moe-plain", "Glm4MoeForCausalLM", GLM4_MOE | {"routed_scaling_factor": 1.7, "n_shared_experts": 2}),
    ("lfm2", "Lfm2ForCausalLM", LFM2),
    (
        "lfm2-untied",
        "Lfm2ForCausalLM",
        LFM2
        | UNTIED
        | {"block_auto_adjust_ff_dim": False, "layer_types": ["full_attention", "conv"], "conv_L_cache": 4}
        | {"num_hidden_layers": 2},
    ),
)
