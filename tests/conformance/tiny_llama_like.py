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
LFM2_MOE = {key: value for key, value in LFM2.items() if key != "block_multiple_of"} | EXPERTS
LFM2_MOE |= {"moe_intermediate_size": 24, "num_dense_layers": 1}
ERNIE_MOE = SHAPE | WIDE_HEADS | {"num_hidden_layers": 3, "moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 24}
HUNYUAN_MOE = SHAPE | WIDE_HEADS | {"num_experts": 5, "moe_topk": 2}
STRETCHED = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 700.0, "factor": 1.0, "alpha": 3.0}}
LLAMA4 = (
    SHAPE
    | WIDE_HEADS
    | {"num_hidden_layers": 4, "num_local_experts": 5, "intermediate_size": 24, "intermediate_size_mlp": 80}
)
LLAMA4_VISION = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
LLAMA4_VISION |= {"image_size": 28, "patch_size": 14, "vision_output_dim": 16}
LLAMA4_VISION |= {"projector_input_dim": 16, "projector_output_dim": 16}

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
    ("lfm2-moe", "Lfm2MoeForCausalLM", LFM2_MOE),
    ("lfm2-moe-untied", "Lfm2MoeForCausalLM", LFM2_MOE | UNTIED | {"num_dense_layers": 0, "conv_L_cache": 4}),
    ("ernie4.5-moe", "Ernie4_5_MoeForCausalLM", ERNIE_MOE | {"moe_num_shared_experts": 1}),
    (
        "ernie4.5-moe-untied",
        "Ernie4_5_MoeForCausalLM",
        ERNIE_MOE | UNTIED | {"moe_num_shared_experts": 2, "moe_layer_start_index": 2},
    ),
    ("hunyuan-stretched", "HunYuanDenseV1ForCausalLM", SHAPE | WIDE_HEADS | STRETCHED),
    ("hunyuan-moe", "HunYuanMoEV1ForCausalLM", HUNYUAN_MOE),
    ("hunyuan-moe-stretched", "HunYuanMoEV1ForCausalLM", HUNYUAN_MOE | TIED | STRETCHED | {"moe_topk": 3}),
    ("llama4", "Llama4ForCausalLM", LLAMA4, "Llama4TextConfig"),
    (
        "llama4-interleaved",
        "Llama4ForCausalLM",
        LLAMA4 | TIED | {"interleave_moe_layer_step": 2, "num_experts_per_tok": 2, "rope_parameters": LLAMA3},
        "Llama4TextConfig",
    ),
    (
        "llama4-multimodal",
        "Llama4ForConditionalGeneration",
        {"text_config": LLAMA4, "vision_config": LLAMA4_VISION},
        "Llama4Config",
    ),
)
