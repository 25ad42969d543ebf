"""Gated delta nets, the linear attention of Qwen3-Next and Qwen 3.5, and the full attention in the layers between.

Several value heads share a key head. Checkpoints keep the value heads of one key head together. llama.cpp's file has
the first value head of every key head, then the second of every key head, and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from thriftbit.sources import views
from thriftbit.sources.architectures import llama_like, rows
from thriftbit.sources.architectures.checks import LARGEST_EPSILON, some_layer_is_recurrent
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import MOST_LAYERS, Dimensions, Length
from thriftbit.sources.architectures.keys import Setting, kinds_of_layers
from thriftbit.sources.architectures.kinds import Kind, layer_of, named_at_source
from thriftbit.sources.architectures.kinds import Order as LayerOrder
from thriftbit.sources.architectures.layer_cache import attention_cache, state_space_cache
from thriftbit.sources.architectures.llama_like import (
    ATTENTION_OUTPUT,
    ROUTER,
    VALUE,
    routed_experts,
    shared_experts,
)
from thriftbit.sources.architectures.positions import all_frequencies_turn, sections_of_positions
from thriftbit.sources.architectures.rows import BLOCK, Row, layer, norm
from thriftbit.sources.architectures.transforms import (
    ADD_ONE,
    IDENTITY,
    MINUS_EXP,
    Order,
    Transform,
    reorder_columns,
    reorder_rows,
    reshape,
)
from thriftbit.sources.tensor import Tensor

LENGTHS: dict[str, Length] = {
    "key_heads": lambda model: model.number("ssm.group_count"),
    "value_heads": lambda model: model.number("ssm.time_step_rank"),
    "delta_head": lambda model: model.number("ssm.state_size"),
    "delta_keys": lambda model: model.length("key_heads") * model.length("delta_head"),
    "delta_values": lambda model: model.number("ssm.inner_size"),
    "delta_qkv": lambda model: 2 * model.length("delta_keys") + model.length("delta_values"),
    "delta_qkvz": lambda model: model.length("delta_qkv") + model.length("delta_values"),
    "two_value_heads": lambda model: 2 * model.length("value_heads"),
    "shared_ffn": lambda model: model.number("expert_shared_feed_forward_length"),
    "kernel": lambda model: model.number("ssm.conv_kernel"),
    "double_width": lambda model: 2 * model.width,
    "gated_query": lambda model: 2 * model.query,
}


def _order(model: Dimensions, entries: int, before: int = 0) -> Order:
    """Return the order of rows. entries: rows of each value head. before: rows before the value heads, which stay."""
    keys, values = model.length("key_heads"), model.length("value_heads")
    order = np.arange(values * entries).reshape(keys, values // keys, entries).swapaxes(0, 1).ravel()
    return np.concatenate([np.arange(before), before + order])


def _value_head(model: Dimensions) -> int:
    return model.length("delta_values") // model.length("value_heads")


HEADS = reorder_rows(lambda model: _order(model, 1))
VALUES = reorder_rows(lambda model: _order(model, _value_head(model)))
VALUE_COLUMNS = reorder_columns(lambda model: _order(model, _value_head(model)))
VALUES_BEHIND_KEYS = reorder_rows(lambda model: _order(model, _value_head(model), 2 * model.length("delta_keys")))

EXPERTS = layer_of(
    ROUTER,
    routed_experts(),
    shared_experts("mlp.shared_expert"),
    layer("mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight", "1 width"),
)
EXPERTS_METADATA: dict[str, Setting] = llama_like.EXPERTS_METADATA | {
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}


def shifted_norm(source: str, target: str, shape: str = "width") -> Row:
    """Return the row of a norm that is stored minus one."""
    return norm(source, target, shape, ADD_ONE)


def _state_rows(heads: Transform, behind_keys: Transform) -> tuple[Row, ...]:
    """Return the rows that are no matrices.

    heads: the order of value heads. behind_keys: the order of their rows behind the rows of keys."""
    convolution = reshape("delta_qkv kernel").then(behind_keys)
    return (
        layer("linear_attn.conv1d.weight", "ssm_conv1d.weight", "delta_qkv 1 kernel", convolution),
        layer("linear_attn.dt_bias", "ssm_dt.bias", "value_heads", heads),
        layer("linear_attn.A_log", "ssm_a", "value_heads", MINUS_EXP.then(heads)),
        norm("linear_attn.norm", "ssm_norm", "delta_head"),
    )


DELTA_NET = Kind(
    (
        layer("linear_attn.in_proj_qkv.weight", "attn_qkv.weight", "delta_qkv width", VALUES_BEHIND_KEYS),
        layer("linear_attn.in_proj_z.weight", "attn_gate.weight", "delta_values width", VALUES),
        layer("linear_attn.in_proj_b.weight", "ssm_beta.weight", "value_heads width", HEADS),
        layer("linear_attn.in_proj_a.weight", "ssm_alpha.weight", "value_heads width", HEADS),
        *_state_rows(HEADS, VALUES_BEHIND_KEYS),
        layer("linear_attn.out_proj.weight", "ssm_out.weight", "width delta_values", VALUE_COLUMNS),
    ),
    state_space_cache,
)


def _split_key_heads(tensors: Sequence[Tensor], model: Dimensions) -> list[Tensor]:
    """Split a matrix with query, key, value and gate of one key head after another into all queries, keys and values,
    and all gates."""
    keys, values = model.length("key_heads"), model.length("delta_values") // model.length("key_heads")
    *parts, gates = views.split(tensors[0], keys, (model.length("delta_head"),) * 2 + (values,) * 2)
    return [views.concatenated(parts), gates]


def _joined_key_heads(tensors: Sequence[Tensor], model: Dimensions) -> list[Tensor]:
    parts = views.split(tensors[0], 1, model.shape("delta_keys delta_keys delta_values"))
    return [views.joined([*parts, tensors[1]], model.length("key_heads"))]


# Qwen3-Next has these projections in two matrices, and its value heads keep their order.
DELTA_NET_BY_KEY_HEAD = Kind(
    (
        layer(
            "linear_attn.in_proj_qkvz.weight",
            ("attn_qkv.weight", "attn_gate.weight"),
            "delta_qkvz width",
            Transform(_split_key_heads, _joined_key_heads),
        ),
        layer("linear_attn.in_proj_ba.weight", "ssm_ba.weight", "two_value_heads width"),
        *_state_rows(IDENTITY, IDENTITY),
        layer("linear_attn.out_proj.weight", "ssm_out.weight", "width delta_values"),
    ),
    state_space_cache,
)
GATED_ATTENTION = Kind(
    (
        layer("self_attn.q_proj.weight", "attn_q.weight", "gated_query width"),
        layer("self_attn.k_proj.weight", "attn_k.weight", "key_value width"),
        VALUE,
        ATTENTION_OUTPUT,
        shifted_norm("self_attn.q_norm", "attn_q_norm", "head"),
        shifted_norm("self_attn.k_norm", "attn_k_norm", "head"),
    ),
    attention_cache,
)

# A layer that guesses ahead joins the last hidden state with the next token, and then has full attention.
_JOINING = Kind(
    (
        Row("mtp.fc.weight", f"{BLOCK}nextn.eh_proj.weight", "width double_width"),
        Row("mtp.pre_fc_norm_embedding.weight", f"{BLOCK}nextn.enorm.weight", "width", ADD_ONE),
        Row("mtp.pre_fc_norm_hidden.weight", f"{BLOCK}nextn.hnorm.weight", "width", ADD_ONE),
        Row("mtp.norm.weight", f"{BLOCK}nextn.shared_head_norm.weight", "width", ADD_ONE),
    )
)
FINAL_NORM = replace(rows.FINAL_NORM, transform=ADD_ONE)


def layers(*, linear: Kind, full: Kind) -> LayerOrder:
    """Return the kind of each layer by the metadata: a list, or in older files an interval. Layers that guess ahead
    come last."""
    ahead = layer_of(named_at_source(full, "mtp.layers.{ahead}."), _JOINING)

    def order(model: Dimensions) -> list[Kind]:
        kinds = []
        for number in range(model.layers):
            here = model.at(number)
            if model.has("attention.recurrent_layers"):
                is_linear = here.flag("attention.recurrent_layers")
            else:
                is_linear = (number + 1) % model.number("full_attention_interval", 4) != 0
            kinds.append(linear if is_linear else full)
        return [*kinds, *[ahead] * model.next_token_layers]

    return order


IS_LINEAR = kinds_of_layers("layer_types", is_kind="linear_attention")


def _linear_layers(configuration: Configuration) -> list[bool]:
    """Return whether each layer has linear attention: False for layers that guess ahead."""
    ahead = configuration.integer("mtp_num_hidden_layers")
    return [*IS_LINEAR(configuration), *[False] * min(ahead, MOST_LAYERS)]


METADATA: dict[str, Setting] = {
    "ssm.conv_kernel": "linear_conv_kernel_dim",
    "ssm.state_size": "linear_key_head_dim",
    "ssm.group_count": "linear_num_key_heads",
    "ssm.time_step_rank": "linear_num_value_heads",
    "ssm.inner_size": lambda configuration: (
        configuration.integer("linear_value_head_dim") * configuration.integer("linear_num_value_heads")
    ),
    "attention.recurrent_layers": _linear_layers,
    "full_attention_interval": "full_attention_interval",
}


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    layers = stated["block_count"] - stated.get("nextn_predict_layers", 0)
    interval = stated.get("full_attention_interval", 4)
    linear = stated.get("attention.recurrent_layers", [(layer + 1) % interval != 0 for layer in range(layers)])
    return {
        "linear_value_head_dim": stated["ssm.inner_size"] // stated["ssm.time_step_rank"],
        "layer_types": ["linear_attention" if each else "full_attention" for each in linear[:layers]],
    }


def interval(configuration: Configuration) -> int:
    """Return the interval of layers with full attention, derived from the list of layers. Older releases of llama.cpp
    read this interval."""
    kinds = configuration.get("layer_types")
    return kinds.index("full_attention") + 1 if isinstance(kinds, list) and "full_attention" in kinds else 4


def layer_types(configuration: Configuration) -> list[str]:
    """Return the default of `layer_types`."""
    interval = max(1, configuration.integer("full_attention_interval"))
    layers = min(configuration.integer("num_hidden_layers"), MOST_LAYERS)
    return ["full_attention" if (layer + 1) % interval == 0 else "linear_attention" for layer in range(layers)]


sections = sections_of_positions(11, 11, 10)
DEFAULTS: dict[str, Any] = {
    "head_dim": 256,
    "partial_rotary_factor": 0.25,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "mtp_num_hidden_layers": 0,
    "full_attention_interval": interval,
    "layer_types": layer_types,
}


_some_layer_is_recurrent = some_layer_is_recurrent("linear_attention")


def delta_nets_agree(configuration: Configuration, model: Dimensions) -> str | None:
    keys, values = model.length("key_heads"), model.length("value_heads")
    if values % keys:
        return f"{values} value heads cannot share {keys} key heads evenly."
    if configuration.integer("linear_key_head_dim") != configuration.integer("linear_value_head_dim"):
        return "linear_key_head_dim is not linear_value_head_dim, and llama.cpp takes that for granted."
    if problem := _some_layer_is_recurrent(configuration, model):
        return problem
    if (epsilon := configuration.number("rms_norm_eps")) > LARGEST_EPSILON:
        return f"rms_norm_eps is {epsilon:g}; llama.cpp takes it, and not 1e-6, for queries and keys of delta nets too."
    return None


_all_frequencies_turn = all_frequencies_turn(sections)


def computes_the_same(configuration: Configuration, model: Dimensions) -> str | None:
    return delta_nets_agree(configuration, model) or _all_frequencies_turn(configuration, model)
