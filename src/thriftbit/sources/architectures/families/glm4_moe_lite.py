"""GLM-4.7-Flash: latent attention, and experts in all layers but the first ones. Behind the last layer there may be one
that guesses the token after the next."""

from thriftbit.sources.architectures import latent
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.llama_like import METADATA, RMS_NORM, SIGMOID, SILU

ARCHITECTURE = Architecture(
    classes=("Glm4MoeLiteForCausalLM",),
    model_types=("glm4_moe_lite",),
    gguf_name="deepseek2",
    layers=latent.layers(latent.ROUTER_BIAS),
    lengths=latent.LENGTHS,
    metadata_keys=METADATA | RMS_NORM | latent.METADATA | {"expert_gating_func": lambda configuration: SIGMOID},
    optional_metadata_keys=latent.OPTIONAL_METADATA,
    restored=latent.restored,
    aliases={"qk_rope_head_dim": "head_dim"},
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 1.8,
        "norm_topk_prob": True,
        "n_shared_experts": 1,
        "num_nextn_predict_layers": 0,
    },
    fixed={"hidden_act": SILU, "attention_bias": (False,), "rope_interleave": (True,), "topk_method": ("noaux_tc",)},
    checks=(latent.query_rank_is_read, latent.groups_are_chosen),
    rope_types=frozenset({"default"}),
    rotates_parts=True,
    next_token_key="num_nextn_predict_layers",
    recognised=lambda model: model.number("expert_gating_func", 0, least=0) == SIGMOID,
)
