"""Multi-head latent attention (MLA) of DeepSeek V2 and its descendants, and their experts.

Keys and values of all heads are made from one short vector per token, and only that vector is kept. llama.cpp
multiplies by the two halves of that matrix at different times, so its file has them apart, the keys' half transposed.
Source: arXiv 2405.04434."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures.configuration import Configuration, finite
from thriftbit.sources.architectures.dimensions import Dimensions, Length
from thriftbit.sources.architectures.keys import Setting
from thriftbit.sources.architectures.kinds import Kind, Order, layer_of
from thriftbit.sources.architectures.layer_cache import latent_cache
from thriftbit.sources.architectures.llama_like import (
    ATTENTION_NORM,
    FFN_NORM,
    GATED_FFN,
    ROUTER,
    routed_experts,
    shared_experts,
)
from thriftbit.sources.architectures.rope import yarn_settings
from thriftbit.sources.architectures.rows import Row, layer, norm
from thriftbit.sources.architectures.transforms import TRANSPOSE, split

LENGTHS: dict[str, Length] = {
    "query_rank": lambda model: model.number("attention.q_lora_rank"),
    "latent": lambda model: model.number("attention.kv_lora_rank"),
    "latent_and_rope": lambda model: model.length("latent") + model.rotary,
    "key_head": lambda model: model.number("attention.key_length_mla"),
    "plain_head": lambda model: model.length("key_head") - model.rotary,
    "value_head": lambda model: model.number("attention.value_length_mla"),
    "query": lambda model: model.heads * model.length("key_head"),
    "values": lambda model: model.heads * model.length("value_head"),
    "keys_and_values": lambda model: model.heads * (model.length("plain_head") + model.length("value_head")),
    "shared_ffn": lambda model: model.number("expert_shared_count") * model.expert_ffn,
    "double_width": lambda model: 2 * model.width,
}

_KEYS_AND_VALUES = split(
    "plain_head value_head",
    "heads",
    parts=("heads plain_head latent", "heads value_head latent"),
).of_target(0, TRANSPOSE)
_FULL_QUERY = (layer("self_attn.q_proj.weight", "attn_q.weight", "query width"),)
_LOW_RANK_QUERY = (
    layer("self_attn.q_a_proj.weight", "attn_q_a.weight", "query_rank width"),
    norm("self_attn.q_a_layernorm", "attn_q_a_norm", "query_rank"),
    layer("self_attn.q_b_proj.weight", "attn_q_b.weight", "query query_rank"),
)
_KEY_VALUE = (
    layer("self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight", "latent_and_rope width"),
    norm("self_attn.kv_a_layernorm", "attn_kv_a_norm", "latent"),
    layer(
        "self_attn.kv_b_proj.weight",
        ("attn_k_b.weight", "attn_v_b.weight"),
        "keys_and_values latent",
        _KEYS_AND_VALUES,
    ),
    layer("self_attn.o_proj.weight", "attn_output.weight", "width values"),
)
EXPERTS = layer_of(ROUTER, routed_experts(), shared_experts())
ROUTER_BIAS = layer("mlp.gate.e_score_correction_bias", "exp_probs_b.bias", "experts")

# A layer that guesses ahead joins the last hidden state with the next token, and may have its own vocabulary matrices
JOINING = Kind(
    (
        layer("eh_proj.weight", "nextn.eh_proj.weight", "width double_width"),
        norm("enorm", "nextn.enorm"),
        norm("hnorm", "nextn.hnorm"),
        layer("embed_tokens.weight", "nextn.embed_tokens.weight", "vocabulary width", optional=True),
        layer("shared_head.head.weight", "nextn.shared_head_head.weight", "vocabulary width", optional=True),
        norm("shared_head.norm", "nextn.shared_head_norm"),
    )
)


def layers(*more_of_experts: Row) -> Order:
    """Return a rule: first layers with a dense feed-forward, then layers with experts, then those that guess ahead.

    more_of_experts: further rows of a layer with experts."""

    def order(model: Dimensions) -> list[Kind]:
        query = _LOW_RANK_QUERY if model.has("attention.q_lora_rank") else _FULL_QUERY
        attention = layer_of(ATTENTION_NORM, Kind((*query, *_KEY_VALUE), latent_cache), FFN_NORM)
        dense, sparse = layer_of(attention, GATED_FFN), layer_of(attention, EXPERTS, *more_of_experts)
        first = model.number("leading_dense_block_count", 0, least=0)
        kinds = [dense if number < first else sparse for number in range(model.layers)]
        return [*kinds, *[layer_of(sparse, JOINING)] * model.next_token_layers]

    return order


def leading_dense_layers(configuration: Configuration) -> int:
    """Return how many layers at the beginning have no experts. Raises ThriftbitError if a later layer has none
    either."""
    kinds = configuration.get("mlp_layer_types")
    if kinds is None:
        return configuration.integer("first_k_dense_replace")
    listed = configuration.listed("mlp_layer_types", configuration.integer("num_hidden_layers"))
    leading = next((number for number, kind in enumerate(listed) if kind != "dense"), len(listed))
    if "dense" in listed[leading:]:
        raise ThriftbitError("config.json: mlp_layer_types has dense layers behind sparse ones; llama.cpp has not.")
    return leading


METADATA: dict[str, Setting] = {
    "attention.head_count_kv": lambda configuration: 1,
    "attention.key_length": lambda configuration: (
        configuration.integer("kv_lora_rank") + configuration.integer("qk_rope_head_dim")
    ),
    "attention.value_length": "kv_lora_rank",
    "attention.key_length_mla": lambda configuration: (
        configuration.integer("qk_nope_head_dim") + configuration.integer("qk_rope_head_dim")
    ),
    "attention.value_length_mla": "v_head_dim",
    "attention.kv_lora_rank": "kv_lora_rank",
    "rope.dimension_count": "qk_rope_head_dim",
    "leading_dense_block_count": leading_dense_layers,
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_shared_count": "n_shared_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": lambda configuration: configuration.flag("norm_topk_prob") or None,
}
OPTIONAL_METADATA: dict[str, Setting] = {
    "attention.q_lora_rank": "q_lora_rank",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
}


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    layers = stated["block_count"] - stated.get("nextn_predict_layers", 0)
    dense = stated.get("leading_dense_block_count", 0)
    rope = stated["rope.dimension_count"]
    return {
        "num_key_value_heads": stated["attention.head_count"],
        "qk_nope_head_dim": stated["attention.key_length_mla"] - rope,
        "head_dim": rope,
        "first_k_dense_replace": dense,
        "mlp_layer_types": ["dense"] * dense + ["sparse"] * (layers - dense),
        "norm_topk_prob": stated.get("expert_weights_norm", False),
        "q_lora_rank": stated.get("attention.q_lora_rank"),
    }


def query_rank_is_read(configuration: Configuration, model: Dimensions) -> str | None:
    """Return what is wrong with the rank of queries, None if nothing is. llama.cpp takes models of some depths for
    small models, whose queries have no low rank. All others need one."""
    small = model.layers in (26, 27) or (model.layers == 48 and model.vocabulary == 128256)
    if small and model.has("attention.q_lora_rank"):
        return f"llama.cpp takes a model of {model.layers} layers for one without q_lora_rank."
    if not small and not model.has("attention.q_lora_rank"):
        return f"llama.cpp takes a model of {model.layers} layers for one with a q_lora_rank, and there is none."
    return None


# YaRN of DeepSeek: attention scores grow with mscale_all_dim, and rotated entries keep their magnitude. llama.cpp does
# this if the file has a log multiplier and no attention factor.
YARN_METADATA: dict[str, Setting] = {
    "rope.scaling.yarn_log_multiplier": lambda configuration: (
        0.1 * finite(yarn_settings(configuration)["mscale_all_dim"], "mscale_all_dim")
        if "mscale_all_dim" in yarn_settings(configuration)
        else None
    ),
    "rope.scaling.attn_factor": lambda configuration: None,
}


def yarn_restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of YaRN that give the log multiplier."""
    if "rope.scaling.yarn_log_multiplier" not in stated:
        return {}
    mscale = 10 * stated["rope.scaling.yarn_log_multiplier"]
    return {"rope_parameters": {"mscale": mscale, "mscale_all_dim": mscale, "attention_factor": None}}


def yarn_keeps_the_magnitude(configuration: Configuration, model: Dimensions) -> str | None:
    yarn = yarn_settings(configuration)
    if not yarn:
        return None
    mscale = yarn.get("mscale_all_dim")
    if not mscale or yarn.get("mscale") != mscale or yarn.get("attention_factor") not in (None, 1):
        return "YaRN has an mscale other than its mscale_all_dim; here llama.cpp computes equal ones only."
    return None


def groups_are_chosen(configuration: Configuration, model: Dimensions) -> str | None:
    groups, used = configuration.integer("n_group"), configuration.integer("topk_group")
    if groups == 1 or (1 <= used < groups < model.experts and model.experts % groups == 0):
        return None
    return (
        f"llama.cpp cannot choose {used} of {groups} groups of {model.experts} experts: groups should be equal, "
        "and fewer of them chosen than there are."
    )
