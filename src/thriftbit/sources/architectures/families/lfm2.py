"""LFM2 and LFM2.5: short convolutions, and grouped attention in some layers."""

from collections.abc import Mapping
from typing import Any

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width, some_layer_is_recurrent
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.layer_cache import attention_cache, short_convolution_cache
from thriftbit.sources.architectures.llama_like import METADATA
from thriftbit.sources.architectures.rows import HEAD, Row, layer, norm
from thriftbit.sources.architectures.transforms import reshape

ATTENTION = Kind(
    (
        layer("self_attn.q_proj.weight", "attn_q.weight", "query width"),
        layer("self_attn.k_proj.weight", "attn_k.weight", "key_value width"),
        layer("self_attn.v_proj.weight", "attn_v.weight", "key_value width"),
        layer("self_attn.out_proj.weight", "attn_output.weight", "width query"),
        norm("self_attn.q_layernorm", "attn_q_norm", "head"),
        norm("self_attn.k_layernorm", "attn_k_norm", "head"),
    ),
    attention_cache,
)
CONVOLUTION = Kind(
    (
        layer("conv.conv.weight", "shortconv.conv.weight", "width 1 kernel", reshape("width kernel")),
        layer("conv.in_proj.weight", "shortconv.in_proj.weight", "three_widths width"),
        layer("conv.out_proj.weight", "shortconv.out_proj.weight", "width width"),
    ),
    short_convolution_cache,
)
FFN_NORM = norm("ffn_norm", "ffn_norm")
DENSE = Kind(
    (
        layer("feed_forward.w1.weight", "ffn_gate.weight", "ffn width"),
        layer("feed_forward.w3.weight", "ffn_up.weight", "ffn width"),
        layer("feed_forward.w2.weight", "ffn_down.weight", "width ffn"),
    )
)
FIRST_NORM = norm("operator_norm", "attn_norm")


def layer_with(model: Dimensions, number: int, feed_forward: Kind) -> Kind:
    """Return the kind of one layer: without heads for keys and values it is a convolution."""
    heads = model.at(number).number("attention.head_count_kv", least=0)
    return layer_of(FIRST_NORM, ATTENTION if heads else CONVOLUTION, FFN_NORM, feed_forward)


def layers(model: Dimensions) -> list[Kind]:
    return [layer_with(model, number, DENSE) for number in range(model.all_layers)]


def key_value_heads(configuration: Configuration) -> list[int]:
    """Return the number of key-value heads of each layer: 0 for a convolution."""
    kinds = configuration.listed("layer_types", configuration.integer("num_hidden_layers"))
    return [0 if kind == "conv" else configuration.integer("num_key_value_heads") for kind in kinds]


def feed_forward_length(configuration: Configuration) -> int:
    """Return the length as transformers derives it: two thirds, times a factor, rounded up to a multiple."""
    length = configuration.integer("intermediate_size")
    if configuration.flag("block_auto_adjust_ff_dim"):
        length = int(configuration.number("block_ffn_dim_multiplier") * int(2 * length / 3))
        multiple = max(1, configuration.integer("block_multiple_of"))
        length = multiple * ((length + multiple - 1) // multiple)
    return length


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    heads = [int(shared) for shared in stated["attention.head_count_kv"]]
    return {
        "layer_types": ["full_attention" if shared else "conv" for shared in heads],
        "num_key_value_heads": max(heads),
        "intermediate_size": stated["feed_forward_length"],
        "block_auto_adjust_ff_dim": False,
    }


ARCHITECTURE = Architecture(
    classes=("Lfm2ForCausalLM", "LFM2ForCausalLM"),
    model_types=("lfm2",),
    gguf_name="lfm2",
    layers=layers,
    after=(Row("model.embedding_norm.weight", "token_embd_norm.weight", "width"), HEAD),
    lengths={
        "kernel": lambda model: model.number("shortconv.l_cache"),
        "three_widths": lambda model: 3 * model.width,
    },
    metadata_keys=METADATA
    | {
        "attention.head_count_kv": key_value_heads,
        "attention.layer_norm_rms_epsilon": "norm_eps",
        "feed_forward_length": feed_forward_length,
        "shortconv.l_cache": "conv_L_cache",
    },
    restored=restored,
    aliases={"block_ff_dim": "intermediate_size", "block_norm_eps": "norm_eps"},
    defaults={
        "tie_word_embeddings": True,
        "norm_eps": 1e-5,
        "conv_L_cache": 3,
        "block_auto_adjust_ff_dim": True,
        "block_ffn_dim_multiplier": 1.0,
        "block_multiple_of": 256,
    },
    fixed={"conv_bias": (False,)},
    checks=(heads_fill_width, some_layer_is_recurrent("conv")),
    rope_types=frozenset({"default"}),
)
