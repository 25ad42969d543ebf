"""GLM-4.5, 4.6 and 4.7: grouped attention with biases, experts in all layers but the first ones. Behind the last layer
there may be one that guesses the token after the next."""

from collections.abc import Mapping
from typing import Any

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.latent import (
    EXPERTS,
    JOINING,
    ROUTER_BIAS,
    groups_are_chosen,
    leading_dense_layers,
)
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    GATED_FFN,
    METADATA,
    OPTIONAL_QUERY_KEY_VALUE_BIASES,
    RMS_NORM,
    SIGMOID,
    SILU,
)
from thriftbit.sources.architectures.rows import norm

HALF = layer_of(
    ATTENTION_NORM,
    ATTENTION,
    OPTIONAL_QUERY_KEY_VALUE_BIASES,
    norm("self_attn.q_norm", "attn_q_norm", "head", when="use_qk_norm"),
    norm("self_attn.k_norm", "attn_k_norm", "head", when="use_qk_norm"),
    norm("post_attention_layernorm", "post_attention_norm"),
)
DENSE, SPARSE = layer_of(HALF, GATED_FFN), layer_of(HALF, EXPERTS, ROUTER_BIAS)


def layers(model: Dimensions) -> list[Kind]:
    first = model.number("leading_dense_block_count", 0, least=0)
    kinds = [DENSE if number < first else SPARSE for number in range(model.layers)]
    return [*kinds, *[layer_of(SPARSE, JOINING)] * model.next_token_layers]


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "first_k_dense_replace": stated.get("leading_dense_block_count", 0),
        "norm_topk_prob": stated.get("expert_weights_norm", False),
    }


ARCHITECTURE = Architecture(
    classes=("Glm4MoeForCausalLM",),
    model_types=("glm4_moe",),
    gguf_name="glm4moe",
    layers=layers,
    lengths={
        "shared_ffn": lambda model: model.number("expert_shared_count") * model.expert_ffn,
        "double_width": lambda model: 2 * model.width,
    },
    metadata_keys=METADATA
    | RMS_NORM
    | {
        "expert_count": "n_routed_experts",
        "expert_used_count": "num_experts_per_tok",
        "expert_shared_count": "n_shared_experts",
        "expert_feed_forward_length": "moe_intermediate_size",
        "leading_dense_block_count": leading_dense_layers,
        "expert_gating_func": lambda configuration: SIGMOID,
        "expert_weights_scale": "routed_scaling_factor",
        "expert_weights_norm": "norm_topk_prob",
    },
    optional_metadata_keys={"expert_group_count": "n_group", "expert_group_used_count": "topk_group"},
    restored=restored,
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "partial_rotary_factor": 0.5,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": True,
        "n_shared_experts": 1,
        "use_qk_norm": False,
        "num_nextn_predict_layers": 0,
    },
    fixed={"hidden_act": SILU},
    checks=(groups_are_chosen,),
    next_token_key="num_nextn_predict_layers",
    rotates_parts=True,
)
